import type { AttentionDescription } from '../models/description.js';
import { composeGraph, type GraphComposer } from '../models/graph.js';
import type { ExtraParameter } from './decoder-weights.js';
import type { Precision } from './types.js';

/** What an extension of attention composes with. */
export interface ScoresContext {
  readonly g: GraphComposer;
  readonly attention: AttentionDescription;
  /** [B, heads, S, S], scaled and capped, not yet masked. */
  readonly scores: string;
  /** [S, S]: 0 where a query sees a key, a large negative number elsewhere. */
  readonly mask: string;
  /** Int64 [1]: S. */
  readonly length: string;
  /** Value of an extra trained input by its role. */
  readonly input: (role: string) => string;
}

/**
 * Another way from scores to probabilities, with inputs of its own that are trained and a penalty of its own.
 * Gradients reach both through the graph.
 */
export interface AttentionExtension {
  /** Name of its penalty among the student's own terms. */
  readonly name: string;
  /** Extra trained inputs of a layer. Shapes are alike in layers whose attention is alike. */
  inputs(layer: number, attention: AttentionDescription): readonly ExtraParameter[];
  /** Returns probabilities [B, heads, S, S], and a scalar that is added to the loss. */
  compose(context: ScoresContext): { readonly probabilities: string; readonly penalty?: string };
}

export interface AttentionRequest {
  readonly attention: AttentionDescription;
  readonly ropeDims: number;
  readonly precision: Precision;
  readonly extension?: AttentionExtension;
  readonly extras: readonly ExtraParameter[];
}

/** Rotary embedding of the first `dims` of each head of [B, heads, S, D], tables [S, dims / 2]. */
function rotated(g: GraphComposer, value: string, dims: number, headDim: number): string {
  if (dims === 0) return value;
  const cos = g.input('cos', g.float, ['length', dims / 2]);
  const sin = g.input('sin', g.float, ['length', dims / 2]);
  const rest = headDim - dims;
  const outputs = ['first', 'second', ...(rest > 0 ? ['rest'] : [])].map((name) => `${value}_${name}`);
  const widths = [dims / 2, dims / 2, ...(rest > 0 ? [rest] : [])];
  g.node('Split', [value, g.integers(widths)], { attributes: { axis: { int: 3 } }, outputs });
  const [first, second, ...passed] = outputs;
  const turnedFirst = g.node('Sub', [g.node('Mul', [first, cos]), g.node('Mul', [second, sin])]);
  const turnedSecond = g.node('Add', [g.node('Mul', [second, cos]), g.node('Mul', [first, sin])]);
  return g.node('Concat', [turnedFirst, turnedSecond, ...passed], { attributes: { axis: { int: 3 } } });
}

/**
 * Composes the attention of one layer in operators that have gradients, for whole windows without a past.
 *
 * Inputs: `queries` [B, S, heads * D], `keys` and `values` [B, S, kvHeads * D]; `cos`, `sin` [S, dims / 2] where there is
 * a rotary embedding; `mask` [S, S]; extras by role. Outputs: `heads` [B, S, heads * D], and `penalty` where an
 * extension has one. Query heads that share keys are rows of one product, so that keys are never repeated.
 */
export function composeAttention(request: AttentionRequest): Uint8Array {
  const { attention: a, ropeDims, extension } = request;
  const g = composeGraph('attention', request.precision);
  const group = a.heads / a.kvHeads;
  const queries = g.input('queries', g.float, ['batch', 'length', a.heads * a.headDim]);
  const length = g.node('Slice', [g.node('Shape', [queries]), g.integers([1]), g.integers([2])]);
  const shape = (...parts: (number | string)[]): string =>
    g.node(
      'Concat',
      parts.map((part) => (typeof part === 'string' ? part : g.integers([part]))),
      { attributes: { axis: { int: 0 } } },
    );
  const byHead = (value: string, heads: number): string => {
    const split = g.node('Reshape', [value, g.integers([0, 0, heads, a.headDim])]);
    return g.node('Transpose', [split], { attributes: { perm: { ints: [0, 2, 1, 3] } } });
  };
  const kvInput = (name: string): string =>
    byHead(g.input(name, g.float, ['batch', 'length', a.kvHeads * a.headDim]), a.kvHeads);

  const q = g.node('Mul', [rotated(g, byHead(queries, a.heads), ropeDims, a.headDim), g.scalar(a.scale)]);
  const k = rotated(g, kvInput('keys'), ropeDims, a.headDim);
  const v = kvInput('values');
  const grouped = g.node('Reshape', [q, shape(0, a.kvHeads, -1, a.headDim)]);
  const turnedKeys = g.node('Transpose', [k], { attributes: { perm: { ints: [0, 1, 3, 2] } } });
  let scores = g.node('Reshape', [g.node('MatMul', [grouped, turnedKeys]), shape(0, a.heads, length, length)]);
  if (a.softcap !== undefined) {
    const cap = g.scalar(a.softcap);
    scores = g.node('Mul', [g.node('Tanh', [g.node('Div', [scores, cap])]), cap]);
  }
  const mask = g.input('mask', g.float, ['length', 'length']);
  const known = new Map(request.extras.map(({ role, dims }) => [role, dims]));
  const input = (role: string): string => g.input(role, g.float, known.get(role) ?? []);
  const mixed = extension?.compose({ g, attention: a, scores, mask, length, input });
  const probabilities =
    mixed?.probabilities ?? g.node('Softmax', [g.node('Add', [scores, mask])], { attributes: { axis: { int: -1 } } });
  const rows = g.node('Reshape', [
    probabilities,
    shape(0, a.kvHeads, g.node('Mul', [length, g.integers([group])]), length),
  ]);
  const heads = g.node('Reshape', [g.node('MatMul', [rows, v]), shape(0, a.heads, length, a.headDim)]);
  const back = g.node('Transpose', [heads], { attributes: { perm: { ints: [0, 2, 1, 3] } } });
  g.publish(g.node('Reshape', [back, g.integers([0, 0, a.heads * a.headDim])]), 'heads');
  if (mixed?.penalty !== undefined) g.publish(mixed.penalty, 'penalty');
  return g.encode();
}

/** Large enough that a masked probability is zero in either precision, small enough that nothing overflows. */
const HIDDEN_SCORE = -1e9;

/** [length, length]: 0 where the key is not after the query and inside its window. */
export function causalScores(
  length: number,
  window: number | undefined,
  precision: Precision,
): Float32Array | Float64Array {
  const cells = length * length;
  const mask = precision === 'f32' ? new Float32Array(cells) : new Float64Array(cells);
  mask.fill(HIDDEN_SCORE);
  for (let query = 0; query < length; query++) {
    const oldest = window === undefined ? 0 : Math.max(0, query - window + 1);
    mask.fill(0, query * length + oldest, query * length + query + 1);
  }
  return mask;
}
