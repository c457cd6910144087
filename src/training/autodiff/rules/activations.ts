import type { RuleContext, RuleTable, VjpRule } from '../types.js';

type Slope = (context: RuleContext, x: string, y: string) => string;

/** A rule from the slope of the activation. */
const activation =
  (slope: Slope): VjpRule =>
  (context) => {
    const [g] = context.cotangents;
    if (g === undefined) return [];
    return [context.emit('Mul', [g, slope(context, context.inputs[0], context.outputs[0])])];
  };

const add = (context: RuleContext, a: string, b: string): string => context.emit('Add', [a, b]);
const sub = (context: RuleContext, a: string, b: string): string => context.emit('Sub', [a, b]);
const mul = (context: RuleContext, a: string, b: string): string => context.emit('Mul', [a, b]);
const positive = (context: RuleContext, x: string): string => context.emit('Greater', [x, context.scalar(0)]);
const oneMinus = (context: RuleContext, x: string): string => sub(context, context.scalar(1), x);

/** g where x > 0, `otherwise` times g elsewhere. */
const piecewise = (context: RuleContext, x: string, otherwise: string): string =>
  context.emit('Where', [positive(context, x), context.scalar(1), otherwise]);

/** Relu reads its result, which is saved for its reader anyway. */
const relu: VjpRule = (context) => {
  const [g] = context.cotangents;
  if (g === undefined) return [];
  return [context.emit('Where', [positive(context, context.outputs[0]), g, context.scalar(0)])];
};

/** s(ax) (1 + ax (1 - s(ax))), the slope of x s(ax). */
const swishSlope = (context: RuleContext, x: string, alpha: number): string => {
  const scaled = alpha === 1 ? x : mul(context, x, context.scalar(alpha));
  const gate = context.emit('Sigmoid', [scaled]);
  const inner = add(context, mul(context, scaled, oneMinus(context, gate)), context.scalar(1));
  return mul(context, gate, inner);
};

const ROOT_HALF = Math.SQRT1_2;
const DENSITY_AT_ZERO = 1 / Math.sqrt(2 * Math.PI);

/** Phi(x) + x phi(x). */
const geluSlope = (context: RuleContext, x: string): string => {
  const erf = context.emit('Erf', [mul(context, x, context.scalar(ROOT_HALF))]);
  const distribution = mul(context, add(context, erf, context.scalar(1)), context.scalar(0.5));
  const exponent = mul(context, mul(context, x, x), context.scalar(-0.5));
  const density = mul(context, context.emit('Exp', [exponent]), context.scalar(DENSITY_AT_ZERO));
  return add(context, distribution, mul(context, x, density));
};

/** (1 + t)/2 + x/2 (1 - t^2) k (1 + 0.134145 x^2), t = tanh(k (x + 0.044715 x^3)), k = sqrt(2/pi). */
const geluTanhSlope = (context: RuleContext, x: string): string => {
  const k = Math.sqrt(2 / Math.PI);
  const square = mul(context, x, x);
  const cubic = add(context, mul(context, square, context.scalar(0.044715 * k)), context.scalar(k));
  const tanh = context.emit('Tanh', [mul(context, x, cubic)]);
  const first = mul(context, add(context, tanh, context.scalar(1)), context.scalar(0.5));
  const inner = add(context, mul(context, square, context.scalar(3 * 0.044715 * k * 0.5)), context.scalar(0.5 * k));
  const second = mul(context, mul(context, x, oneMinus(context, mul(context, tanh, tanh))), inner);
  return add(context, first, second);
};

const prelu: VjpRule = (context) => {
  const [g] = context.cotangents;
  if (g === undefined) return [];
  const [x, slope] = context.inputs;
  const isPositive = positive(context, x);
  const zero = context.scalar(0);
  return [
    context.needs(0) ? context.emit('Where', [isPositive, g, mul(context, g, slope)]) : undefined,
    context.needs(1)
      ? context.unbroadcast(context.emit('Where', [isPositive, zero, mul(context, g, x)]), slope)
      : undefined,
  ];
};

/** Slope of a ramp that is clipped to [0, 1]: alpha strictly inside. */
const hardSigmoidSlope = (context: RuleContext, y: string, alpha: number): string => {
  const inside = context.emit('And', [positive(context, y), context.emit('Less', [y, context.scalar(1)])]);
  return context.emit('Where', [inside, context.scalar(alpha), context.scalar(0)]);
};

export const ACTIVATION_RULES: RuleTable = {
  Relu: relu,
  LeakyRelu: activation((context, x) => piecewise(context, x, context.scalar(context.floatAttribute('alpha', 0.01)))),
  PRelu: prelu,
  ThresholdedRelu: activation((context, x) => {
    const above = context.emit('Greater', [x, context.scalar(context.floatAttribute('alpha', 1))]);
    return context.emit('Where', [above, context.scalar(1), context.scalar(0)]);
  }),
  // Below zero y = alpha (e^x - 1), whose slope is y + alpha.
  Elu: activation((context, x, y) =>
    piecewise(context, x, add(context, y, context.scalar(context.floatAttribute('alpha', 1)))),
  ),
  Celu: activation((context, x) => {
    const scaled = context.emit('Div', [x, context.scalar(context.floatAttribute('alpha', 1))]);
    return context.emit('Exp', [context.emit('Min', [scaled, context.scalar(0)])]);
  }),
  Selu: activation((context, x, y) => {
    const alpha = context.floatAttribute('alpha', 1.6732632423543772);
    const gamma = context.floatAttribute('gamma', 1.0507009873554805);
    const below = add(context, y, context.scalar(alpha * gamma));
    return context.emit('Where', [positive(context, x), context.scalar(gamma), below]);
  }),
  Tanh: activation((context, _, y) => oneMinus(context, mul(context, y, y))),
  Sigmoid: activation((context, _, y) => mul(context, y, oneMinus(context, y))),
  HardSigmoid: activation((context, _, y) => hardSigmoidSlope(context, y, context.floatAttribute('alpha', 0.2))),
  HardSwish: activation((context, x) => {
    // x clip(x/6 + 1/2, 0, 1): slope x/3 + 1/2 inside (-3, 3), the gate itself outside.
    const three = context.scalar(3);
    const inside = context.emit('Less', [context.emit('Abs', [x]), three]);
    const ramp = add(context, context.emit('Div', [x, three]), context.scalar(0.5));
    return context.emit('Where', [inside, ramp, piecewise(context, x, context.scalar(0))]);
  }),
  Softplus: activation((context, x) => context.emit('Sigmoid', [x])),
  Softsign: activation((context, _, y) => {
    const rest = oneMinus(context, context.emit('Abs', [y]));
    return mul(context, rest, rest);
  }),
  Mish: activation((context, x) => {
    const tanh = context.emit('Tanh', [context.emit('Softplus', [x])]);
    const gate = context.emit('Sigmoid', [x]);
    return add(context, tanh, mul(context, mul(context, x, gate), oneMinus(context, mul(context, tanh, tanh))));
  }),
  Swish: activation((context, x) => swishSlope(context, x, context.floatAttribute('alpha', 1))),
  'com.microsoft::QuickGelu': activation((context, x) =>
    swishSlope(context, x, context.floatAttribute('alpha', 1.702)),
  ),
  Gelu: activation((context, x) =>
    context.stringAttribute('approximate', 'none') === 'tanh' ? geluTanhSlope(context, x) : geluSlope(context, x),
  ),
  'com.microsoft::Gelu': activation((context, x) => geluSlope(context, x)),
};
