import { rankMeasures } from '../linalg/rank-measures.js';
import type { Floats } from '../models/layer-runner.js';

/** Added to the square of the largest singular value in a stable rank, as in the code of MC-SMoE. */
const STABLE_RANK_FLOOR = 1e-7;

/** Mean over each row of |S_ij|, [rows]. */
export function rowMeanMagnitudes(residual: Floats, rows: number, columns: number): Float64Array {
  return Float64Array.from({ length: rows }, (_, row) => {
    let sum = 0;
    for (let c = 0; c < columns; c++) sum += Math.abs(residual[row * columns + c]);
    return sum / columns;
  });
}

/** ||W||_F^2 / (sigma_1^2 + 1e-7). */
export function stableRank(frobeniusNorm: number, largest: number): number {
  return frobeniusNorm ** 2 / (largest ** 2 + STABLE_RANK_FLOOR);
}

export interface SpectrumFigures {
  readonly stableRank: number;
  /** exp(H) of the shares of the squared singular values; NaN for a matrix of zeros. */
  readonly effectiveRank: number;
}

/** Figures of a whole spectrum, all min(rows, columns) singular values. */
export function spectrumFigures(values: Float64Array): SpectrumFigures {
  let squares = 0;
  for (const value of values) squares += value * value;
  return {
    stableRank: stableRank(Math.sqrt(squares), values.length === 0 ? 0 : Math.max(...values)),
    effectiveRank: rankMeasures(values).effectiveRankSquared,
  };
}

/** What a row of S is worth. */
export type RowScore = 'magnitude' | 'activations' | 'gradients';

/**
 * Worth of each row of S an entry, [rows], so that rows of matrices of different widths compare. `magnitude`: root mean square of
 * S_ij. `activations`: root mean square of S_ij n_j with n_j the norm of input j over the calibration tokens (after Wanda 2023):
 * what the outputs lose when the row goes, if inputs do not correlate. `gradients`: mean of |S_ij dLoss/dS_ij|, as LoSparse.
 * @param weights n [columns] for `activations`, dLoss/dW [rows, columns] for `gradients`
 */
export function rowScores(
  score: RowScore,
  residual: Floats,
  rows: number,
  columns: number,
  weights?: Floats,
): Float64Array {
  const wanted = { magnitude: 0, activations: columns, gradients: rows * columns }[score];
  if ((weights?.length ?? 0) < wanted) throw new RangeError(`${score} of [${rows}, ${columns}] need ${wanted} weights`);
  return Float64Array.from({ length: rows }, (_, row) => {
    let sum = 0;
    for (let c = 0; c < columns; c++) {
      const value = residual[row * columns + c];
      if (score === 'gradients') sum += Math.abs(value * (weights?.[row * columns + c] ?? 0));
      else sum += (score === 'activations' ? value * (weights?.[c] ?? 0) : value) ** 2;
    }
    return score === 'gradients' ? sum / columns : Math.sqrt(sum / columns);
  });
}

/** Rows of one matrix that compete for what may stay. */
export interface RowCandidates {
  /** [rows] */
  readonly scores: Float64Array;
  /** Entries of a row. */
  readonly columns: number;
}

/**
 * The rows that stay of several matrices together: the best scores while their entries do not exceed `share` of all entries.
 * Of equal scores the earlier matrix and the lower row come first.
 * @returns ascending rows of each matrix
 */
export function selectRows(matrices: readonly RowCandidates[], share: number): Int32Array[] {
  let entries = 0;
  for (const { scores, columns } of matrices) entries += scores.length * columns;
  const starts = new Int32Array(matrices.length + 1);
  matrices.forEach(({ scores }, m) => {
    starts[m + 1] = starts[m] + scores.length;
  });
  const all = new Float64Array(starts[matrices.length]);
  const owner = new Int32Array(all.length);
  matrices.forEach(({ scores }, m) => {
    all.set(scores, starts[m]);
    owner.fill(m, starts[m], starts[m + 1]);
  });
  const order = Int32Array.from({ length: all.length }, (_, i) => i).sort((a, b) => all[b] - all[a] || a - b);
  // A share such as 0.1 of a round number must not lose a row to the rounding of the product.
  const budget = entries * share * (1 + 1e-12);
  const kept: number[][] = matrices.map(() => []);
  let used = 0;
  for (const place of order) {
    const m = owner[place];
    if (used + matrices[m].columns > budget) continue;
    used += matrices[m].columns;
    kept[m].push(place - starts[m]);
  }
  return kept.map((rows) => Int32Array.from(rows).sort());
}
