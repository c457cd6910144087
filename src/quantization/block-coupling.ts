import { multiply } from '../kernels/gemm.js';
import type { HessianFactor } from './hessian.js';

type Reals = Float32Array | Float64Array;

/**
 * How the change of one block of columns moves the targets of others: `target_rest += change_b C_b,rest`, and the metric
 * in which a block is quantised, `(a - ŵ) M_b (a - ŵ)ᵀ`.
 */
export interface BlockCoupling<T extends Reals = Reals> {
  readonly n: number;
  /** D, columns of a block; the last one may be shorter. */
  readonly blockColumns: number;
  /** C `[n, n]`; blocks on the diagonal are the identity. */
  readonly matrix: T;
  /** M_b `[blocks, D, D]`, row-major, padded with zeros where the last block is shorter. */
  readonly metrics: Float64Array;
}

/** Inverse `[w, w]` of the upper triangular block at (`at`, `at`) of a matrix with rows of n. */
function invertUpperBlock(a: Float64Array, n: number, at: number, w: number): Float64Array {
  const inverse = new Float64Array(w * w);
  for (let j = 0; j < w; j++) {
    inverse[j * w + j] = 1 / a[(at + j) * n + at + j];
    for (let i = j - 1; i >= 0; i--) {
      let sum = 0;
      for (let k = i + 1; k <= j; k++) sum += a[(at + i) * n + at + k] * inverse[k * w + j];
      inverse[i * w + j] = -sum / a[(at + i) * n + at + i];
    }
  }
  return inverse;
}

/** Writes `source [rows, w]` to columns from `at` of a matrix with rows of n. */
function setColumns(target: Reals, n: number, at: number, source: Float64Array, rows: number, w: number): void {
  for (let r = 0; r < rows; r++) for (let c = 0; c < w; c++) target[r * n + at + c] = source[r * w + c];
}

/**
 * Coupling of error feedback, `C_jb = R_jb R_bb⁻¹` for j < b: the block-unit-upper factor of `H = C diag(M_b) Cᵀ` with
 * `M_b = R_bb R_bbᵀ = U_bb⁻¹ U_bb⁻ᵀ` (the LDL of QuIP#, Tseng et al. 2024, section 4.2, on reversed columns). A change
 * `W_b - Ŵ_b` of the original weights, so coupled, gives the targets of GPTQ without a solve a block.
 * @param matrix `[n, n]`, zeros, filled here; its width is that of the updates
 */
export function feedbackCoupling<T extends Reals>(
  factor: HessianFactor,
  blockColumns: number,
  matrix: T,
  threads?: number,
): BlockCoupling<T> {
  const { n, packed } = factor;
  const blocks = Math.ceil(n / blockColumns);
  const metrics = new Float64Array(blocks * blockColumns * blockColumns);
  const above = new Float64Array(n * blockColumns);
  for (let b = 0; b < blocks; b++) {
    const at = b * blockColumns;
    const w = Math.min(blockColumns, n - at);
    const metric = metrics.subarray(b * blockColumns * blockColumns);
    for (let i = 0; i < w; i++) {
      matrix[(at + i) * n + at + i] = 1;
      for (let j = 0; j <= i; j++) {
        let sum = 0;
        for (let k = i; k < w; k++) sum += packed[(at + i) * n + at + k] * packed[(at + j) * n + at + k];
        metric[i * blockColumns + j] = sum;
        metric[j * blockColumns + i] = sum;
      }
    }
    if (at === 0) continue;
    const inverse = invertUpperBlock(packed, n, at, w);
    multiply(packed.subarray(at), inverse, above, { m: at, n: w, k: w }, { strideA: n, strideC: w, threads });
    setColumns(matrix, n, at, above, at, w);
  }
  return { n, blockColumns, matrix, metrics };
}

/** Entry (i, j) of the damped Hessian. */
function hessianEntry(factor: HessianFactor, i: number, j: number): number {
  if (i === j) return factor.diagonal[i];
  return i > j ? factor.packed[i * factor.n + j] : factor.packed[j * factor.n + i];
}

/** Inverse of a symmetric positive definite block `[w, w]`, rows `stride` apart, by Gauss-Jordan without pivots. */
export function invertBlock(block: Float64Array, stride: number, w: number): Float64Array {
  const a = new Float64Array(w * w);
  for (let i = 0; i < w; i++) for (let j = 0; j < w; j++) a[i * w + j] = block[i * stride + j];
  for (let p = 0; p < w; p++) {
    const pivot = 1 / a[p * w + p];
    for (let i = 0; i < w; i++) {
      if (i === p) continue;
      const factor = a[i * w + p] * pivot;
      for (let j = 0; j < w; j++) if (j !== p) a[i * w + j] -= factor * a[p * w + j];
      a[i * w + p] = -factor;
    }
    for (let j = 0; j < w; j++) a[p * w + j] *= pivot;
    a[p * w + p] = pivot;
  }
  return a;
}

/**
 * Coupling of coordinate descent, `C_jb = H_jb H_bb⁻¹` for all j, with `M_b = H_bb`: with `V = (W - Ŵ) C`, the target
 * of block b is `Ŵ_b + V_b` (QuIP#, `quip_tune_iters`).
 * @param matrix `[n, n]`, filled here
 */
export function descentCoupling<T extends Reals>(
  factor: HessianFactor,
  blockColumns: number,
  matrix: T,
  threads?: number,
): BlockCoupling<T> {
  const { n } = factor;
  const blocks = Math.ceil(n / blockColumns);
  const metrics = new Float64Array(blocks * blockColumns * blockColumns);
  const columns = new Float64Array(n * blockColumns);
  const product = new Float64Array(n * blockColumns);
  for (let b = 0; b < blocks; b++) {
    const at = b * blockColumns;
    const w = Math.min(blockColumns, n - at);
    const metric = metrics.subarray(b * blockColumns * blockColumns);
    for (let i = 0; i < n; i++) for (let c = 0; c < w; c++) columns[i * w + c] = hessianEntry(factor, i, at + c);
    for (let i = 0; i < w; i++) {
      for (let j = 0; j < w; j++) metric[i * blockColumns + j] = columns[(at + i) * w + j];
    }
    const inverse = invertBlock(metric, blockColumns, w);
    multiply(columns, inverse, product, { m: n, n: w, k: w }, { strideC: w, threads });
    setColumns(matrix, n, at, product, n, w);
    for (let i = 0; i < w; i++) {
      for (let j = 0; j < w; j++) matrix[(at + i) * n + at + j] = i === j ? 1 : 0;
    }
  }
  return { n, blockColumns, matrix, metrics };
}
