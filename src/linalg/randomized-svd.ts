import { multiply, symmetricRankK } from '../kernels/gemm.js';
import { createRandom } from '../random.js';
import { thinSvd } from './svd.js';
import { symmetricEigen } from './symmetric-eigen.js';

type Reals = Float32Array | Float64Array;

export interface TruncatedSvd {
  readonly rank: number;
  /** [rows, rank], row-major, orthonormal columns; the column of a value of zero may be zero. */
  readonly left: Float64Array;
  /** Descending, [rank]. */
  readonly values: Float64Array;
  /** [columns, rank]: column i belongs to `values[i]`. */
  readonly right: Float64Array;
  /** ||A||_F. */
  readonly norm: number;
  /** ||A - U diag(s) V^T||_F as it was obtained, computed from the product. */
  readonly residual: number;
  readonly path: 'exact' | 'randomised';
  /** All min(rows, columns) singular values, where the path knows them. */
  readonly spectrum?: Float64Array;
}

export interface TruncatedSvdOptions {
  /** Default `exact` up to {@link EXACT_ORDER} on the smaller side, and where the rank leaves nothing out. */
  readonly path?: 'exact' | 'randomised';
  /** Directions beyond the rank that are looked for; default 8. */
  readonly oversamples?: number;
  /** Products with A A^T that sharpen the subspace; default 2. */
  readonly powerIterations?: number;
  readonly seed?: number;
  readonly threads?: number;
}

/** Smaller side up to which a whole decomposition is as quick. */
export const EXACT_ORDER = 96;

/** Columns whose remainder is below this share of their length depend on those before them, up to rounding. */
const DEPENDENT = 1e-12;

/** Rows of the product that is compared with A at a time. */
const BAND_ROWS = 256;

function threadsOf(threads: number | undefined): { threads?: number } {
  return threads === undefined ? {} : { threads };
}

const zeros = (like: Reals, length: number): Reals =>
  like instanceof Float32Array ? new Float32Array(length) : new Float64Array(length);

/** Of the precision of `like`. */
function rounded(values: Float64Array, like: Reals): Reals {
  return like instanceof Float32Array ? Float32Array.from(values) : values;
}

/** Lower Cholesky factor of a Gram matrix [n, n] (lower triangle given), in place; dependent columns get a zero pivot. */
function choleskyWithZeros(gram: Float64Array, n: number): void {
  for (let j = 0; j < n; j++) {
    const length = gram[j * n + j];
    let pivot = length;
    for (let k = 0; k < j; k++) pivot -= gram[j * n + k] ** 2;
    const root = pivot > DEPENDENT * length ? Math.sqrt(pivot) : 0;
    gram[j * n + j] = root;
    for (let i = j + 1; i < n; i++) {
      let sum = gram[i * n + j];
      for (let k = 0; k < j; k++) sum -= gram[i * n + k] * gram[j * n + k];
      gram[i * n + j] = root === 0 ? 0 : sum / root;
    }
  }
}

/** Solves X L^T = Y in place for the rows of Y [rows, n]; columns of zero pivot become zero. */
function solveRows(y: Float64Array, lower: Float64Array, rows: number, n: number): void {
  for (let i = 0; i < rows; i++) {
    const row = y.subarray(i * n, (i + 1) * n);
    for (let j = 0; j < n; j++) {
      let sum = row[j];
      const at = j * n;
      for (let k = 0; k < j; k++) sum -= row[k] * lower[at + k];
      row[j] = lower[at + j] === 0 ? 0 : sum / lower[at + j];
    }
  }
}

/**
 * Orthonormal basis of the columns of y [rows, n], in place: Cholesky QR, twice (Yamamoto, Nakatsukasa, Yanagisawa & Fukaya
 * 2015); columns that depend on those before them become zero.
 */
export function orthonormalColumns(y: Float64Array, rows: number, n: number, threads?: number): Float64Array {
  for (let pass = 0; pass < 2; pass++) {
    const gram = new Float64Array(n * n);
    symmetricRankK(y, gram, { n, k: rows }, { transpose: true, ...threadsOf(threads) });
    choleskyWithZeros(gram, n);
    solveRows(y, gram, rows, n);
  }
  return y;
}

function frobenius(a: Reals): number {
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i]));
  if (!(largest > 0) || largest === Number.POSITIVE_INFINITY) return largest;
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] / largest) ** 2;
  return largest * Math.sqrt(sum);
}

/** || A - U diag(s) V^T ||_F, by bands of rows. */
function residualOf(
  a: Reals,
  rows: number,
  columns: number,
  { left, values, right }: Pick<TruncatedSvd, 'left' | 'values' | 'right'>,
  threads: number | undefined,
): number {
  const rank = values.length;
  const weighted = rounded(
    left.map((value, at) => value * values[at % rank]),
    a,
  );
  const turned = rounded(right, a);
  let sum = 0;
  for (let from = 0; from < rows; from += BAND_ROWS) {
    const m = Math.min(BAND_ROWS, rows - from);
    const band = zeros(a, m * columns);
    const sizes = { m, n: columns, k: rank };
    multiply(weighted.subarray(from * rank, (from + m) * rank), turned, band, sizes, {
      transposeB: true,
      ...threadsOf(threads),
    });
    for (let i = 0; i < band.length; i++) sum += (a[from * columns + i] - band[i]) ** 2;
  }
  return Math.sqrt(sum);
}

