import { multiply, symmetricRankK } from '../kernels/gemm.js';
import { invertLower, pivotedCholesky } from './blocked-cholesky.js';
import type { Design } from './multinomial-newton.js';

/**
 * The rows of a design in an orthonormal basis of the space that they span: `Z = C Q^T` with `C [rows, rank]`. A linear
 * map with a penalty on its norm sees no other part of the features, so that a fit on C is the fit on Z; with fewer rows
 * than features this is its dual form.
 */
export interface RowSpace {
  readonly rank: number;
  /** C `[rows, rank]`. */
  readonly coordinates: Float64Array;
  /**
   * Weights over the features of every part `[outputs, width]` from weights over C, `[outputs, rank]`; of all weights
   * that agree on the rows they have the least norm.
   */
  lift(weights: Float64Array, outputs: number): Float64Array[];
}

/** The basis comes from a pivoted Cholesky factor of `Z Z^T`, which is summed part by part. */
export function rowSpaceOf(design: Design, options: { readonly threads?: number } = {}): RowSpace {
  const { rows, widths } = design;
  const gram = new Float64Array(rows * rows);
  widths.forEach((width, m) => {
    symmetricRankK(design.part(m, 0, rows), gram, { n: rows, k: width }, { beta: 1, ...options });
  });
  const { factor, rank, pivots } = pivotedCholesky(gram, rows, rows * Number.EPSILON, options);
  return {
    rank,
    coordinates: factor,
    lift(weights, outputs) {
      // Z_p = L_p Q^T at the pivots, so W = V Q^T = (V L_p^-1) Z_p.
      const lower = new Float64Array(rank * rank);
      pivots.forEach((row, k) => {
        lower.set(factor.subarray(row * rank, row * rank + k + 1), k * rank);
      });
      const inverse = invertLower(lower, rank, options);
      const combination = multiply(
        weights,
        inverse,
        new Float64Array(outputs * rank),
        { m: outputs, n: rank, k: rank },
        options,
      );
      return widths.map((width, m) => {
        const chosen = new Float64Array(rank * width);
        pivots.forEach((row, k) => {
          chosen.set(design.part(m, row, 1), k * width);
        });
        return multiply(
          combination,
          chosen,
          new Float64Array(outputs * width),
          { m: outputs, n: width, k: rank },
          options,
        );
      });
    },
  };
}
