import { SingularValueDecomposition } from 'ml-matrix';
import { matrixOf } from './symmetric-eigen.js';

/** Thin singular value decomposition `A = U diag(s) V^T`, singular values descending. */
export interface ThinSvd {
  /** `[rows, rank]`, row-major, where rank = min(rows, columns). */
  readonly left: Float64Array;
  readonly values: Float64Array;
  /** `[columns, rank]`, row-major: column i belongs to `values[i]`. */
  readonly right: Float64Array;
}

/**
 * Singular values and vectors of a row-major matrix `[rows, columns]` (Golub-Kahan, ml-matrix).
 * @throws RangeError when the entries do not fit the shape
 */
export function thinSvd(entries: ArrayLike<number>, rows: number, columns: number): ThinSvd {
  if (entries.length !== rows * columns)
    throw new RangeError(`${entries.length} entries are no ${rows} x ${columns} matrix`);
  const decomposition = new SingularValueDecomposition(matrixOf(entries, rows, columns), { autoTranspose: true });
  const rank = Math.min(rows, columns);
  const left = new Float64Array(rows * rank);
  const right = new Float64Array(columns * rank);
  const { leftSingularVectors: u, rightSingularVectors: v } = decomposition;
  for (let k = 0; k < rank; k++) {
    for (let i = 0; i < rows; i++) left[i * rank + k] = u.get(i, k);
    for (let j = 0; j < columns; j++) right[j * rank + k] = v.get(j, k);
  }
  return { left, values: Float64Array.from(decomposition.diagonal.slice(0, rank)), right };
}
