import { multiply } from '../kernels/gemm.js';
import type { HessianFactor } from './hessian.js';

type Reals = Float32Array | Float64Array;

/** Columns of a tile of a product with a triangular factor. */
const TRIANGLE_TILE = 256;

/**
 * Columns [at, at + w) of R `[at + w, w]` in the width of the products: below the diagonal, where the packed matrix holds
 * H, they are 0.
 */
function factorColumns(packed: Float64Array, n: number, at: number, w: number, panel: Reals): void {
  for (let i = 0; i < at; i++) for (let j = 0; j < w; j++) panel[i * w + j] = packed[i * n + at + j];
  for (let i = at; i < at + w; i++) {
    for (let j = 0; j < w; j++) panel[i * w + j] = at + j >= i ? packed[i * n + at + j] : 0;
  }
}

/**
 * `X R` of rows `[rows, n]` with the upper triangular factor, `||x R||² = x H xᵀ`, in the precision of X; what R does not
 * have is skipped.
 */
export function timesFactor<T extends Reals>(x: T, rows: number, factor: HessianFactor, threads?: number): T {
  const { n, packed } = factor;
  const make = (length: number): T => new (x.constructor as { new (length: number): T })(length);
  const product = make(rows * n);
  const panel = make(n * Math.min(n, TRIANGLE_TILE));
  for (let at = 0; at < n; at += TRIANGLE_TILE) {
    const w = Math.min(TRIANGLE_TILE, n - at);
    factorColumns(packed, n, at, w, panel);
    multiply(x, panel, product.subarray(at) as T, { m: rows, n: w, k: at + w }, { strideA: n, strideC: n, threads });
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
 * Least-squares scale of every row in the metric of the Hessian.
 * @param weightsR `W R`, `[rows, n]`
 * @param reach `(W - Ŵ) R`, `[rows, n]`
 */
export function refitRowScales(weightsR: Reals, reach: Reals, rows: number, n: number): RowRefit {
  const factors = new Float64Array(rows).fill(1);
  const before = new Float64Array(rows);
  const after = new Float64Array(rows);
  for (let r = 0; r < rows; r++) {
    let cross = 0;
    let square = 0;
    for (let c = r * n; c < (r + 1) * n; c++) {
      const decoded = weightsR[c] - reach[c];
      cross += decoded * weightsR[c];
      square += decoded * decoded;
      before[r] += reach[c] * reach[c];
    }
    if (square > 0) factors[r] = cross / square;
    after[r] = scaledLoss(weightsR, reach, r, n, factors[r]);
  }
  return { factors, before, after };
}

/** Loss of row r when its decoded weights are multiplied by `factor`. */
export function scaledLoss(weightsR: Reals, reach: Reals, r: number, n: number, factor: number): number {
  let loss = 0;
  for (let c = r * n; c < (r + 1) * n; c++) loss += (weightsR[c] - factor * (weightsR[c] - reach[c])) ** 2;
  return loss;
}

/** `W H` of rows `[rows, n]` with the damped Hessian, `(W R) Rᵀ`, from `W R`, in its precision. */
export function timesHessian<T extends Reals>(weightsR: T, rows: number, factor: HessianFactor, threads?: number): T {
  const { n, packed } = factor;
  const make = (length: number): T => new (weightsR.constructor as { new (length: number): T })(length);
  const product = make(rows * n);
  const panel = make(n * Math.min(n, TRIANGLE_TILE));
  for (let at = 0; at < n; at += TRIANGLE_TILE) {
    const w = Math.min(TRIANGLE_TILE, n - at);
    factorColumns(packed, n, at, w, panel);
    const reached = weightsR.subarray(at) as T;
    multiply(
      reached,
      panel,
      product,
      { m: rows, n: at + w, k: w },
      { transposeB: true, strideA: n, strideC: n, beta: 1, threads },
    );
  }
  return product;
}
