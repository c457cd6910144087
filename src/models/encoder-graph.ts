import type { EncoderDescription, EncoderRole } from './encoder-description.js';
import { composeGraph, type GraphComposer } from './graph.js';
import { activate } from './layer-parts.js';

export const ENCODER_ROLES: readonly EncoderRole[] = [
  'q',
  'k',
  'v',
  'o',
  'attention_norm',
  'up',
  'down',
  'output_norm',
];

/** Shape of the weight of a role, [out, in] for linear maps. */
export function roleShape(role: EncoderRole, { hiddenSize, feedForwardSize }: EncoderDescription): number[] {
  switch (role) {
    case 'up':
      return [feedForwardSize, hiddenSize];
    case 'down':
      return [hiddenSize, feedForwardSize];
    case 'attention_norm':
    case 'output_norm':
      return [hiddenSize];
    default:
      return [hiddenSize, hiddenSize];
  }
}

/**
 * One block: `x1 = LN(x + attention(x))`, `x2 = LN(x1 + down(act(up(x1))))`, on `[batch * length, hidden]`. Reads weights as
 * inputs by role, and `relative` `[1, heads, length, length]` where pairs of positions have a bias.
 * @param split int64 `[batch, length, heads, headDim]`
 */
export function encoderBlock(g: GraphComposer, model: EncoderDescription, x: string, split: string): string {
  const { hiddenSize, heads, normEpsilon } = model;
  const headDim = hiddenSize / heads;
  const linear = (value: string, role: EncoderRole): string => {
    const [out, inward] = roleShape(role, model);
    const inputs = [value, g.input(role, g.float, [out, inward]), g.input(`${role}_bias`, g.float, [out])];
    return g.node('Gemm', inputs, { attributes: { transB: { int: 1 } } });
  };
  const norm = (value: string, role: EncoderRole): string => {
    const inputs = [value, g.input(role, g.float, [hiddenSize]), g.input(`${role}_bias`, g.float, [hiddenSize])];
    return g.node('LayerNormalization', inputs, { attributes: { axis: { int: -1 }, epsilon: normEpsilon } });
  };
  const byHead = (value: string, perm: readonly number[]): string =>
    g.node('Transpose', [g.node('Reshape', [value, split])], { attributes: { perm: { ints: perm } } });
  const q = g.node('Mul', [byHead(linear(x, 'q'), [0, 2, 1, 3]), g.scalar(1 / Math.sqrt(headDim))]);
  const k = byHead(linear(x, 'k'), [0, 2, 3, 1]);
  const v = byHead(linear(x, 'v'), [0, 2, 1, 3]);
  let scores = g.node('MatMul', [q, k]);
  if (model.relativeBuckets > 0) scores = g.node('Add', [scores, g.input('relative', g.float, [1, heads, 'q', 'k'])]);
  const mixed = g.node('MatMul', [g.node('Softmax', [scores], { attributes: { axis: { int: -1 } } }), v]);
  const joined = g.node('Transpose', [mixed], { attributes: { perm: { ints: [0, 2, 1, 3] } } });
  const context = g.node('Reshape', [joined, g.integers([-1, hiddenSize])]);
  const attended = norm(g.node('Add', [x, linear(context, 'o')]), 'attention_norm');
  const fed = linear(activate(g, model.activation, linear(attended, 'up')), 'down');
  return norm(g.node('Add', [attended, fed]), 'output_norm');
}

/** The block as a graph of its own: `x`, `split` and weights to `y`. */
export function composeBlock(model: EncoderDescription, float: 'f32' | 'f64'): Uint8Array {
  const g = composeGraph('encoder_block', float);
  const x = g.input('x', float, ['rows', model.hiddenSize]);
  g.publish(encoderBlock(g, model, x, g.input('split', 'i64', [4])), 'y', ['rows', model.hiddenSize]);
  return g.encode();
}

/** The norm after the sum of the embeddings, which reads `weight` and `bias`. */
export function embeddingNorm(g: GraphComposer, { hiddenSize, normEpsilon }: EncoderDescription, x: string): string {
  const inputs = [x, ...['weight', 'bias'].map((name) => g.input(name, g.float, [hiddenSize]))];
  return g.node('LayerNormalization', inputs, { attributes: { axis: { int: -1 }, epsilon: normEpsilon } });
}

/** The normalisation behind the embeddings as a model of its own. */
export function composeEmbeddingNorm(model: EncoderDescription, float: 'f32' | 'f64'): Uint8Array {
  const g = composeGraph('embedding_norm', float);
  const x = g.input('x', float, ['rows', model.hiddenSize]);
  g.publish(embeddingNorm(g, model, x), 'y', ['rows', model.hiddenSize]);
  return g.encode();
}
