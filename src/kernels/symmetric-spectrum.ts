import { symmetricEigenvalues } from '../linalg/symmetric-eigenvalues.js';

export interface SymmetricSpectrumOptions {
  readonly threads?: number;
}

/**
 * Entries beyond 2^±SAFE_EXPONENT are scaled by a power of two, which is exact: sums of squares of a row then neither
 * overflow nor lose digits to underflow.
 */
const SAFE_EXPONENT = 400;

/** Largest magnitude of the lower triangle. @throws RangeError naming the first entry that is not finite */
function largestEntry(matrix: Float64Array, n: number): number {
  let largest = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      const size = Math.abs(matrix[i * n + j]);
      if (!(size < Number.POSITIVE_INFINITY)) {
        throw new RangeError(`entry (${i}, ${j}) of a symmetric matrix is ${matrix[i * n + j]}`);
      }
      if (size > largest) largest = size;
    }
  }
  return largest;
}

/** The power of two by which a matrix is multiplied before it is reduced; 1 for all but extreme ones. */
function safeScale(largest: number): number {
  if (largest === 0) return 1;
  const exponent = Math.floor(Math.log2(largest));
  return Math.abs(exponent) <= SAFE_EXPONENT ? 1 : 2 ** -Math.max(-1022, Math.min(1022, exponent));
}

/** Packs the lower triangle to the front of the matrix and reduces it there. */
function spectrumReference(matrix: Float64Array, n: number): Float64Array {
  const packed = matrix.subarray(0, (n * (n + 1)) / 2);
  for (let i = 1; i < n; i++) matrix.copyWithin((i * (i + 1)) / 2, i * n, i * n + i + 1);
  return symmetricEigenvalues(packed, n);
}

/**
 * Eigenvalues, ascending, of a symmetric matrix [n, n], row-major, of which the lower triangle is read. The matrix is
 * overwritten. Errors are of the order of n eps |A|, as of any reduction by orthogonal similarity.
 * @throws RangeError when the matrix is no [n, n], or holds an entry that is not finite
 */
export function symmetricSpectrum(
  matrix: Float64Array,
  n: number,
  _options: SymmetricSpectrumOptions = {},
): Float64Array {
  if (!Number.isInteger(n) || n < 0 || matrix.length !== n * n) {
    throw new RangeError(`${matrix.length} entries are no matrix of order ${n}`);
  }
  const scale = safeScale(largestEntry(matrix, n));
  if (scale !== 1) for (let i = 0; i < matrix.length; i++) matrix[i] *= scale;
  const values = spectrumReference(matrix, n);
  if (scale !== 1) for (let i = 0; i < n; i++) values[i] /= scale;
  return values;
}
