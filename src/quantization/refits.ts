import { multiply } from '../kernels/gemm.js';
import { cholesky, choleskySolve } from '../linalg/cholesky.js';
import type { HessianFactor } from './hessian.js';

type Reals = Float32Array | Float64Array;

/** Columns of a tile of a product with a triangular factor. */
const TRIANGLE_TILE = 256;

/** `X R` of rows `[rows, n]` with the upper triangular factor; `||x R||² = x H xᵀ`. Skips what R does not have. */
export function timesFactor<T extends Reals>(
  x: T,
  rows: number,
  factor: { readonly n: number; readonly packed: T },
  threads?: number,
): T {
  const { n, packed } = factor;
  const product = new (x.constructor as { new (length: number): T })(rows * n);
  const tile = new (x.constructor as { new (length: number): T })(TRIANGLE_TILE * TRIANGLE_TILE);
  for (let at = 0; at < n; at += TRIANGLE_TILE) {
    const w = Math.min(TRIANGLE_TILE, n - at);
    const into = product.subarray(at) as T;
    if (at > 0) {
      multiply(
        x,
        packed.subarray(at) as T,
        into,
        { m: rows, n: w, k: at },
        { strideA: n, strideB: n, strideC: n, threads },
      );
    }
    // Below the diagonal the packed matrix holds something else.
    for (let i = 0; i < w; i++) {
      for (let j = 0; j < w; j++) tile[i * w + j] = j >= i ? packed[(at + i) * n + at + j] : 0;
    }
    multiply(
      x.subarray(at) as T,
      tile,
      into,
      { m: rows, n: w, k: w },
      { strideA: n, strideC: n, beta: at > 0 ? 1 : 0, threads },
    );
  }
  return product;
}

/** `x·y` of every row of two matrices `[rows, n]`, in f64. */
export function rowProducts(x: Reals, y: Reals, rows: number, n: number): Float64Array {
  const products = new Float64Array(rows);
  for (let r = 0; r < rows; r++) {
    let sum = 0;
    for (let c = r * n; c < (r + 1) * n; c++) sum += x[c] * y[c];
    products[r] = sum;
  }
  return products;
}

/** `(W - Ŵ) H (W - Ŵ)ᵀ` of every row, from `W R` and `Ŵ R` or directly from the difference. */
export function hessianLosses(
  weights: Float64Array,
  decoded: Float64Array,
  rows: number,
  factor: HessianFactor,
): Float64Array {
  const change = weights.map((value, i) => value - decoded[i]);
  const reached = timesFactor(change, rows, factor);
  return rowProducts(reached, reached, rows, factor.n);
}

export interface RowRefit {
  /** Factor of every row's scale, `(Ŵ H wᵀ) / (Ŵ H Ŵᵀ)`; 1 for a row of zeros. */
  readonly factors: Float64Array;
  readonly before: Float64Array;
  /** Losses of the rows with those factors: never above `before`. */
  readonly after: Float64Array;
}

/**
 * Least-squares scale of every row in the metric of the Hessian, from `W R` and `Ŵ R` `[rows, n]`.
 */
export function refitRowScales(weightsR: Reals, decodedR: Reals, rows: number, n: number): RowRefit {
  const factors = new Float64Array(rows).fill(1);
  const before = new Float64Array(rows);
  const after = new Float64Array(rows);
  for (let r = 0; r < rows; r++) {
    let cross = 0;
    let square = 0;
    for (let c = r * n; c < (r + 1) * n; c++) {
      cross += decodedR[c] * weightsR[c];
      square += decodedR[c] * decodedR[c];
    }
    if (square > 0) factors[r] = cross / square;
    let kept = 0;
    let refitted = 0;
    for (let c = r * n; c < (r + 1) * n; c++) {
      kept += (weightsR[c] - decodedR[c]) ** 2;
      refitted += (weightsR[c] - factors[r] * decodedR[c]) ** 2;
    }
    before[r] = kept;
    after[r] = refitted;
  }
  return { factors, before, after };
}

