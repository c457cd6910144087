import { symmetricEigenvalues } from '../linalg/symmetric-eigenvalues.js';
import { kernelThreads, nativeKernels } from './native.js';

export interface SymmetricSpectrumOptions {
  readonly threads?: number;
}

/**
 * Entries beyond 2^±SAFE_EXPONENT are scaled by a power of two, which is exact: sums of squares of a row then neither
 * overflow nor lose digits to underflow.
 */
const SAFE_EXPONENT = 100;

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
  const scale = safeScale(largestEntry(matrix, n));
  const packed = matrix.subarray(0, (n * (n + 1)) / 2);
  for (let i = 1; i < n; i++) matrix.copyWithin((i * (i + 1)) / 2, i * n, i * n + i + 1);
  if (scale !== 1) for (let i = 0; i < packed.length; i++) packed[i] *= scale;
  const values = symmetricEigenvalues(packed, n);
  if (scale !== 1) for (let i = 0; i < n; i++) values[i] /= scale;
  return values;
}

/**
 * Eigenvalues, ascending, of a symmetric matrix [n, n], row-major, of which the lower triangle is read. The matrix is
 * overwritten; beyond it the work needs 2.5 kB a row. Errors are of the order of n eps |A|, as of any reduction by
 * orthogonal similarity, and results are the same bits whatever the number of threads.
 * @throws RangeError when the array holds no [n, n], or the lower triangle an entry that is not finite
 */
export function symmetricSpectrum(
  matrix: Float64Array,
  n: number,
  options: SymmetricSpectrumOptions = {},
): Float64Array {
  if (!Number.isInteger(n) || n < 0 || matrix.length !== n * n) {
    throw new RangeError(`${matrix.length} entries are no matrix of order ${n}`);
  }
  const native = nativeKernels();
  if (native === undefined) return spectrumReference(matrix, n);
  const values = new Float64Array(n);
  const outcome = native.symmetricSpectrum(matrix, n, values, kernelThreads(options.threads));
  // The addon says that there is an entry, the scan says which.
  if (outcome === 1) largestEntry(matrix, n);
  if (outcome !== 0) throw new RangeError('eigenvalues of a symmetric matrix did not settle');
  return values;
}
