import { createRandom } from '../random.js';

/** Replicates of a permutation test by default. */
export const DEFAULT_PERMUTATIONS = 999;
/** Replicates at least as large as the figure after which a column draws no more: it is not among the best. */
export const DEFAULT_STOP_AFTER = 20;

/**
 * Permutations `[count, n]` number `first` to `first + count - 1` of the observations of the outcome. Number b depends on the
 * seed and b alone, so that columns, blocks and shards all meet the same ones.
 */
export function permutationOrders(seed: number, n: number, first: number, count: number): Int32Array {
  const root = createRandom(seed).fork(0x5eed);
  const orders = new Int32Array(count * n);
  for (let b = 0; b < count; b++) orders.set(root.fork(first + b).permutation(n), b * n);
  return orders;
}

/**
 * p-value of a column whose replicates reached its figure `exceedances` times of `drawn`: `(1 + exceedances) / (1 + drawn)`;
 * where the drawing stopped at `stopAfter` of them, `exceedances / drawn` (Besag & Clifford 1991). NaN without replicates.
 */
export function permutationP(exceedances: number, drawn: number, stopAfter: number): number {
  if (drawn === 0) return Number.NaN;
  if (stopAfter > 0 && exceedances >= stopAfter) return exceedances / drawn;
  return (1 + exceedances) / (1 + drawn);
}

/** Mean and standard deviation of the replicates from their sums. */
export function nullMoments(sum: number, squares: number, drawn: number): { mean: number; deviation: number } {
  if (drawn === 0) return { mean: Number.NaN, deviation: Number.NaN };
  const mean = sum / drawn;
  const variance = drawn > 1 ? Math.max(0, (squares - drawn * mean * mean) / (drawn - 1)) : Number.NaN;
  return { mean, deviation: Math.sqrt(variance) };
}
