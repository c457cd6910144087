import type { RuleContext, RuleTable, VjpRule } from '../types.js';
import { ACTIVATION_RULES } from './activations.js';

/** A rule of one operand from its derivative times the cotangent. */
const unary =
  (write: (context: RuleContext, g: string, x: string, y: string) => string): VjpRule =>
  (context) => {
    const [g] = context.cotangents;
    return g === undefined ? [] : [write(context, g, context.inputs[0], context.outputs[0])];
  };

type Write = (context: RuleContext, g: string, a: string, b: string, y: string) => string;

/** A rule of two operands that broadcast. */
const binary =
  (forA: Write, forB: Write): VjpRule =>
  (context) => {
    const [g] = context.cotangents;
    if (g === undefined) return [];
    const [a, b] = context.inputs;
    const [y] = context.outputs;
    return [
      context.needs(0) ? context.unbroadcast(forA(context, g, a, b, y), a) : undefined,
      context.needs(1) ? context.unbroadcast(forB(context, g, a, b, y), b) : undefined,
    ];
  };

const passed: Write = (_, g) => g;
const negated: Write = (context, g) => context.emit('Neg', [g]);
const mul = (context: RuleContext, a: string, b: string): string => context.emit('Mul', [a, b]);
const div = (context: RuleContext, a: string, b: string): string => context.emit('Div', [a, b]);

/** x^c: g c x^(c-1), written without a power where c is small and whole. */
const powerBase: Write = (context, g, x, exponent, y) => {
  const constant = context.constantFloats(exponent);
  if (constant?.length === 1) {
    const [c] = constant;
    if (c === 1) return g;
    if (c === 2) return mul(context, mul(context, g, context.scalar(2)), x);
    if (c === 3) return mul(context, mul(context, g, context.scalar(3)), mul(context, x, x));
    if (c === 0.5) return div(context, mul(context, g, context.scalar(0.5)), y);
    const lowered = context.emit('Pow', [x, context.scalar(c - 1)]);
    return mul(context, mul(context, g, context.scalar(c)), lowered);
  }
  // An exponent of zero has derivative zero everywhere, also where x^(-1) is infinite.
  const c = context.emit('CastLike', [exponent, x]);
  const lowered = context.emit('Pow', [x, context.emit('Sub', [c, context.scalar(1)])]);
  const zero = context.scalar(0);
  const slope = context.emit('Where', [context.emit('Equal', [c, zero]), zero, mul(context, c, lowered)]);
  return mul(context, g, slope);
};

/** d/dc x^c = x^c ln x; 0 where x is 0, as x^c is there for c > 0. */
const powerExponent: Write = (context, g, x, _, y) => {
  const zero = context.scalar(0);
  const isZero = context.emit('Equal', [x, zero]);
  const logarithm = context.emit('Log', [context.emit('Where', [isZero, context.scalar(1), x])]);
  return mul(context, g, mul(context, y, logarithm));
};

/** Variadic extremes: the cotangent goes to the winners, shared equally among ties. */
const extreme: VjpRule = (context) => {
  const [g] = context.cotangents;
  if (g === undefined) return [];
  const [y] = context.outputs;
  const masks = context.inputs.map((x) => context.emit('CastLike', [context.emit('Equal', [x, y]), g]));
  const ties = masks.length === 1 ? masks[0] : context.emit('Sum', masks);
  return context.inputs.map((x, place) =>
    context.needs(place) ? context.unbroadcast(mul(context, g, div(context, masks[place], ties)), x) : undefined,
  );
};

const sum: VjpRule = (context) => {
  const [g] = context.cotangents;
  return g === undefined
    ? []
    : context.inputs.map((x, place) => (context.needs(place) ? context.unbroadcast(g, x) : undefined));
};

const mean: VjpRule = (context) => {
  const [g] = context.cotangents;
  if (g === undefined) return [];
  const share = mul(context, g, context.scalar(1 / context.inputs.length));
  return context.inputs.map((x, place) => (context.needs(place) ? context.unbroadcast(share, x) : undefined));
};

const where: VjpRule = (context) => {
  const [g] = context.cotangents;
  if (g === undefined) return [];
  const [condition, a, b] = context.inputs;
  const zero = context.scalar(0);
  return [
    undefined,
    context.needs(1) ? context.unbroadcast(context.emit('Where', [condition, g, zero]), a) : undefined,
    context.needs(2) ? context.unbroadcast(context.emit('Where', [condition, zero, g]), b) : undefined,
  ];
};

