import type { Activation, NormDescription, RopeDescription } from './description.js';
import type { GraphComposer } from './graph.js';

/**
 * Values a layer graph can give beside the residual stream, flattened over windows and positions (rows = B * S).
 *
 * The inputs of the linears, each [rows, width]: `attention_input` (normed, of q, k and v), `attention_mixed` (heads side
 * by side, of o), `mlp_input` (normed, of gate, up, router and shared expert), `mlp_hidden` (of down, dense layers),
 * `shared_hidden` (of the shared expert's down).
 *
 * `mlp_preactivation` [rows, width] is what the activation of a dense layer reads.
 *
 * Of the routed experts, the rows of all experts one after the other, each exactly once (neither the twin that keeps a
 * lone row company nor experts that nobody chose appear): `expert_input` [routed, hidden] (of gate and up),
 * `expert_hidden` [routed, expert width] (of down), `expert_output` [routed, hidden] (before the router's weight), with
 * routed = rows * experts per token (fewer in a merged model, where an expert runs once for several that were chosen).
 * Which rows belong to which expert is in `TapEvent.experts`. `router_logits` is [rows, outputs of the router].
 *
 * All are the values of the model itself, before a simulated quantisation of activations.
 */
export type LayerTap =
  | 'attention_probabilities'
  | 'queries'
  | 'keys'
  | 'values'
  | 'attention_input'
  | 'attention_mixed'
  | 'attention_output'
  | 'mlp_input'
  | 'mlp_preactivation'
  | 'mlp_hidden'
  | 'shared_hidden'
  | 'router_logits'
  | 'expert_input'
  | 'expert_hidden'
  | 'expert_output';

/** Taps whose rows are those of the experts, one expert after the other. */
export const EXPERT_TAPS: readonly LayerTap[] = ['expert_input', 'expert_hidden', 'expert_output'];

/** Everything that the parts of a layer need to know. */
export interface LayerContext {
  readonly g: GraphComposer;
  readonly hiddenSize: number;
  readonly norm: NormDescription;
  /** Linear weights are [out, in]. */
  readonly transposed: boolean;
  readonly taps: ReadonlySet<LayerTap>;
  readonly ropes: readonly RopeDescription[];
  /** Value [B, S], int64. */
  readonly batchLength: string;
  /** [n, width] as the linears after it see it: the value itself, or what a simulated quantisation makes of it. */
  readonly quantize: (value: string, width: number) => string;
  /** Low-rank terms beside linears, by the name of the linear's weight. */
  readonly adapters?: ReadonlyMap<string, LinearAdapter>;
}

/** A linear gives x W^T + scale (x A^T) B^T with A [rank, in] and B [out, rank], whatever the layout of W. */
export interface LinearAdapter {
  readonly rank: number;
  readonly scale: number;
}

/** Names of the inputs of an adapter of linear `name`: A and B. */
export function adapterInputs(name: string): readonly [a: string, b: string] {
  return [`${name}.lora_a`, `${name}.lora_b`];
}

/** [B, S, width] -> [B * S, width]. */
export function flatten(g: GraphComposer, value: string, width: number): string {
  return g.node('Reshape', [value, g.integers([-1, width])]);
}

/** [B * S, width] -> [B, S, width]. */
export function unflatten(g: GraphComposer, value: string, batchLength: string): string {
  const shape = g.node('Concat', [batchLength, g.integers([-1])], { attributes: { axis: { int: 0 } } });
  return g.node('Reshape', [value, shape]);
}

/** Norm over the last axis with weight `<name>` (and `<name>_bias` for LayerNorm). */
export function normalize(g: GraphComposer, norm: NormDescription, value: string, name: string, width: number): string {
  const stored = g.input(name, g.float, [width]);
  const weight = norm.plusOne ? g.node('Add', [stored, g.scalar(1)]) : stored;
  const attributes = { axis: { int: -1 }, epsilon: norm.epsilon };
  if (norm.kind === 'rms') return g.node('RMSNormalization', [value, weight], { attributes });
  return g.node('LayerNormalization', [value, weight, g.input(`${name}_bias`, g.float, [width])], { attributes });
}

/** x W^T + b with x [n, inWidth], and its adapter's term. The weight is named `<name>`, the bias `<name>_bias`. */
export function linear(
  context: LayerContext,
  value: string,
  name: string,
  inWidth: number,
  outWidth: number,
  bias: boolean,
): string {
  const { g, transposed } = context;
  const weight = g.input(name, g.float, transposed ? [outWidth, inWidth] : [inWidth, outWidth]);
  const inputs = [value, weight];
  if (bias) inputs.push(g.input(`${name}_bias`, g.float, [outWidth]));
  const product = g.node('Gemm', inputs, { attributes: { transB: { int: transposed ? 1 : 0 } } });
  const adapter = context.adapters?.get(name);
  if (!adapter) return product;
  const { rank, scale } = adapter;
  const [a, b] = adapterInputs(name);
  const inner = g.node('Gemm', [value, g.input(a, g.float, [rank, inWidth])], { attributes: { transB: { int: 1 } } });
  const outer = g.node('Gemm', [inner, g.input(b, g.float, [outWidth, rank])], {
    attributes: { transB: { int: 1 }, alpha: scale },
  });
  return g.node('Add', [product, outer]);
}