/**
 * Joint least-squares gains of the groups of one row: `s = (B H Bᵀ)⁻¹ B H w`, with the group shapes of B at their
 * columns. Groups whose shape does not matter (zeros) keep gain 0.
 * @param shapes pulses of the row's groups, `[groups * D]`
 * @returns gains `[groups]`, so that a decoded group is `gain y`
 */
export function jointGains(
  weightsH: Float64Array,
  shapes: Int16Array | Float64Array,
  D: number,
  factor: HessianFactor,
): Float64Array {
  const { n } = factor;
  const groups = Math.ceil(n / D);
  const normal = new Float64Array(groups * groups);
  const right = new Float64Array(groups);
  const shapeH = new Float64Array(n);
  for (let a = 0; a < groups; a++) {
    const to = Math.min(n, (a + 1) * D);
    shapeH.fill(0, 0, to);
    for (let i = a * D; i < to; i++) {
      if (shapes[i] === 0) continue;
      right[a] += shapes[i] * weightsH[i];
      for (let j = 0; j < i; j++) shapeH[j] += shapes[i] * factor.packed[i * n + j];
      shapeH[i] += shapes[i] * factor.diagonal[i];
      for (let j = i + 1; j < to; j++) shapeH[j] += shapes[i] * factor.packed[j * n + i];
    }
    for (let b = 0; b <= a; b++) {
      let sum = 0;
      for (let j = b * D; j < Math.min(n, (b + 1) * D); j++) sum += shapeH[j] * shapes[j];
      normal[a * groups + b] = sum;
    }
    if (normal[a * groups + a] === 0) normal[a * groups + a] = 1;
  }
  const lower = cholesky(normal, groups);
  return lower === undefined ? new Float64Array(groups) : choleskySolve(lower, groups, right);
}

/** `W H` of rows `[rows, n]` with the damped Hessian, in f64: `(W R) Rᵀ`. */
export function timesHessian(
  weights: Float64Array,
  rows: number,
  factor: HessianFactor,
  threads?: number,
): Float64Array {
  const { n, packed } = factor;
  const half = timesFactor(weights, rows, factor, threads);
  const product = new Float64Array(rows * n);
  const tile = new Float64Array(TRIANGLE_TILE * TRIANGLE_TILE);
  for (let at = 0; at < n; at += TRIANGLE_TILE) {
    const w = Math.min(TRIANGLE_TILE, n - at);
    const into = product.subarray(at);
    for (let i = 0; i < w; i++) {
      for (let j = 0; j < w; j++) tile[i * w + j] = j >= i ? packed[(at + i) * n + at + j] : 0;
    }
    multiply(
      half.subarray(at),
      tile,
      into,
      { m: rows, n: w, k: w },
      { transposeB: true, strideA: n, strideC: n, threads },
    );
    if (at + w < n) {
      multiply(
        half.subarray(at + w),
        packed.subarray(at * n + at + w),
        into,
        { m: rows, n: w, k: n - at - w },
        { transposeB: true, strideA: n, strideB: n, strideC: n, beta: 1, threads },
      );
    }
  }
  return product;
}

/** Losses of every row with the joint least-squares gains of its groups, unquantised. */
export function gainRefitLosses(
  weights: Float64Array,
  rows: number,
  pulses: Int16Array,
  D: number,
  factor: HessianFactor,
): Float64Array {
  const { n } = factor;
  const stride = Math.ceil(n / D) * D;
  const weightsH = timesHessian(weights, rows, factor);
  const decoded = new Float64Array(rows * n);
  for (let r = 0; r < rows; r++) {
    const shapes = pulses.subarray(r * stride, (r + 1) * stride);
    const gains = jointGains(weightsH.subarray(r * n, (r + 1) * n), shapes, D, factor);
    for (let c = 0; c < n; c++) decoded[r * n + c] = gains[Math.floor(c / D)] * shapes[c];
  }
  return hessianLosses(weights, decoded, rows, factor);
}
