import type { Decomposition, DecompositionContext } from '../types.js';

type Write = (context: DecompositionContext, x: string) => string;

/** Operators that the runtime computes in single precision only, written in operators that it computes in double too. */
const inDouble =
  (write: Write): Decomposition =>
  (context) => {
    if (context.precision === 'f32') return false;
    context.define(0, write(context, context.inputs[0]));
    return true;
  };

const add = (context: DecompositionContext, a: string, b: string): string => context.emit('Add', [a, b]);
const sub = (context: DecompositionContext, a: string, b: string): string => context.emit('Sub', [a, b]);
const mul = (context: DecompositionContext, a: string, b: string): string => context.emit('Mul', [a, b]);
const div = (context: DecompositionContext, a: string, b: string): string => context.emit('Div', [a, b]);
const exp = (context: DecompositionContext, x: string): string => context.emit('Exp', [x]);
const negative = (context: DecompositionContext, x: string): string => context.emit('Neg', [x]);
const number = (context: DecompositionContext, name: string, fallback: number): string =>
  context.scalar(context.floatAttribute(name, fallback));

/** x above a bound, something else elsewhere. */
const above = (context: DecompositionContext, x: string, bound: string, otherwise: string): string =>
  context.emit('Where', [context.emit('Greater', [x, bound]), x, otherwise]);

/** e^x - 1 below 0: no overflow where the result is not used, and the whole derivative at 0 itself. */
const exponentialBelow = (context: DecompositionContext, x: string): string => {
  const zero = context.scalar(0);
  const below = context.emit('Where', [context.emit('Greater', [x, zero]), zero, x]);
  return sub(context, exp(context, below), context.scalar(1));
};

/** max(x, 0) + ln(1 + e^-|x|); at 0 the maximum gives half of its derivative, which is that of softplus. */
const softplus: Write = (context, x) => {
  const small = exp(context, negative(context, context.emit('Abs', [x])));
  return add(
    context,
    context.emit('Max', [x, context.scalar(0)]),
    context.emit('Log', [add(context, small, context.scalar(1))]),
  );
};

const ramp = (context: DecompositionContext, x: string, slope: string, offset: string): string => {
  const line = add(context, mul(context, x, slope), offset);
  return context.emit('Min', [context.emit('Max', [line, context.scalar(0)]), context.scalar(1)]);
};

const halfSumOfExponentials = (context: DecompositionContext, x: string, combine: typeof add): string =>
  mul(context, combine(context, exp(context, x), exp(context, negative(context, x))), context.scalar(0.5));

/** ln(x + sqrt(x^2 + shift)). */
const areaFunction = (context: DecompositionContext, x: string, shift: number): string =>
  context.emit('Log', [
    add(context, x, context.emit('Sqrt', [add(context, mul(context, x, x), context.scalar(shift))])),
  ]);

export const DOUBLE_DECOMPOSITIONS: Readonly<Record<string, Decomposition>> = {
  LeakyRelu: inDouble((context, x) =>
    above(context, x, context.scalar(0), mul(context, x, number(context, 'alpha', 0.01))),
  ),
  ThresholdedRelu: inDouble((context, x) => above(context, x, number(context, 'alpha', 1), context.scalar(0))),
  Elu: inDouble((context, x) =>
    above(context, x, context.scalar(0), mul(context, exponentialBelow(context, x), number(context, 'alpha', 1))),
  ),
  Celu: inDouble((context, x) => {
    const alpha = number(context, 'alpha', 1);
    const below = mul(context, exponentialBelow(context, div(context, x, alpha)), alpha);
    return above(context, x, context.scalar(0), below);
  }),
  Selu: inDouble((context, x) => {
    const below = mul(context, exponentialBelow(context, x), number(context, 'alpha', 1.6732632423543772));
    return mul(context, above(context, x, context.scalar(0), below), number(context, 'gamma', 1.0507009873554805));
  }),
  Softplus: inDouble(softplus),
  Softsign: inDouble((context, x) => div(context, x, add(context, context.emit('Abs', [x]), context.scalar(1)))),
  HardSigmoid: inDouble((context, x) => ramp(context, x, number(context, 'alpha', 0.2), number(context, 'beta', 0.5))),
  HardSwish: inDouble((context, x) => mul(context, x, ramp(context, x, context.scalar(1 / 6), context.scalar(0.5)))),
  Mish: inDouble((context, x) => mul(context, x, context.emit('Tanh', [softplus(context, x)]))),
  Sinh: inDouble((context, x) => halfSumOfExponentials(context, x, sub)),
  Cosh: inDouble((context, x) => halfSumOfExponentials(context, x, add)),
  Asinh: inDouble((context, x) => {
    // Of the size of x: no digits are lost where x is far below 0.
    const area = areaFunction(context, context.emit('Abs', [x]), 1);
    return mul(context, area, context.emit('Sign', [x]));
  }),
  Acosh: inDouble((context, x) => areaFunction(context, x, -1)),
  Atanh: inDouble((context, x) => {
    const one = context.scalar(1);
    const ratio = div(context, add(context, x, one), sub(context, one, x));
    return mul(context, context.emit('Log', [ratio]), context.scalar(0.5));
  }),
};
