import { multiply, symmetricRankK } from '../kernels/gemm.js';

/** Order of the diagonal blocks that are factored by plain loops; all else is matrix products. */
const BLOCK = 64;

export interface FactorOptions {
  readonly threads?: number;
}

export interface InPlaceFactorOptions extends FactorOptions {
  /** Leave what lies above the diagonal as it is, instead of clearing it. */
  readonly keepUpper?: boolean;
}

/** Factors the diagonal block at `at` in place. False when a pivot is not positive. */
function factorBlock(a: Float64Array, n: number, at: number, size: number): boolean {
  for (let i = 0; i < size; i++) {
    const row = (at + i) * n + at;
    for (let j = 0; j <= i; j++) {
      const other = (at + j) * n + at;
      let sum = a[row + j];
      for (let k = 0; k < j; k++) sum -= a[row + k] * a[other + k];
      if (i === j) {
        if (!(sum > 0)) return false;
        a[row + i] = Math.sqrt(sum);
      } else {
        a[row + j] = sum / a[other + j];
      }
    }
  }
  return true;
}

/** Inverse `[size, size]` of the lower triangular block of `a` (rows `stride` apart) that begins at (`at`, `at`). */
function invertBlock(a: Float64Array, stride: number, at: number, size: number): Float64Array {
  const inverse = new Float64Array(size * size);
  for (let j = 0; j < size; j++) {
    inverse[j * size + j] = 1 / a[(at + j) * stride + at + j];
    for (let i = j + 1; i < size; i++) {
      let sum = 0;
      for (let k = j; k < i; k++) sum += a[(at + i) * stride + at + k] * inverse[k * size + j];
      inverse[i * size + j] = -sum / a[(at + i) * stride + at + i];
    }
  }
  return inverse;
}

/**
 * Lower Cholesky factor of a symmetric positive definite matrix `[n, n]`, in place, by blocks (Golub & Van Loan 2013,
 * section 4.2.6): the lower triangle is read and becomes the factor, the upper one becomes zero. False when the matrix
 * is not positive definite in f64; its lower triangle is then lost, and what lies above the diagonal is as it was.
 */
export function choleskyInPlace(a: Float64Array, n: number, options: InPlaceFactorOptions = {}): boolean {
  const panel = new Float64Array(Math.max(0, n - BLOCK) * BLOCK);
  for (let at = 0; at < n; at += BLOCK) {
    const size = Math.min(BLOCK, n - at);
    if (!factorBlock(a, n, at, size)) return false;
    const rest = n - at - size;
    if (rest === 0) continue;
    const inverse = invertBlock(a, n, at, size);
    const below = a.subarray((at + size) * n + at);
    multiply(
      below,
      inverse,
      panel,
      { m: rest, n: size, k: size },
      { transposeB: true, strideA: n, strideC: size, ...options },
    );
    for (let r = 0; r < rest; r++) below.set(panel.subarray(r * size, (r + 1) * size), r * n);
    const trailing = a.subarray((at + size) * n + at + size);
    symmetricRankK(
      panel,
      trailing,
      { n: rest, k: size },
      { strideX: size, strideC: n, alpha: -1, beta: 1, ...options },
    );
  }
  if (options.keepUpper !== true) for (let i = 0; i < n; i++) a.fill(0, i * n + i + 1, (i + 1) * n);
  return true;
}

/** Inverse of a lower triangular matrix `[n, n]`, whose diagonal has no zero. */
export function invertLower(lower: Float64Array, n: number, options: FactorOptions = {}): Float64Array {
  const inverse = new Float64Array(n * n);
  const sums = new Float64Array(BLOCK * n);
  for (let at = 0; at < n; at += BLOCK) {
    const size = Math.min(BLOCK, n - at);
    const block = invertBlock(lower, n, at, size);
    for (let i = 0; i < size; i++) inverse.set(block.subarray(i * size, (i + 1) * size), (at + i) * n + at);
    if (at === 0) continue;
    const row = lower.subarray(at * n);
    multiply(row, inverse, sums, { m: size, n: at, k: at }, { strideA: n, strideB: n, strideC: at, ...options });
    const target = inverse.subarray(at * n);
    multiply(
      block,
      sums,
      target,
      { m: size, n: at, k: size },
      { strideB: at, strideC: n, alpha: -1, beta: 0, ...options },
    );
    // The product wrote columns 0..at-1 of its rows only.
  }
  return inverse;
}

/** Solves `L L^T X^T = B^T` for rows of right-hand sides `B [count, n]`, given the inverse of L. */
export function solveRows(
  lowerInverse: Float64Array,
  n: number,
  b: Float64Array,
  count: number,
  options: FactorOptions = {},
): Float64Array {
  const half = multiply(
    b,
    lowerInverse,
    new Float64Array(count * n),
    { m: count, n, k: n },
    { transposeB: true, ...options },
  );
  return multiply(half, lowerInverse, new Float64Array(count * n), { m: count, n, k: n }, options);
}

