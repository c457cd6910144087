import { type CacheShape, type DecodingState, forkState } from '../models/decoding-state.js';
import type { Floats } from '../models/layer-runner.js';

/**
 * A state of `rows` places, each holding the only sequence of `prefix`, with room for `capacity` positions. The operator
 * takes the keys and values of a batch from one contiguous buffer, so that the prefix stands in every place; it was
 * computed once, and {@link continuePaths} does not copy it again.
 */
export function spreadPrefix(prefix: DecodingState, rows: number, capacity: number): DecodingState {
  return forkState(prefix, new Array<number>(rows).fill(0), capacity);
}

/**
 * Lets row i of a state go on from row `parents[i]`. Only positions from `shared` on are copied, before which all rows are
 * alike, and only for rows that change their parent.
 * @param rows places of the state
 */
export function continuePaths(state: DecodingState, parents: readonly number[], shared: number, rows: number): void {
  if (parents.every((parent, row) => parent === row) && !state.shapes.some(({ growing }) => growing)) return;
  state.caches.forEach((cache, layer) => {
    const shape = state.shapes[layer];
    if (shape.growing) {
      // The operator gives buffers of its own at every step: they hold as many rows as the batch has.
      const own = forkState({ ...state, caches: [cache], shapes: [shape] }, parents).caches[0];
      cache.keys = own.keys;
      cache.values = own.values;
      return;
    }
    if (cache.keys.length < rows * shape.kvHeads * state.capacity * shape.headDim) {
      throw new RangeError(`the cache of layer ${layer} has no room for ${rows} rows`);
    }
    for (const data of [cache.keys, cache.values]) moveRows(data, parents, shape, state, shared);
  });
}

function moveRows(
  data: Floats,
  parents: readonly number[],
  { kvHeads, headDim }: CacheShape,
  { capacity, length }: DecodingState,
  shared: number,
): void {
  const span = (row: number, head: number): [number, number] => {
    const at = (row * kvHeads + head) * capacity * headDim;
    return [at + shared * headDim, at + length * headDim];
  };
  const moved = parents.flatMap((parent, row) => (parent === row ? [] : [{ parent, row }]));
  // All sources are read before the first is overwritten.
  const held = new Map<number, Floats[]>();
  for (const { parent } of moved) {
    if (held.has(parent)) continue;
    held.set(
      parent,
      Array.from({ length: kvHeads }, (_, head) => data.slice(...span(parent, head))),
    );
  }
  for (const { parent, row } of moved) {
    held.get(parent)?.forEach((values, head) => {
      data.set(values, span(row, head)[0]);
    });
  }
}
