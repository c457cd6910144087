import type { AttentionDescription } from './description.js';
import type { GraphComposer, NodeOptions } from './graph.js';

/**
 * Whether a layer takes the operator Attention: for f64, for attention probabilities, and for head sizes that
 * GroupQueryAttention refuses.
 */
export function takesPlainAttention(
  a: AttentionDescription,
  precision: 'f32' | 'f64',
  taps: { has(tap: 'attention_probabilities'): boolean },
): boolean {
  return precision === 'f64' || taps.has('attention_probabilities') || a.headDim % 8 !== 0;
}

/** Name of the mask input that a layer with this window reads on the plain path. */
export function maskName(window: number | undefined): string {
  return `mask.${window ?? 'all'}`;
}

/**
 * Rotary embedding of the first `dims` dimensions of each head of [B, S, heads * headDim], in the half-rotation layout
 * (Hugging Face's rotate_half), with `rope.<index>.cos` and `.sin` [B, S, dims/2] gathered by the host.
 */
export function rotate(
  g: GraphComposer,
  value: string,
  heads: number,
  headDim: number,
  rope: number,
  dims: number,
): string {
  const cos = g.input(`rope.${rope}.cos`, g.float, ['batch', 'length', dims / 2]);
  const sin = g.input(`rope.${rope}.sin`, g.float, ['batch', 'length', dims / 2]);
  if (g.float === 'f64') return rotateComposed(g, value, heads, headDim, dims, cos, sin);
  return g.node('RotaryEmbedding', [value, cos, sin], {
    attributes: { num_heads: { int: heads }, ...(dims < headDim && { rotary_embedding_dim: { int: dims } }) },
  });
}

/** The operator has no double kernel: f64 graphs spell it out. */
function rotateComposed(
  g: GraphComposer,
  value: string,
  heads: number,
  headDim: number,
  dims: number,
  cos: string,
  sin: string,
): string {
  const byHead = g.node('Reshape', [value, g.integers([0, 0, heads, headDim])]);
  const part = (from: number, to: number): string =>
    g.node('Slice', [byHead, g.integers([from]), g.integers([to]), g.integers([-1])]);
  const first = part(0, dims / 2);
  const second = part(dims / 2, dims);
  const c = g.node('Unsqueeze', [cos, g.integers([2])]);
  const s = g.node('Unsqueeze', [sin, g.integers([2])]);
  const rotatedFirst = g.node('Sub', [g.node('Mul', [first, c]), g.node('Mul', [second, s])]);
  const rotatedSecond = g.node('Add', [g.node('Mul', [second, c]), g.node('Mul', [first, s])]);
  const parts = [rotatedFirst, rotatedSecond];
  if (dims < headDim) parts.push(part(dims, headDim));
  const joined = g.node('Concat', parts, { attributes: { axis: { int: -1 } } });
  return g.node('Reshape', [joined, g.integers([0, 0, heads * headDim])]);
}

/** GroupQueryAttention over a buffer that past and present share; q [B, S, heads*dim], k and v [B, S, kv*dim]. */
export function groupedAttention(
  g: GraphComposer,
  a: AttentionDescription,
  prefix: string,
  q: string,
  k: string,
  v: string,
): string {
  const cache = ['batch', a.kvHeads, 'capacity', a.headDim];
  const inputs = [
    q,
    k,
    v,
    g.input(`${prefix}past_k`, g.float, cache),
    g.input(`${prefix}past_v`, g.float, cache),
    g.input('last_key', 'i32', ['batch']),
    g.input('total', 'i32', [1]),
  ];
  const mixed = `${prefix}mixed`;
  const attributes: NonNullable<NodeOptions['attributes']> = {
    num_heads: { int: a.heads },
    kv_num_heads: { int: a.kvHeads },
    scale: a.scale,
    ...(a.softcap !== undefined && { softcap: a.softcap }),
    ...(a.window !== undefined && { local_window_size: { int: a.window } }),
  };
  g.node('GroupQueryAttention', inputs, {
    domain: 'com.microsoft',
    attributes,
    outputs: [mixed, `${prefix}present_k`, `${prefix}present_v`],
  });
  g.output(`${prefix}present_k`, g.float, cache);
  g.output(`${prefix}present_v`, g.float, cache);
  return mixed;
}

/** Attention of opset 23 with an explicit mask; publishes `<prefix>attention_probabilities` [B, heads, S, T]. */
export function plainAttention(
  g: GraphComposer,
  a: AttentionDescription,
  prefix: string,
  q: string,
  k: string,
  v: string,
  probabilities: boolean,
): string {
  const past = ['batch', a.kvHeads, 'past', a.headDim];
  // The attribute is a float whose root multiplies q and k: in double precision the scores would carry its rounding.
  const exact = g.float === 'f64';
  const inputs = [
    exact ? g.node('Mul', [q, g.scalar(a.scale)]) : q,
    k,
    v,
    g.input(maskName(a.window), 'bool', ['length', 'total']),
    g.input(`${prefix}past_k`, g.float, past),
    g.input(`${prefix}past_v`, g.float, past),
  ];
  const mixed = `${prefix}mixed`;
  const outputs = [mixed, `${prefix}present_k`, `${prefix}present_v`];
  if (probabilities) outputs.push(`${prefix}attention_probabilities`);
  g.node('Attention', inputs, {
    attributes: {
      q_num_heads: { int: a.heads },
      kv_num_heads: { int: a.kvHeads },
      is_causal: { int: 0 },
      scale: exact ? 1 : a.scale,
      ...(a.softcap !== undefined && { softcap: a.softcap }),
      ...(probabilities && { qk_matmul_output_mode: { int: 3 } }),
    },
    outputs,
  });
  g.output(`${prefix}present_k`, g.float, ['batch', a.kvHeads, 'total', a.headDim]);
  g.output(`${prefix}present_v`, g.float, ['batch', a.kvHeads, 'total', a.headDim]);
  // A declared shape makes the runtime's shape inference, which expects no past, warn at every run.
  if (probabilities) g.output(`${prefix}attention_probabilities`, g.float);
  return mixed;
}
