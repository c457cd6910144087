import { multiply } from '../kernels/gemm.js';
import { createRandom } from '../random.js';
import { symmetricEigen } from './symmetric-eigen.js';

export interface LeadingEigenvectors {
  /** Descending. */
  readonly values: Float64Array;
  /** Row i `[n]` of length 1 belongs to `values[i]`. */
  readonly vectors: Float64Array;
}

export interface LeadingOptions {
  readonly seed?: number;
  readonly threads?: number;
  /** Relative change of the values between two steps at which it ends; default 1e-11. */
  readonly tolerance?: number;
}

/** Below this order a full decomposition is quick. */
const DIRECT_ORDER = 160;
const MOST_STEPS = 500;

/**
 * The `count` largest eigenvalues of a symmetric positive semidefinite matrix `[n, n]` and their eigenvectors, by
 * subspace iteration with Rayleigh-Ritz (Golub & Van Loan 2013, section 8.2.4) on twice as many vectors. Directions of
 * equal eigenvalues are one of many bases.
 * @param matrix both triangles; not changed
 */
export function leadingEigenvectors(
  matrix: Float64Array,
  n: number,
  count: number,
  options: LeadingOptions = {},
): LeadingEigenvectors {
  const wanted = Math.min(count, n);
  if (n <= DIRECT_ORDER) {
    const { values, vectors } = symmetricEigen(matrix, n);
    const rows = new Float64Array(wanted * n);
    for (let i = 0; i < wanted; i++) rows.set(vectors.subarray((n - 1 - i) * n, (n - i) * n), i * n);
    return { values: values.slice().reverse().slice(0, wanted), vectors: rows };
  }
  const { seed = 0, tolerance = 1e-11 } = options;
  const threads = options.threads === undefined ? {} : { threads: options.threads };
  const block = Math.min(n, 2 * wanted + 8);
  const random = createRandom(seed).fork(0x6d6f6465);
  let basis = orthonormal(
    Float64Array.from({ length: block * n }, () => random.normal()),
    block,
    n,
  );
  let values = new Float64Array(block);
  for (let step = 0; step < MOST_STEPS; step++) {
    // Rows are vectors: Q A is (A Q^T)^T, since A is symmetric.
    const image = multiply(basis, matrix, new Float64Array(block * n), { m: block, n, k: n }, threads);
    const small = multiply(
      image,
      basis,
      new Float64Array(block * block),
      { m: block, n: block, k: n },
      {
        transposeB: true,
        ...threads,
      },
    );
    const ritz = symmetricEigen(small, block);
    const found = ritz.values.slice().reverse();
    let change = 0;
    for (let i = 0; i < wanted; i++) change = Math.max(change, Math.abs(found[i] - values[i]));
    values = found;
    const turn = new Float64Array(block * block);
    for (let i = 0; i < block; i++)
      turn.set(ritz.vectors.subarray((block - 1 - i) * block, (block - i) * block), i * block);
    const settled = change <= tolerance * Math.abs(found[0]);
    const source = settled ? basis : image;
    const next = multiply(turn, source, new Float64Array(block * n), { m: block, n, k: block }, threads);
    if (settled) return { values: values.slice(0, wanted), vectors: next.slice(0, wanted * n) };
    basis = orthonormal(next, block, n);
  }
  return { values: values.slice(0, wanted), vectors: basis.slice(0, wanted * n) };
}

/** Gram-Schmidt, twice, on rows; a row that vanishes becomes zero. */
function orthonormal(rows: Float64Array, count: number, n: number): Float64Array {
  for (let i = 0; i < count; i++) {
    const row = rows.subarray(i * n, (i + 1) * n);
    const before = length(row);
    for (let pass = 0; pass < 2; pass++) {
      for (let j = 0; j < i; j++) {
        const other = rows.subarray(j * n, (j + 1) * n);
        let product = 0;
        for (let k = 0; k < n; k++) product += row[k] * other[k];
        for (let k = 0; k < n; k++) row[k] -= product * other[k];
      }
    }
    const after = length(row);
    if (after > 1e-14 * before && after > 0) for (let k = 0; k < n; k++) row[k] /= after;
    else row.fill(0);
  }
  return rows;
}

function length(row: Float64Array): number {
  let squares = 0;
  for (const value of row) squares += value * value;
  return Math.sqrt(squares);
}
