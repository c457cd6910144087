import { normalCdf } from '../linalg/special-functions.js';
import type { Activation } from '../models/description.js';
import type { Floats } from '../models/layer-runner.js';

const SQRT_2_OVER_PI = Math.sqrt(2 / Math.PI);

/** Each activation at one point, in double precision, as the layers of a model compute it. */
export const ACTIVATIONS: Readonly<Record<Activation, (x: number) => number>> = {
  silu: (x) => x / (1 + Math.exp(-x)),
  relu: (x) => Math.max(x, 0),
  relu2: (x) => Math.max(x, 0) ** 2,
  gelu: (x) => x * normalCdf(x),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x ** 3))),
};

/** inner[i] = act(gate[i]) * inner[i] of a gated expert, act(inner[i]) without a gate; in place. @returns inner */
export function activateInner<T extends Floats>(activation: Activation, inner: T, gate?: Floats): T {
  const act = ACTIVATIONS[activation];
  if (gate === undefined) for (let i = 0; i < inner.length; i++) inner[i] = act(inner[i]);
  else for (let i = 0; i < inner.length; i++) inner[i] *= act(gate[i]);
  return inner;
}
