import { takesPlainAttention } from './attention-graph.js';
import type { ModelDescription } from './description.js';
import type { Floats, LayerCache } from './layer-runner.js';

/** Keys and values of all layers for a batch of sequences of equal length. */
export interface DecodingState {
  /** Keys and values a layer, [rows, kvHeads, stride, headDim] each; see {@link CacheShape}. */
  readonly caches: LayerCache[];
  readonly shapes: readonly CacheShape[];
  /** Positions that fit. */
  readonly capacity: number;
  /** Positions that are held, all sequences alike. */
  length: number;
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

/** Bytes of the cache of one sequence. */
export function stateBytes(model: ModelDescription, precision: 'f32' | 'f64', capacity: number): number {
  const numbers = model.layers.reduce((sum, { attention: a }) => sum + 2 * a.kvHeads * a.headDim, 0);
  return numbers * capacity * (precision === 'f32' ? 4 : 8);
}

/**
 * A new state whose sequence i goes on from sequence `rows[i]` of `from`, which stays as it is; with room for `capacity`
 * positions, those of `from` when absent.
 * @throws RangeError when the positions that are held do not fit.
 */
export function forkState(from: DecodingState, rows: readonly number[], capacity = from.capacity): DecodingState {
  const { length } = from;
  if (capacity < length) throw new RangeError(`${length} positions do not fit in a capacity of ${capacity}`);
  const caches = from.caches.map(({ keys, values }, layer) => {
    const shape = from.shapes[layer];
    const strides = { old: shape.growing ? length : from.capacity, new: shape.growing ? length : capacity };
    const copy = (data: Floats): Floats => {
      const lines = rows.length * shape.kvHeads;
      const out = emptyLike(data, data.length === 0 ? 0 : lines * strides.new * shape.headDim);
      rows.forEach((row, b) => {
        copyHeads(data, row, out, b, shape, strides, length);
      });
      return out;
    };
    return { keys: copy(keys), values: copy(values) };
  });
  return { ...from, caches, capacity };
}

/** Keeps the sequences `rows` (ascending) of a state, moving them to the front of the same buffers. */
export function keepRows(state: DecodingState, rows: readonly number[]): void {
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