export function activate(g: GraphComposer, activation: Activation, value: string): string {
  switch (activation) {
    case 'silu':
      return g.node('Mul', [value, g.node('Sigmoid', [value])]);
    case 'relu':
      return g.node('Relu', [value]);
    case 'relu2': {
      const positive = g.node('Relu', [value]);
      return g.node('Mul', [positive, positive]);
    }
    case 'gelu':
    case 'gelu_tanh':
      return gelu(g, value, activation === 'gelu_tanh');
  }
}

/** Chebyshev coefficients of log(erfc(x) / t) + x^2 in 4t - 2 with t = 2 / (2 + x), to the last bit of a double. */
const LOG_ERFC = [
  -1.3026537197817094, 0.6419697923564902, 0.019476473204185836, -0.009561514786808632, -0.0009465953444820369,
  0.00036683949785276145, 4.252332480690777e-5, -2.0278578112534242e-5, -1.6242900046470256e-6, 1.3036558355805232e-6,
  1.5626441722066142e-8, -8.523809591492654e-8, 6.5290544390988515e-9, 5.059343495551469e-9, -9.91364156493033e-10,
  -2.273651222931836e-10, 9.646791102015527e-11, 2.3940380830391146e-12, -6.886027526497553e-12, 8.944879273090725e-13,
  3.130921399342958e-13, -1.1270822361367252e-13, 3.810905255189232e-16, 7.106097613609237e-15, -1.5230282014571043e-15,
  -9.457494571291232e-17, 1.2102371892242787e-16, -2.816663087747175e-17,
];

/** The Erf operator has no double kernel: erf(x) = sign(x) (1 - erfc(|x|)), by Clenshaw's recurrence. */
function errorFunction(g: GraphComposer, value: string): string {
  const size = g.node('Abs', [value]);
  const t = g.node('Div', [g.scalar(2), g.node('Add', [size, g.scalar(2)])]);
  const y = g.node('Sub', [g.node('Mul', [t, g.scalar(4)]), g.scalar(2)]);
  let d = g.scalar(LOG_ERFC[LOG_ERFC.length - 1]);
  let dd = g.scalar(0);
  for (let k = LOG_ERFC.length - 2; k > 0; k--) {
    const next = g.node('Add', [g.node('Sub', [g.node('Mul', [y, d]), dd]), g.scalar(LOG_ERFC[k])]);
    dd = d;
    d = next;
  }
  const half = g.node('Mul', [g.scalar(0.5), g.node('Add', [g.scalar(LOG_ERFC[0]), g.node('Mul', [y, d])])]);
  const exponent = g.node('Sub', [g.node('Sub', [half, dd]), g.node('Mul', [size, size])]);
  const erfc = g.node('Mul', [t, g.node('Exp', [exponent])]);
  return g.node('Mul', [g.node('Sign', [value]), g.node('Sub', [g.scalar(1), erfc])]);
}

/** The Gelu operator has no double kernel: f64 graphs spell it out. */
function gelu(g: GraphComposer, value: string, tanh: boolean): string {
  if (g.float === 'f32') {
    return g.node('Gelu', [value], { attributes: { approximate: tanh ? 'tanh' : 'none' } });
  }
  const half = g.node('Mul', [value, g.scalar(0.5)]);
  if (!tanh) {
    const erf = errorFunction(g, g.node('Mul', [value, g.scalar(Math.SQRT1_2)]));
    return g.node('Mul', [half, g.node('Add', [erf, g.scalar(1)])]);
  }
  const cube = g.node('Mul', [g.node('Mul', [value, value]), value]);
  const inner = g.node('Add', [value, g.node('Mul', [cube, g.scalar(0.044715)])]);
  const bent = g.node('Tanh', [g.node('Mul', [inner, g.scalar(Math.sqrt(2 / Math.PI))])]);
  return g.node('Mul', [half, g.node('Add', [bent, g.scalar(1)])]);
}

/** Splits the last axis into parts of the given widths. */
export function split(g: GraphComposer, value: string, widths: readonly number[]): string[] {
  const outputs = widths.map((_, i) => `${value}_part${i}`);
  g.node('Split', [value, g.integers(widths)], { attributes: { axis: { int: -1 } }, outputs });
  return outputs;
}
