import { InputError } from '../errors.js';
import { cubicSpline, evaluateSpline } from '../linalg/cubic-spline.js';
import { type JetFunction, parseActivation } from './activation-expression.js';
import type { InputDensity } from './input-density.js';

/** Activations by name, as expressions. */
export const NAMED_ACTIVATIONS: Readonly<Record<string, string>> = {
  relu: 'relu(x)',
  identity: 'x',
  sigmoid: 'sigmoid(x)',
  tanh: 'tanh(x)',
  softplus: 'softplus(x)',
  'leaky-relu': 'max(x, 0.01 * x)',
  elu: 'max(x, 0) + expm1(min(x, 0))',
  gelu: 'x * cdf(x)',
  silu: 'x * sigmoid(x)',
  mish: 'x * tanh(softplus(x))',
  atan: 'atan(x)',
  cdf: 'cdf(x)',
};

/** The activation of a name or an expression. @throws InputError when it is neither */
export function activationOf(text: string): JetFunction {
  const name = text.replaceAll('_', '-');
  return parseActivation(Object.hasOwn(NAMED_ACTIVATIONS, name) ? NAMED_ACTIVATIONS[name] : text);
}

/**
 * The cubic spline through a table of inputs and outputs.
 * @throws InputError when there are fewer than four rows or an input occurs twice
 */
export function tabulatedActivation(inputs: Float64Array, outputs: Float64Array, where: string): JetFunction {
  if (inputs.length < 4) throw new InputError(`${where}: a table of an activation needs four rows or more`);
  const order = Int32Array.from(inputs, (_, i) => i).sort((a, b) => inputs[a] - inputs[b]);
  const x = Float64Array.from(order, (i) => inputs[i]);
  const twice = x.findIndex((value, i) => i > 0 && value === x[i - 1]);
  if (twice > 0) throw new InputError(`${where}: the input ${x[twice]} occurs twice`);
  const spline = cubicSpline(
    x,
    Float64Array.from(order, (i) => outputs[i]),
  );
  return (u) => evaluateSpline(spline, u);
}

/** A stretch of inputs on which an activation increases, with its probability. */
export interface Branch {
  readonly low: number;
  readonly high: number;
  readonly mass: number;
}

/** Points at which the derivative is looked at. */
const SCAN = 16_000;
/** Deviations on each side of the mean that are looked at. */
const REACH = 40;
/** A branch with less probability says nothing about the activation. */
export const LEAST_MASS = 1e-3;

const rises = (activation: JetFunction, u: number, leastSlope: number): boolean => {
  const [value, slope] = activation(u);
  return slope > leastSlope && Number.isFinite(slope) && Number.isFinite(value);
};

/**
 * The likeliest stretch of inputs on which the activation increases: all of them for a sigmoid, x > 0 for ReLU, what lies
 * right of its dip for GELU.
 * @param leastSlope the branch ends where the derivative falls to this: near a dip the inverse has no finite slope
 * @throws InputError when the inputs fall on such a stretch with probability 0.001 or less
 */
export function likeliestBranch(activation: JetFunction, density: InputDensity, leastSlope = 0): Branch {
  const from = density.mean - REACH * density.deviation;
  const step = (2 * REACH * density.deviation) / SCAN;
  const at = (i: number): number => from + i * step;
  const edge = (inside: number, outside: number): number => {
    let [good, bad] = [inside, outside];
    while (Math.abs(bad - good) > 1e-15 * Math.max(1, Math.abs(good))) {
      const middle = (good + bad) / 2;
      if (middle === good || middle === bad) break;
      if (rises(activation, middle, leastSlope)) good = middle;
      else bad = middle;
    }
    return good;
  };
  let best: Branch = { low: from, high: from, mass: 0 };
  for (let i = 0; i <= SCAN; i++) {
    if (!rises(activation, at(i), leastSlope)) continue;
    const first = i;
    while (i < SCAN && rises(activation, at(i + 1), leastSlope)) i++;
    const low = first === 0 ? at(0) : edge(at(first), at(first - 1));
    const high = i === SCAN ? at(SCAN) : edge(at(i), at(i + 1));
    const mass = density.below(high) - density.below(low);
    if (mass > best.mass) best = { low, high, mass };
  }
  if (best.mass > LEAST_MASS) return best;
  throw new InputError(
    `the activation increases on no stretch that holds more than ${LEAST_MASS} of the inputs (the best holds ${best.mass.toPrecision(3)})`,
  );
}