/** 1 inside [lo, hi], 0 outside; bounds get what is clipped to them. */
const clip: VjpRule = (context) => {
  const [g] = context.cotangents;
  if (g === undefined) return [];
  const [x, low, high] = context.inputs;
  const zero = context.scalar(0);
  const isBelow = low ? context.emit('Less', [x, low]) : undefined;
  const isAbove = high ? context.emit('Greater', [x, high]) : undefined;
  const masks = [isBelow, isAbove].filter((mask) => mask !== undefined);
  const outside = masks.length === 2 ? context.emit('Or', masks) : masks[0];
  const total = (mask: string | undefined): string | undefined =>
    mask && context.emit('ReduceSum', [context.emit('Where', [mask, g, zero])], { keepdims: { int: 0 } });
  return [
    outside === undefined ? g : context.emit('Where', [outside, zero, g]),
    context.needs(1) ? total(isBelow) : undefined,
    context.needs(2) ? total(isAbove) : undefined,
  ];
};

/** x - floor(x / y) y for floats, or the truncated remainder: dx = g, dy = -g times the quotient. */
const remainder: VjpRule = binary(passed, (context, g, a, b, y) => {
  const quotient = div(context, context.emit('Sub', [a, y]), b);
  return context.emit('Neg', [mul(context, g, context.emit('Round', [quotient]))]);
});

const zeroDerivative: VjpRule = () => [];

const twoOverRootPi = 2 / Math.sqrt(Math.PI);
const square = (context: RuleContext, x: string): string => mul(context, x, x);
const oneMinus = (context: RuleContext, x: string): string => context.emit('Sub', [context.scalar(1), x]);
const onePlus = (context: RuleContext, x: string): string => context.emit('Add', [x, context.scalar(1)]);
const root = (context: RuleContext, x: string): string => context.emit('Sqrt', [x]);

export const ELEMENTWISE_RULES: RuleTable = {
  ...ACTIVATION_RULES,
  Add: binary(passed, passed),
  Sub: binary(passed, negated),
  Mul: binary(
    (context, g, _, b) => mul(context, g, b),
    (context, g, a) => mul(context, g, a),
  ),
  Div: binary(
    (context, g, _, b) => div(context, g, b),
    (context, g, _, b, y) => context.emit('Neg', [mul(context, div(context, g, b), y)]),
  ),
  Mod: remainder,
  Pow: binary(powerBase, powerExponent),
  Sum: sum,
  Mean: mean,
  Max: extreme,
  Min: extreme,
  Where: where,
  Clip: clip,
  Neg: unary((context, g) => context.emit('Neg', [g])),
  Identity: unary((_, g) => g),
  Cast: unary((context, g, x) => context.emit('CastLike', [g, x])),
  CastLike: unary((context, g, x) => context.emit('CastLike', [g, x])),
  Sqrt: unary((context, g, _, y) => div(context, mul(context, g, context.scalar(0.5)), y)),
  Exp: unary((context, g, _, y) => mul(context, g, y)),
  Log: unary((context, g, x) => div(context, g, x)),
  Reciprocal: unary((context, g, _, y) => context.emit('Neg', [mul(context, g, square(context, y))])),
  Abs: unary((context, g, x) => mul(context, g, context.emit('Sign', [x]))),
  Sign: zeroDerivative,
  Sin: unary((context, g, x) => mul(context, g, context.emit('Cos', [x]))),
  Cos: unary((context, g, x) => context.emit('Neg', [mul(context, g, context.emit('Sin', [x]))])),
  Tan: unary((context, g, _, y) => mul(context, g, onePlus(context, square(context, y)))),
  Asin: unary((context, g, x) => div(context, g, root(context, oneMinus(context, square(context, x))))),
  Acos: unary((context, g, x) =>
    context.emit('Neg', [div(context, g, root(context, oneMinus(context, square(context, x))))]),
  ),
  Atan: unary((context, g, x) => div(context, g, onePlus(context, square(context, x)))),
  Sinh: unary((context, g, x) => mul(context, g, context.emit('Cosh', [x]))),
  Cosh: unary((context, g, x) => mul(context, g, context.emit('Sinh', [x]))),
  Asinh: unary((context, g, x) => div(context, g, root(context, onePlus(context, square(context, x))))),
  Acosh: unary((context, g, x) =>
    div(context, g, root(context, context.emit('Sub', [square(context, x), context.scalar(1)]))),
  ),
  Atanh: unary((context, g, x) => div(context, g, oneMinus(context, square(context, x)))),
  Erf: unary((context, g, x) => {
    const density = context.emit('Exp', [context.emit('Neg', [square(context, x)])]);
    return mul(context, g, mul(context, density, context.scalar(twoOverRootPi)));
  }),
};
