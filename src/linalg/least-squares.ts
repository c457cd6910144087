/** Singular to rounding: a pivot below this part of its column's own norm. */
const RANK_TOLERANCE = 1e-10;

/**
 * Least squares min ||A x - b|| by Householder reflections (Golub & Van Loan 2013, section 5.3.2).
 * @param a [rows, columns] row-major, rows >= columns; overwritten
 * @param b [rows]; overwritten
 * @returns x [columns]; undefined where the columns are linearly dependent to rounding
 */
export function leastSquaresSolution(
  a: Float64Array,
  b: Float64Array,
  rows: number,
  columns: number,
): Float64Array | undefined {
  if (rows < columns) return undefined;
  const norms = new Float64Array(columns);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) norms[j] += a[i * columns + j] ** 2;
  const diagonal = new Float64Array(columns);
  for (let k = 0; k < columns; k++) {
    let square = 0;
    for (let i = k; i < rows; i++) square += a[i * columns + k] ** 2;
    if (!(square > RANK_TOLERANCE ** 2 * norms[k])) return undefined;
    const head = a[k * columns + k];
    const length = head > 0 ? -Math.sqrt(square) : Math.sqrt(square);
    diagonal[k] = length;
    a[k * columns + k] = head - length;
    // v^T v / 2 of the reflection.
    const half = -length * a[k * columns + k];
    for (let j = k + 1; j < columns; j++) {
      let product = 0;
      for (let i = k; i < rows; i++) product += a[i * columns + k] * a[i * columns + j];
      product /= half;
      for (let i = k; i < rows; i++) a[i * columns + j] -= product * a[i * columns + k];
    }
    let product = 0;
    for (let i = k; i < rows; i++) product += a[i * columns + k] * b[i];
    product /= half;
    for (let i = k; i < rows; i++) b[i] -= product * a[i * columns + k];
  }
  const x = new Float64Array(columns);
  for (let k = columns - 1; k >= 0; k--) {
    let sum = b[k];
    for (let j = k + 1; j < columns; j++) sum -= a[k * columns + j] * x[j];
    x[k] = sum / diagonal[k];
  }
  return x;
}

/** Solves the square system A x = b, with equilibrated rows and columns left as they are; undefined where A is singular. */
export function solveSquare(a: ArrayLike<number>, b: ArrayLike<number>, n: number): Float64Array | undefined {
  return leastSquaresSolution(Float64Array.from(a), Float64Array.from(b), n, n);
}