/**
 * Solves `L L^T X^T = B^T` in place for rows of right-hand sides `B [count, n]`, by blocks of columns (Golub & Van Loan
 * 2013, section 3.1.4): half the work of {@link solveRows}, and no inverse is held.
 * @returns b, which holds X
 */
export function solveRowsInPlace(
  lower: Float64Array,
  n: number,
  b: Float64Array,
  count: number,
  options: FactorOptions = {},
): Float64Array {
  const solved = new Float64Array(count * BLOCK);
  /** Takes off what columns [from, from + depth) gave, then applies the inverse of the diagonal block. */
  const step = (at: number, from: number, depth: number, transpose: boolean): void => {
    const size = Math.min(BLOCK, n - at);
    const block = b.subarray(at);
    // Forward: B_at -= B_before L[at, before]^T. Backward: B_at -= B_after L[after, at].
    const factor = lower.subarray(transpose ? at * n : from * n + at);
    if (depth > 0) {
      multiply(
        b.subarray(from),
        factor,
        block,
        { m: count, n: size, k: depth },
        { transposeB: transpose, strideA: n, strideB: n, strideC: n, alpha: -1, beta: 1, ...options },
      );
    }
    const inverse = invertBlock(lower, n, at, size);
    const sizes = { m: count, n: size, k: size };
    multiply(block, inverse, solved, sizes, { transposeB: transpose, strideA: n, strideC: size, ...options });
    for (let r = 0; r < count; r++) block.set(solved.subarray(r * size, (r + 1) * size), r * n);
  };
  for (let at = 0; at < n; at += BLOCK) step(at, 0, at, true);
  for (let at = n - ((n - 1) % BLOCK) - 1; at >= 0; at -= BLOCK) {
    const after = Math.min(n, at + BLOCK);
    step(at, after, n - after, false);
  }
  return b;
}

/** `A = F F^T` with pivots chosen greedily; rows keep their order. */
export interface PivotedFactor {
  /** `[n, rank]`, row-major. */
  readonly factor: Float64Array;
  readonly rank: number;
  /** Row of A that became the k-th pivot. `factor` at these rows, in this order, is lower triangular. */
  readonly pivots: Int32Array;
}

/**
 * Cholesky factor of a positive semidefinite matrix `[n, n]` with diagonal pivots (Higham 2002, section 10.3), which ends
 * when what is left of the diagonal is below `tolerance` times its largest entry. The lower triangle of A is read; A is
 * overwritten.
 */
export function pivotedCholesky(
  a: Float64Array,
  n: number,
  tolerance = n * Number.EPSILON,
  options: FactorOptions = {},
): PivotedFactor {
  const left = new Float64Array(n);
  for (let i = 0; i < n; i++) left[i] = a[i * n + i];
  const floor = tolerance * left.reduce((most, value) => Math.max(most, value), 0);
  const chosen = new Uint8Array(n);
  const pivots: number[] = [];
  const blocks: { columns: Float64Array; width: number }[] = [];
  let ended = false;
  while (!ended && pivots.length < n) {
    const block = new Float64Array(n * BLOCK);
    let width = 0;
    for (; width < BLOCK && pivots.length < n; width++) {
      let pivot = -1;
      for (let i = 0; i < n; i++) if (chosen[i] === 0 && (pivot < 0 || left[i] > left[pivot])) pivot = i;
      if (!(left[pivot] > floor)) {
        ended = true;
        break;
      }
      const root = Math.sqrt(left[pivot]);
      chosen[pivot] = 1;
      for (let i = 0; i < n; i++) {
        if (chosen[i] === 1 && i !== pivot) continue;
        let value = i >= pivot ? a[i * n + pivot] : a[pivot * n + i];
        for (let k = 0; k < width; k++) value -= block[i * BLOCK + k] * block[pivot * BLOCK + k];
        block[i * BLOCK + width] = i === pivot ? root : value / root;
        left[i] -= block[i * BLOCK + width] ** 2;
      }
      pivots.push(pivot);
    }
    if (width === 0) break;
    blocks.push({ columns: block, width });
    symmetricRankK(block, a, { n, k: width }, { strideX: BLOCK, alpha: -1, beta: 1, ...options });
  }
  const rank = pivots.length;
  const factor = new Float64Array(n * rank);
  blocks.forEach(({ columns, width }, b) => {
    for (let i = 0; i < n; i++) {
      factor.set(columns.subarray(i * BLOCK, i * BLOCK + width), i * rank + b * BLOCK);
    }
  });
  return { factor, rank, pivots: Int32Array.from(pivots) };
}
