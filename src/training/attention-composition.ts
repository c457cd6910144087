import type { AttentionDescription } from '../models/description.js';
import { composeGraph, type GraphComposer } from '../models/graph.js';
import type { ExtraParameter, WeightView } from './decoder-weights.js';
import type { Floats, Precision } from './types.js';

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
  /** Value of an extra input by its role. */
  readonly input: (role: string) => string;
  /** [B, 1, S]: 1 for queries of the text, 0 for those that fill a window up. */
  readonly counted: () => string;
}

/** The pass that something was observed in. */
export interface ObservedPass {
  readonly batch: number;
  readonly length: number;
  /** Queries of the text, of batch * length. */
  readonly counted: number;
}

/** What an extension gives in the place of softmax. */
export interface ExtendedAttention {
  /** [B, heads, S, S]. */
  readonly probabilities: string;
  /** A scalar that is added to the loss. */
  readonly penalty?: string;
  /** [B, heads, S]: for `observe`. */
  readonly observed?: string;
}

/**
 * Another way from scores to probabilities, with inputs of its own that are trained and a penalty of its own.
 * Gradients reach both through the graph.
 */
export interface AttentionExtension {
  /** Name of its penalty among the student's own terms; absent where it has none. */
  readonly penalty?: string;
  /** Extra inputs of a layer. Shapes are alike in layers whose attention is alike. */
  inputs(layer: number, attention: AttentionDescription): readonly ExtraParameter[];
  compose(context: ScoresContext): ExtendedAttention;
  /** Hears what `compose` calls observed, at every pass; the array is valid during the call. */
  observe?(layer: number, values: Floats, pass: ObservedPass): void;
  /**
   * Factors of the scores of every head, [heads], that do the same as the extension; undefined where no factors do.
   * @param extras values of the inputs by role
   */
  scoreFactors?(extras: ReadonlyMap<string, WeightView>): Float64Array | undefined;
}

/** Input that says which queries are text. */
export const COUNTED = 'counted';

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
 * a rotary embedding; `mask` [S, S]; extras by role; `counted` where an extension reads it. Outputs: `heads`
 * [B, S, heads * D]; `penalty` and `observed` where an extension has them. Query heads that share keys are rows of one product, so that keys are never repeated.
 */
export function composeAttention(request: AttentionRequest): Uint8Array {
  const g = composeGraph('attention', request.precision);
  const { heads, penalty, observed } = attend(g, request);
  g.publish(heads, 'heads');
  if (penalty !== undefined) g.publish(penalty, 'penalty');
  if (observed !== undefined) g.publish(observed, 'observed');
  return g.encode();
}

/** The same as a part of a graph: its inputs are those of `g`, its outputs are returned. */
export function attend(
  g: GraphComposer,
  request: AttentionRequest,
): { readonly heads: string; readonly penalty?: string; readonly observed?: string } {
  const { attention: a, ropeDims, extension } = request;
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
  const counted = (): string => g.input(COUNTED, g.float, ['batch', 1, 'length']);
  const mixed = extension?.compose({ g, attention: a, scores, mask, length, input, counted });
  const probabilities =
    mixed?.probabilities ?? g.node('Softmax', [g.node('Add', [scores, mask])], { attributes: { axis: { int: -1 } } });
  const rows = g.node('Reshape', [
    probabilities,
    shape(0, a.kvHeads, g.node('Mul', [length, g.integers([group])]), length),
  ]);
  const heads = g.node('Reshape', [g.node('MatMul', [rows, v]), shape(0, a.heads, length, a.headDim)]);
  const back = g.node('Transpose', [heads], { attributes: { perm: { ints: [0, 2, 1, 3] } } });
  const joined = g.node('Reshape', [back, g.integers([0, 0, a.heads * a.headDim])]);
  return {
    heads: joined,
    ...(mixed?.penalty !== undefined && { penalty: mixed.penalty }),
    ...(mixed?.observed !== undefined && { observed: mixed.observed }),
  };
}

/** Large enough that a masked probability is zero in either precision, small enough that nothing overflows. */
export const HIDDEN_SCORE = -1e9;

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
