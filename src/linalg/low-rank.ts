import { multiply } from '../kernels/gemm.js';
import { type TruncatedSvd, type TruncatedSvdOptions, truncatedSvd } from './randomized-svd.js';

type Floats = Float32Array | Float64Array;

/** W ~ L R, of a matrix W [rows, columns]. */
export interface LowRankFactors {
  readonly rank: number;
  /** U sqrt(Sigma), [rows, rank]. */
  readonly left: Float64Array;
  /** sqrt(Sigma) V^T, [rank, columns]. */
  readonly right: Float64Array;
  readonly svd: TruncatedSvd;
}

/**
 * The best approximation of rank r with its weight shared by both factors (LoSparse 2023; MC-SMoE 2023). The published rank,
 * ceil(rho h w / (h + w)) with rho = r0 (h + w) / (h w), is r0 itself but for the rounding of that product.
 * @throws RangeError as `truncatedSvd`
 */
export function lowRankFactors(
  weight: Floats,
  rows: number,
  columns: number,
  rank: number,
  options: TruncatedSvdOptions = {},
): LowRankFactors {
  const svd = truncatedSvd(weight, rows, columns, rank, options);
  const roots = svd.values.map(Math.sqrt);
  const left = svd.left.map((value, at) => value * roots[at % rank]);
  const right = new Float64Array(rank * columns);
  for (let i = 0; i < rank; i++) {
    for (let c = 0; c < columns; c++) right[i * columns + c] = svd.right[c * rank + i] * roots[i];
  }
  return { rank, left, right, svd };
}

/** Sizes of W [rows, columns] and of its factors. */
export interface FactorSizes {
  readonly rows: number;
  readonly columns: number;
  readonly rank: number;
}

/** L R, [rows, columns], of the precision of the factors. @throws RangeError when the sizes do not fit */
export function lowRankProduct(left: Floats, right: Floats, sizes: FactorSizes, threads?: number): Floats {
  const { rows, columns, rank } = sizes;
  const product = left instanceof Float32Array ? new Float32Array(rows * columns) : new Float64Array(rows * columns);
  if (rank === 0) return product;
  return multiply(left, right, product, { m: rows, n: columns, k: rank }, threads === undefined ? {} : { threads });
}

/**
 * S = W - L R, [rows, columns], as a reader of the factors multiplies them out; of the precision of the factors.
 * @throws RangeError when the sizes do not fit
 */
export function sparseResidual(
  weight: Floats,
  left: Floats,
  right: Floats,
  sizes: FactorSizes,
  threads?: number,
): Floats {
  const product = lowRankProduct(left, right, sizes, threads);
  for (let i = 0; i < product.length; i++) product[i] = weight[i] - product[i];
  return product;
}
