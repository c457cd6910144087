import { TensorProto_DataType as Type } from '../../../formats/onnx_pb.js';
import { counting, extents, floatType, joined } from '../rules/shape-arithmetic.js';
import type { Decomposition, DecompositionContext } from '../types.js';

const isGiven = (name: string | undefined): name is string => name !== undefined && name !== '';

/** Stands for minus infinity: a row in which everything is masked stays a number. */
const MASKED = -1e30;

/** [B, S, heads * D] as [B, heads, S, D]. */
function headsApart(g: DecompositionContext, x: string, heads: number): string {
  const apart = g.emit('Reshape', [x, g.integers([0, 0, heads, -1])]);
  return g.emit('Transpose', [apart], { perm: { ints: [0, 2, 1, 3] } });
}

/** Factor of the scores: 1 / sqrt(D) where the node names none. */
function scaleOf(g: DecompositionContext, queries: string): string {
  const own = g.floatAttribute('scale', 0);
  if (own !== 0) return g.scalar(own);
  const width = g.emit('Cast', [g.emit('Reshape', [extents(g, queries, [3]), g.integers([])])], { to: floatType(g) });
  return g.emit('Reciprocal', [g.emit('Sqrt', [width])]);
}

/** What is added to the scores [B, H, S, T]. */
function additiveMask(g: DecompositionContext, mask: string): string {
  if (g.elementType(mask) !== Type.BOOL) return mask;
  return g.emit('Where', [mask, g.scalar(0), g.scalar(MASKED)]);
}

/** Scores of keys that a query may not see become MASKED. */
function causal(g: DecompositionContext, scores: string, past: string | undefined): string {
  const [rows, columns] = [2, 3].map((axis) => counting(g, extents(g, scores, [axis])));
  const own = g.emit('Unsqueeze', [rows, g.integers([1])]);
  const places = past === undefined ? own : g.emit('Add', [own, extents(g, past, [2])]);
  return g.emit('Where', [g.emit('LessOrEqual', [columns, places]), scores, g.scalar(MASKED)]);
}

/** Keys behind the end of each sequence become MASKED. */
function withinLengths(g: DecompositionContext, scores: string, lengths: string): string {
  const columns = counting(g, extents(g, scores, [3]));
  const ends = g.emit('Reshape', [lengths, g.integers([-1, 1, 1, 1])]);
  return g.emit('Where', [g.emit('Less', [columns, ends]), scores, g.scalar(MASKED)]);
}

/**
 * Attention of operator sets 23 and 24. Queries of the heads that share keys are put behind one another, [B, kv heads,
 * group * S, D], so that keys and values are never repeated.
 */
const attention: Decomposition = (g) => {
  const [q, k, v, mask, pastKey, pastValue, lengths] = g.inputs;
  const rank = g.rank(q);
  if (rank === undefined) return false;
  const flat = rank === 3;
  const queryHeads = g.intAttribute('q_num_heads', 0);
  const keyHeads = g.intAttribute('kv_num_heads', 0);
  const queries = flat ? headsApart(g, q, queryHeads) : q;
  const own = flat ? [headsApart(g, k, keyHeads), headsApart(g, v, keyHeads)] : [k, v];
  const pasts = [pastKey, pastValue];
  const [keys, values] = own.map((tensor, i) =>
    isGiven(pasts[i]) ? g.emit('Concat', [pasts[i], tensor], { axis: { int: 2 } }) : tensor,
  );
  g.define(1, keys);
  g.define(2, values);

  const shape = (tensor: string, axes: readonly number[]): string => extents(g, tensor, axes);
  const rest = g.integers([-1]);
  const stacked = g.emit('Reshape', [queries, joined(g, [shape(keys, [0, 1]), rest, shape(queries, [3])])]);
  const turned = g.emit('Transpose', [keys], { perm: { ints: [0, 1, 3, 2] } });
  const scaled = g.emit('Mul', [stacked, scaleOf(g, queries)]);
  const products = g.emit('MatMul', [scaled, turned]);
  const plain = g.emit('Reshape', [products, joined(g, [shape(queries, [0, 1, 2]), shape(keys, [2])])]);

  const cap = g.floatAttribute('softcap', 0);
  const capped =
    cap === 0 ? plain : g.emit('Mul', [g.emit('Tanh', [g.emit('Div', [plain, g.scalar(cap)])]), g.scalar(cap)]);
  let scores = isGiven(mask) ? g.emit('Add', [capped, additiveMask(g, mask)]) : capped;
  if (g.intAttribute('is_causal', 0) !== 0) scores = causal(g, scores, isGiven(pastKey) ? pastKey : undefined);
  if (isGiven(lengths)) scores = withinLengths(g, scores, lengths);
  const weights = g.emit('Softmax', [scores], { axis: { int: -1 } });
  const shown = [plain, scores, capped, weights];
  g.define(3, shown[g.intAttribute('qk_matmul_output_mode', 0)] ?? weights);

  const grouped = g.emit('Reshape', [weights, joined(g, [shape(keys, [0, 1]), rest, shape(keys, [2])])]);
  const heads = g.emit('MatMul', [grouped, values]);
  const apart = g.emit('Reshape', [heads, joined(g, [shape(queries, [0, 1, 2]), rest])]);
  if (!flat) {
    g.define(0, apart);
    return true;
  }
  const together = g.emit('Transpose', [apart], { perm: { ints: [0, 2, 1, 3] } });
  g.define(0, g.emit('Reshape', [together, g.integers([0, 0, -1])]));
  return true;
};

