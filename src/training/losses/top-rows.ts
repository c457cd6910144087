import type { Floats, TopTeacher } from '../types.js';

/** Numbers of entries that a row of top-k lists holds. */
export function listedInRow({ ids, k }: TopTeacher, row: number): number {
  let count = 0;
  while (count < k && ids[row * k + count] >= 0) count++;
  return count;
}

/**
 * Top-k rows from ids and log-probabilities of the whole vocabulary, [rows, k]; what they leave over is the rest to 1.
 */
export function topTeacher(ids: Int32Array, logProbs: Floats, k: number): TopTeacher {
  const rows = k === 0 ? 0 : ids.length / k;
  const leftover = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    let sum = 0;
    for (let i = row * k; i < (row + 1) * k && ids[i] >= 0; i++) sum += Math.exp(logProbs[i]);
    leftover[row] = Math.max(0, 1 - sum);
  }
  return { kind: 'top', k, ids, logProbs, leftover };
}

/** The teacher's order of its likeliest classes in one row. */
export interface RankedRow {
  readonly count: number;
  /** By descending probability, ties by ascending class. */
  readonly ids: Int32Array;
  /** Probabilities over all classes. */
  readonly probabilities: Float64Array;
}

/** The `k` likeliest classes of a row of logits; ties by ascending class. */
export function rankRow(logits: Floats, at: number, classes: number, k: number, logNormaliser: number): RankedRow {
  const count = Math.min(k, classes);
  const order = Int32Array.from({ length: classes }, (_, j) => j);
  order.sort((a, b) => logits[at + b] - logits[at + a] || a - b);
  const ids = order.subarray(0, count);
  const probabilities = Float64Array.from(ids, (id) => Math.exp(logits[at + id] - logNormaliser));
  return { count, ids, probabilities };
}