function exactSvd(
  a: Reals,
  rows: number,
  columns: number,
  rank: number,
): Pick<TruncatedSvd, 'left' | 'values' | 'right' | 'spectrum'> {
  const { left, values, right } = thinSvd(a, rows, columns);
  const all = values.length;
  const cut = (matrix: Float64Array, height: number): Float64Array =>
    Float64Array.from({ length: height * rank }, (_, at) => matrix[Math.floor(at / rank) * all + (at % rank)]);
  return { left: cut(left, rows), values: values.slice(0, rank), right: cut(right, columns), spectrum: values };
}

/**
 * Range finder with power iterations, orthonormal after every product, then the decomposition of Q^T A (Halko, Martinsson &
 * Tropp 2011, algorithms 4.4 and 5.1). Products run in the precision of A and are added in double.
 */
function randomisedSvd(
  a: Reals,
  rows: number,
  columns: number,
  rank: number,
  options: TruncatedSvdOptions,
): Pick<TruncatedSvd, 'left' | 'values' | 'right'> {
  const { oversamples = 8, powerIterations = 2, seed = 0 } = options;
  const threads = threadsOf(options.threads);
  const size = Math.min(rank + oversamples, rows, columns);
  const random = createRandom(seed).fork(0x73766400);
  const sketch = Float64Array.from({ length: columns * size }, () => random.normal());
  /** Orthonormal basis of the columns of A X, X [columns, size]. */
  const forward = (x: Float64Array): Float64Array => {
    const y = multiply(a, rounded(x, a), new Float64Array(rows * size), { m: rows, n: size, k: columns }, threads);
    return orthonormalColumns(y, rows, size, options.threads);
  };
  /** A^T Q, Q [rows, size]. */
  const backward = (q: Float64Array): Float64Array =>
    multiply(
      a,
      rounded(q, a),
      new Float64Array(columns * size),
      { m: columns, n: size, k: rows },
      { transposeA: true, ...threads },
    );
  let basis = forward(sketch);
  for (let i = 0; i < powerIterations; i++) {
    basis = forward(orthonormalColumns(backward(basis), columns, size, options.threads));
  }
  // B = Q^T A is small one way: B^T = A^T Q [columns, size], B B^T [size, size] has its left vectors.
  const transposed = backward(basis);
  const gram = new Float64Array(size * size);
  multiply(transposed, transposed, gram, { m: size, n: size, k: columns }, { transposeA: true, ...threads });
  const eigen = symmetricEigen(gram, size);
  // Row i of `vectors` is the eigenvector of the i-th smallest value.
  const turn = new Float64Array(size * rank);
  const values = new Float64Array(rank);
  for (let i = 0; i < rank; i++) {
    values[i] = Math.sqrt(Math.max(0, eigen.values[size - 1 - i]));
    for (let j = 0; j < size; j++) turn[j * rank + i] = eigen.vectors[(size - 1 - i) * size + j];
  }
  const left = multiply(basis, turn, new Float64Array(rows * rank), { m: rows, n: rank, k: size }, threads);
  const right = multiply(transposed, turn, new Float64Array(columns * rank), { m: columns, n: rank, k: size }, threads);
  for (let at = 0; at < right.length; at++) {
    const value = values[at % rank];
    right[at] = value > 0 ? right[at] / value : 0;
  }
  return { left, values, right };
}

/**
 * The `rank` largest singular values of A [rows, columns], row-major, and their vectors. Small matrices are decomposed as a
 * whole; of others the range is found at random (a seed gives the same bits whatever the number of threads). Which way it
 * went and what is left over are part of the result.
 * @throws RangeError when the entries do not fit the shape or are not finite, or the rank is not within 0..min(rows, columns)
 */
export function truncatedSvd(
  a: Reals,
  rows: number,
  columns: number,
  rank: number,
  options: TruncatedSvdOptions = {},
): TruncatedSvd {
  if (a.length !== rows * columns) throw new RangeError(`${a.length} entries are no ${rows} x ${columns} matrix`);
  const order = Math.min(rows, columns);
  if (!(Number.isInteger(rank) && rank >= 0 && rank <= order)) {
    throw new RangeError(`rank ${rank} of a ${rows} x ${columns} matrix`);
  }
  const norm = frobenius(a);
  if (!Number.isFinite(norm)) throw new RangeError('the matrix has entries that are not finite');
  const path = options.path ?? (order <= EXACT_ORDER || rank === order ? 'exact' : 'randomised');
  if (rank === 0 && path === 'randomised') {
    const none = new Float64Array(0);
    return { rank, left: none, values: none, right: none, norm, residual: norm, path };
  }
  const found = path === 'exact' ? exactSvd(a, rows, columns, rank) : randomisedSvd(a, rows, columns, rank, options);
  const residual = rank === 0 ? norm : residualOf(a, rows, columns, found, options.threads);
  return { rank, ...found, norm, residual, path };
}
