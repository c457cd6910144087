import { multiply } from '../kernels/gemm.js';
import type { BlockCoupling } from './block-coupling.js';

type Reals = Float32Array | Float64Array;

/** Columns whose errors are gathered before they move all that follows (Frantar et al. 2023, section 3.3). */
const LAZY_COLUMNS = 128;

/** Quantises blocks of columns of all rows; the machinery of error feedback knows no method. */
export interface BlockQuantizer<T extends Reals = Float32Array> {
  /** D, columns that are quantised together, without feedback between them. */
  readonly blockColumns: number;
  /**
   * Columns that share state fitted to what feedback has made of them (the scales of a group in GPTQ): a multiple of
   * `blockColumns`. Before the first block of every such group, `prepareGroup` sees the group as it is.
   */
  readonly groupColumns?: number;
  prepareGroup?(target: T, rows: number, column0: number, width: number): void;
  /**
   * Blocks come from left to right.
   * @param target `[rows, width]`, what the block should be
   * @param out `[rows, width]`, what it becomes
   */
  quantize(target: T, rows: number, column0: number, width: number, out: T): void;
}

export interface FeedbackResult<T extends Reals> {
  /** Ŵ `[rows, n]`. */
  readonly decoded: T;
  /** `(W - Ŵ) H (W - Ŵ)ᵀ` of every row, in f64, summed over blocks as `||(A_b - Ŵ_b) U_bb⁻¹||²`. */
  readonly losses: Float64Array;
}

/** The lazy block: the most columns up to 128 that whole blocks (and groups) fill, at least one of them. */
export function lazyColumns(blockColumns: number, groupColumns = blockColumns): number {
  return Math.max(groupColumns, Math.floor(LAZY_COLUMNS / groupColumns) * groupColumns);
}

/** Columns [at, at + w) of rows `stride` apart, as a matrix of their own. */
function takeColumns<T extends Reals>(source: T, rows: number, stride: number, at: number, w: number, into: T): T {
  for (let r = 0; r < rows; r++) for (let c = 0; c < w; c++) into[r * w + c] = source[r * stride + at + c];
  return into;
}

/** Adds `x M xᵀ` of every row of `target - chosen`. */
function addLosses(
  target: Reals,
  chosen: Reals,
  rows: number,
  w: number,
  metric: Float64Array,
  stride: number,
  losses: Float64Array,
): void {
  const error = new Float64Array(w);
  for (let r = 0; r < rows; r++) {
    let sum = 0;
    for (let i = 0; i < w; i++) error[i] = target[r * w + i] - chosen[r * w + i];
    for (let i = 0; i < w; i++) {
      let dot = 0;
      for (let j = 0; j < w; j++) dot += metric[i * stride + j] * error[j];
      sum += error[i] * dot;
    }
    losses[r] += sum;
  }
}

/**
 * Quantises weights `[rows, n]` block by block from left to right, every block towards the target that makes up for the
 * errors of those before it (GPTQ, Frantar et al. 2023; equal to LDLQ of QuIP, Chee et al. 2023, on reversed columns).
 * Rows are independent; the result does not depend on threads.
 * @param coupling of {@link feedbackCoupling}, of the quantizer's blocks
 */
export function feedErrors<T extends Reals>(
  weights: T,
  rows: number,
  coupling: BlockCoupling<T>,
  quantizer: BlockQuantizer<T>,
  options: { readonly threads?: number } = {},
): FeedbackResult<T> {
  const { n, blockColumns: D, matrix, metrics } = coupling;
  if (quantizer.blockColumns !== D) throw new RangeError(`blocks of ${quantizer.blockColumns} in a coupling of ${D}`);
  const group = quantizer.groupColumns ?? D;
  if (group % D !== 0) throw new RangeError(`groups of ${group} columns are not whole blocks of ${D}`);
  const make = (length: number): T => new (weights.constructor as { new (length: number): T })(length);
  const lazy = lazyColumns(D, group);
  const work = weights.slice() as T;
  const decoded = make(rows * n);
  const losses = new Float64Array(rows);
  const change = make(rows * lazy);
  const target = make(rows * D);
  const chosen = make(rows * D);
  const groupTarget = make(quantizer.prepareGroup === undefined ? 0 : rows * group);
  const { threads } = options;
  for (let from = 0; from < n; from += lazy) {
    const to = Math.min(from + lazy, n);
    for (let at = from; at < to; at += D) {
      const w = Math.min(D, n - at);
      if (quantizer.prepareGroup !== undefined && at % group === 0) {
        const wide = Math.min(group, n - at);
        quantizer.prepareGroup(takeColumns(work, rows, n, at, wide, groupTarget), rows, at, wide);
      }
      takeColumns(work, rows, n, at, w, target);
      quantizer.quantize(target, rows, at, w, chosen);
      addLosses(target, chosen, rows, w, metrics.subarray((at / D) * D * D), D, losses);
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < w; c++) {
          const value = chosen[r * w + c];
          decoded[r * n + at + c] = value;
          change[r * lazy + at - from + c] = weights[r * n + at + c] - value;
        }
      }
      const next = at + w;
      if (next < to) {
        multiply(
          change.subarray(at - from) as T,
          matrix.subarray(at * n + next) as T,
          work.subarray(next) as T,
          { m: rows, n: to - next, k: w },
          { strideA: lazy, strideB: n, strideC: n, beta: 1, threads },
        );
      }
    }
    if (to < n) {
      multiply(
        change,
        matrix.subarray(from * n + to) as T,
        work.subarray(to) as T,
        { m: rows, n: n - to, k: to - from },
        { strideA: lazy, strideB: n, strideC: n, beta: 1, threads },
      );
    }
  }
  return { decoded, losses };
}

/** Quantises weights `[rows, n]` block by block without feedback. */
export function nearestBlocks<T extends Reals>(weights: T, rows: number, n: number, quantizer: BlockQuantizer<T>): T {
  const { blockColumns: D, groupColumns: group = quantizer.blockColumns } = quantizer;
  const make = (length: number): T => new (weights.constructor as { new (length: number): T })(length);
  const decoded = make(rows * n);
  const target = make(rows * D);
  const chosen = make(rows * D);
  const groupTarget = make(quantizer.prepareGroup === undefined ? 0 : rows * group);
  for (let at = 0; at < n; at += D) {
    const w = Math.min(D, n - at);
    if (quantizer.prepareGroup !== undefined && at % group === 0) {
      const wide = Math.min(group, n - at);
      quantizer.prepareGroup(takeColumns(weights, rows, n, at, wide, groupTarget), rows, at, wide);
    }
    quantizer.quantize(takeColumns(weights, rows, n, at, w, target), rows, at, w, chosen);
    for (let r = 0; r < rows; r++) for (let c = 0; c < w; c++) decoded[r * n + at + c] = chosen[r * w + c];
  }
  return decoded;
}
