import { takesPlainAttention } from './attention-graph.js';
import { takesCachedRunner } from './cached-runner.js';
import type { ModelDescription } from './description.js';
import type { Floats, LayerCache } from './layer-runner.js';

/** Keys and values of all layers for a batch of sequences. */
export interface DecodingState {
  /** Keys and values a layer, [rows, kvHeads, stride, headDim] each; see {@link CacheShape}. */
  readonly caches: LayerCache[];
  readonly shapes: readonly CacheShape[];
  /** Positions that fit. */
  readonly capacity: number;
  /** Positions that are held: of all sequences alike, or of the longest. */
  length: number;
  /** Positions of each sequence where they differ, [rows]; see {@link takesUnequalLengths}. */
  lengths?: Int32Array;
}

/** What one position of one sequence takes in the cache of a layer. */
export interface CacheShape {
  readonly kvHeads: number;
  readonly headDim: number;
  /** The operator gives new buffers of the length held; otherwise past and present share one of the capacity. */
  readonly growing: boolean;
}

/** An empty state. */
export function emptyState(model: ModelDescription, precision: 'f32' | 'f64', capacity: number): DecodingState {
  const none = (): Floats => (precision === 'f32' ? new Float32Array(0) : new Float64Array(0));
  return {
    caches: model.layers.map(() => ({ keys: none(), values: none() })),
    shapes: model.layers.map(({ attention }) => ({
      kvHeads: attention.kvHeads,
      headDim: attention.headDim,
      growing: takesPlainAttention(attention, precision, new Set()),
    })),
    capacity,
    length: 0,
  };
}

/** Counts `count` positions more of every sequence. */
export function advanceState(state: DecodingState, count: number): void {
  state.length += count;
  if (state.lengths) state.lengths = state.lengths.map((own) => own + count);
}

/** Whether sequences of unequal lengths can run together: no cache grows, and no rotary embedding depends on the length. */
export function takesUnequalLengths(model: ModelDescription, precision: 'f32' | 'f64'): boolean {
  const fixed = model.ropes.every(({ type }) => type !== 'dynamic' && type !== 'longrope');
  return fixed && takesCachedRunner(model, precision);
}

/** Bytes of the cache of one sequence. */
export function stateBytes(model: ModelDescription, precision: 'f32' | 'f64', capacity: number): number {
  const numbers = model.layers.reduce((sum, { attention: a }) => sum + 2 * a.kvHeads * a.headDim, 0);
  return numbers * capacity * (precision === 'f32' ? 4 : 8);
}

/** One sequence of a state. */
export interface StateRow {
  readonly state: DecodingState;
  readonly row: number;
}

const lengthOf = ({ state, row }: StateRow): number => state.lengths?.[row] ?? state.length;

/**
 * A new state whose sequence i goes on from sequence `rows[i]` of `from`, which stays as it is; with room for `capacity`
 * positions, those of `from` when absent.
 * @throws RangeError when the positions that are held do not fit.
 */
export function forkState(from: DecodingState, rows: readonly number[], capacity = from.capacity): DecodingState {
  return joinStates(
    rows.map((row) => ({ state: from, row })),
    capacity,
  );
}

/**
 * A new state whose sequence i goes on from the i-th of the given ones, which may belong to several states of a model and
 * stay as they are.
 * @throws RangeError when the positions that are held do not fit.
 */
export function joinStates(sources: readonly StateRow[], capacity: number): DecodingState {
  const lengths = Int32Array.from(sources, lengthOf);
  const length = lengths.reduce((a, b) => Math.max(a, b), 0);
  if (capacity < length) throw new RangeError(`${length} positions do not fit in a capacity of ${capacity}`);
  const { shapes, caches: like } = sources[0].state;
  const equal = lengths.every((own) => own === length);
  const caches = like.map((_, layer) => {
    const shape = shapes[layer];
    if (shape.growing && !equal) throw new RangeError('sequences of such a model must be of one length');
    const copy = (part: 'keys' | 'values'): Floats => {
      const known = like[layer][part];
      const stride = shape.growing ? length : capacity;
      const out = emptyLike(known, known.length === 0 ? 0 : sources.length * shape.kvHeads * stride * shape.headDim);
      if (out.length === 0) return out;
      sources.forEach(({ state, row }, b) => {
        const strides = { old: shape.growing ? length : state.capacity, new: stride };
        copyHeads(state.caches[layer][part], row, out, b, shape, strides, lengths[b]);
      });
      return out;
    };
    return { keys: copy('keys'), values: copy('values') };
  });
  return { caches, shapes, capacity, length, ...(!equal && { lengths }) };
}

/** Keeps the sequences `rows` (ascending) of a state, moving them to the front of the same buffers. */
export function keepRows(state: DecodingState, rows: readonly number[]): void {
  const { lengths } = state;
  if (lengths) state.lengths = Int32Array.from(rows, (row) => lengths[row]);
  state.caches.forEach((cache, layer) => {
    const shape = state.shapes[layer];
    const size = shape.kvHeads * (shape.growing ? state.length : state.capacity) * shape.headDim;
    for (const data of [cache.keys, cache.values]) {
      rows.forEach((row, b) => {
        if (row !== b) data.copyWithin(b * size, row * size, (row + 1) * size);
      });
    }
    if (shape.growing) {
      cache.keys = cache.keys.slice(0, rows.length * size);
      cache.values = cache.values.slice(0, rows.length * size);
    }
  });
}

/**
 * Forgets all positions from `length` on.
 * @throws RangeError when fewer are held.
 */
export function truncateState(state: DecodingState, length: number): void {
  if (length > state.length) throw new RangeError(`a state of ${state.length} positions has no position ${length - 1}`);
  if (length === state.length) return;
  if (state.lengths) throw new RangeError('a state of unequal lengths cannot be shortened');
  state.caches.forEach((cache, layer) => {
    const shape = state.shapes[layer];
    if (!shape.growing) return;
    const rows = cache.keys.length / (shape.kvHeads * state.length * shape.headDim);
    const strides = { old: state.length, new: length };
    const shorten = (data: Floats): Floats => {
      const out = emptyLike(data, rows * shape.kvHeads * length * shape.headDim);
      for (let row = 0; row < rows; row++) copyHeads(data, row, out, row, shape, strides, length);
      return out;
    };
    cache.keys = shorten(cache.keys);
    cache.values = shorten(cache.values);
  });
  state.length = length;
}

/** Copies `length` positions of every head of one row into another. */
function copyHeads(
  from: Floats,
  fromRow: number,
  to: Floats,
  toRow: number,
  { kvHeads, headDim }: CacheShape,
  strides: { readonly old: number; readonly new: number },
  length: number,
): void {
  for (let head = 0; head < kvHeads; head++) {
    const at = (fromRow * kvHeads + head) * strides.old * headDim;
    to.set(from.subarray(at, at + length * headDim), (toRow * kvHeads + head) * strides.new * headDim);
  }
}

function emptyLike(like: Floats, length: number): Floats {
  return like instanceof Float64Array ? new Float64Array(length) : new Float32Array(length);
}
