import { normalCdf } from '../linalg/special-functions.js';

/** Activations in the order of their numbers in the addon. */
export const INNER_ACTIVATIONS = ['silu', 'relu', 'relu2', 'gelu', 'gelu_tanh'] as const;
export type InnerActivation = (typeof INNER_ACTIVATIONS)[number];

const SQRT_8_OVER_PI = Math.sqrt(8 / Math.PI);

/** Each activation at one point, in double precision. x / (1 + e^-t) is x (1 + tanh(t / 2)) / 2. */
const AT: Readonly<Record<InnerActivation, (x: number) => number>> = {
  silu: (x) => x / (1 + Math.exp(-x)),
  relu: (x) => Math.max(x, 0),
  relu2: (x) => Math.max(x, 0) ** 2,
  gelu: (x) => x * normalCdf(x),
  gelu_tanh: (x) => x / (1 + Math.exp(-SQRT_8_OVER_PI * (x + 0.044715 * x ** 3))),
};

/** inner[i] = act(gate[i]) * inner[i], or act(inner[i]) without a gate; in place. */
export function activateInnerReference(
  activation: InnerActivation,
  inner: Float32Array | Float64Array,
  gate?: Float32Array | Float64Array,
): void {
  const act = AT[activation];
  if (gate === undefined) for (let i = 0; i < inner.length; i++) inner[i] = act(inner[i]);
  else for (let i = 0; i < inner.length; i++) inner[i] *= act(gate[i]);
}
