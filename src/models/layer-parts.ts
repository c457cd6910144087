import type { Activation, NormDescription, RopeDescription } from './description.js';
import type { GraphComposer } from './graph.js';

/** Values a layer graph can give beside the residual stream. */
export type LayerTap =
  | 'attention_probabilities'
  | 'queries'
  | 'keys'
  | 'values'
  | 'attention_output'
  | 'mlp_input'
  | 'router_logits';

export const LAYER_TAPS: readonly LayerTap[] = [
  'attention_probabilities',
  'queries',
  'keys',
  'values',
  'attention_output',
  'mlp_input',
  'router_logits',
];

/** Everything that the parts of a layer need to know. */
export interface LayerContext {
  readonly g: GraphComposer;
  readonly hiddenSize: number;
  readonly norm: NormDescription;
  /** Linear weights are [out, in]. */
  readonly transposed: boolean;
  readonly taps: ReadonlySet<LayerTap>;
  readonly plain: boolean;
  readonly ropes: readonly RopeDescription[];
  /** Value [B, S], int64. */
  readonly batchLength: string;
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

/** x W^T + b with x [n, inWidth]. The weight is named `<name>`, the bias `<name>_bias`. */
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
  return g.node('Gemm', inputs, { attributes: { transB: { int: transposed ? 1 : 0 } } });
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

/** The Gelu operator has no double kernel: f64 graphs spell it out. */
function gelu(g: GraphComposer, value: string, tanh: boolean): string {
  if (g.float === 'f32') {
    return g.node('Gelu', [value], { attributes: { approximate: tanh ? 'tanh' : 'none' } });
  }
  const half = g.node('Mul', [value, g.scalar(0.5)]);
  if (!tanh) {
    const erf = g.node('Erf', [g.node('Mul', [value, g.scalar(Math.SQRT1_2)])]);
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
