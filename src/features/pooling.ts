import type { Floats } from '../models/layer-runner.js';

/**
 * How the positions of a text become rows: its first or last position, the mean or the largest entries of all (`mean-sqrt`
 * divides the sum by the square root of the number), or a row each.
 */
export type Pooling = 'last' | 'mean' | 'tokens' | 'cls' | 'max' | 'mean-sqrt';

export const POOLINGS: readonly Pooling[] = ['last', 'mean', 'tokens', 'cls', 'max', 'mean-sqrt'];

/** What the windows of a text leave behind, window after window. */
export interface PoolState {
  readonly row: Float64Array;
  positions: number;
}

export function createPoolState(width: number): PoolState {
  return { row: new Float64Array(width), positions: 0 };
}

/** Takes positions `[positions, width]` of the next window of a text into its state. */
export function addToPool(state: PoolState, rows: Floats, pool: Exclude<Pooling, 'tokens'>): void {
  const { row } = state;
  const width = row.length;
  const count = rows.length / width;
  switch (pool) {
    case 'cls':
      if (state.positions === 0) row.set(rows.subarray(0, width));
      break;
    case 'last':
      row.set(rows.subarray((count - 1) * width));
      break;
    case 'max':
      if (state.positions === 0) row.set(rows.subarray(0, width));
      for (let i = 0; i < rows.length; i++) row[i % width] = Math.max(row[i % width], rows[i]);
      break;
    default:
      for (let i = 0; i < rows.length; i++) row[i % width] += rows[i];
  }
  state.positions += count;
}

/** The row of a text, once all its windows are in. */
export function finishPool(state: PoolState, pool: Exclude<Pooling, 'tokens'>): Float64Array {
  if (pool !== 'mean' && pool !== 'mean-sqrt') return state.row;
  const divisor = pool === 'mean' ? state.positions : Math.sqrt(state.positions);
  return state.row.map((value) => value / divisor);
}