/** Rotates pairs of the last axis: halves, or neighbours where `interleaved`. Tables are [..., width / 2]. */
function rotated(g: DecompositionContext, x: string, cos: string, sin: string, interleaved: boolean): string {
  const halves = (tensor: string): readonly string[] =>
    g.emitMany('Split', [tensor], 2, { axis: { int: -1 }, num_outputs: { int: 2 } });
  const last = g.integers([-1]);
  const [first, second] = interleaved
    ? halves(g.emit('Reshape', [x, g.integers([0, 0, 0, -1, 2])])).map((part) => g.emit('Squeeze', [part, last]))
    : halves(x);
  const product = (a: string, b: string): string => g.emit('Mul', [a, b]);
  const real = g.emit('Sub', [product(first, cos), product(second, sin)]);
  const imaginary = g.emit('Add', [product(first, sin), product(second, cos)]);
  if (!interleaved) return g.emit('Concat', [real, imaginary], { axis: { int: -1 } });
  const pairs = [real, imaginary].map((part) => g.emit('Unsqueeze', [part, last]));
  return g.emit('Reshape', [g.emit('Concat', pairs, { axis: { int: -1 } }), g.shapeOf(x)]);
}

interface RotaryInputs {
  readonly x: string;
  /** Rows of tables, or with positions tables to gather from. */
  readonly cos: string;
  readonly sin: string;
  readonly positions?: string;
  /** 2 for [B, S]; of one number where the sequence starts, 0 or 1. */
  readonly positionsRank?: number;
}

function rotary(g: DecompositionContext, { x, cos, sin, positions, positionsRank }: RotaryInputs): boolean {
  const heads = g.intAttribute('num_heads', 0);
  // Heads that lie side by side have to be counted.
  const rank = g.rank(x) ?? (heads === 0 ? 4 : undefined);
  if (rank === undefined) return false;
  // [B, S, heads, D] for inputs of rank 3; [B, heads, S, D] for those of rank 4.
  const apart = rank === 3 ? g.emit('Reshape', [x, g.integers([0, 0, heads, -1])]) : x;
  const position = rank === 3 ? 1 : 2;
  const tableOf = (table: string): string | undefined => {
    if (positions === undefined) return g.emit('Unsqueeze', [table, g.integers([rank === 3 ? 2 : 1])]);
    if (positionsRank === undefined) return undefined;
    if (positionsRank === 2) {
      const rows = g.emit('Gather', [table, positions], { axis: { int: 0 } });
      return g.emit('Unsqueeze', [rows, g.integers([rank === 3 ? 2 : 1])]);
    }
    const steps = g.emit('Add', [counting(g, extents(g, apart, [position])), positions]);
    const rows = g.emit('Gather', [table, steps], { axis: { int: 0 } });
    return rank === 3 ? g.emit('Unsqueeze', [rows, g.integers([1])]) : rows;
  };
  const [c, s] = [tableOf(cos), tableOf(sin)];
  if (c === undefined || s === undefined) return false;
  const interleaved = g.intAttribute('interleaved', 0) !== 0;
  const width = g.intAttribute('rotary_embedding_dim', 0);
  let turned: string;
  if (width === 0) turned = rotated(g, apart, c, s, interleaved);
  else {
    const cut = (from: number, to: number): string =>
      g.emit('Slice', [apart, ...[[from], [to], [3]].map((values) => g.integers(values))]);
    const parts = [rotated(g, cut(0, width), c, s, interleaved), cut(width, 2 ** 31 - 1)];
    turned = g.emit('Concat', parts, { axis: { int: 3 } });
  }
  g.define(0, rank === 3 ? g.emit('Reshape', [turned, g.shapeOf(x)]) : turned);
  return true;
}

const rotaryEmbedding: Decomposition = (g) => {
  const [x, cos, sin, positions] = g.inputs;
  return rotary(g, { x, cos, sin, ...(isGiven(positions) && { positions, positionsRank: 2 }) });
};

const contributedRotaryEmbedding: Decomposition = (g) => {
  const [x, positions, cos, sin] = g.inputs;
  return rotary(g, { x, cos, sin, positions, positionsRank: g.rank(positions) });
};

/** Attention and rotary embeddings. */
export const ATTENTION_DECOMPOSITIONS: Readonly<Record<string, Decomposition>> = {
  Attention: attention,
  RotaryEmbedding: rotaryEmbedding,
  'com.microsoft::RotaryEmbedding': contributedRotaryEmbedding,
};
