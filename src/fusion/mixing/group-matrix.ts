/** Matrices [k, k] of the mixing laws, row-major: row i is the evaluated group, column j the trained one. */

/** Sum_i A_ij for every j: [k]. */
export function columnSums(matrix: ArrayLike<number>, k: number): Float64Array {
  const sums = new Float64Array(k);
  for (let i = 0; i < k; i++) for (let j = 0; j < k; j++) sums[j] += matrix[i * k + j];
  return sums;
}

/**
 * The authors' normalisation: where an entry is negative, the least one is taken off every entry; then all are divided by
 * their sum. A matrix of zeros stays.
 */
export function normaliseMatrix(matrix: Float64Array): Float64Array {
  let least = 0;
  for (const entry of matrix) least = Math.min(least, entry);
  const shifted = least < 0 ? matrix.map((entry) => entry - least) : matrix;
  let sum = 0;
  for (const entry of shifted) sum += entry;
  return sum === 0 ? shifted.slice() : shifted.map((entry) => entry / sum);
}

export function transpose(matrix: ArrayLike<number>, k: number): Float64Array {
  const turned = new Float64Array(k * k);
  for (let i = 0; i < k; i++) for (let j = 0; j < k; j++) turned[j * k + i] = matrix[i * k + j];
  return turned;
}

/** The diagonal matrix of `values`. */
export function diagonalMatrix(values: ArrayLike<number>): Float64Array {
  const k = values.length;
  const matrix = new Float64Array(k * k);
  for (let i = 0; i < k; i++) matrix[i * k + i] = values[i];
  return matrix;
}
