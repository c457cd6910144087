import { InputError } from '../errors.js';
import { eachBlock, type FeatureMatrix, loadMatrix } from '../formats/feature-matrix.js';
import { gaussianTile } from '../kernels/kernel-tiles.js';
import { createRandom } from '../random.js';
import { invertLower, pivotedCholesky } from './blocked-cholesky.js';
import { FEATURE_BLOCK, type FeatureMap } from './feature-map.js';
import { columnMeans, squaredDistances } from './gram.js';
import type { TiledProducts } from './tiled-products.js';

/** Gaussian `exp(-|x - y|²/2σ²)`, or the cosine of the rows. */
export type LandmarkKernel = { readonly kind: 'gaussian'; readonly sigma: number } | { readonly kind: 'cosine' };

/**
 * Landmarks whose squared distance, in the kernel's space, to the span of those before them is below this share of the
 * largest are dropped: they add rounding.
 */
export const NYSTROM_CUT = 1e-10;

export interface NystromMap extends FeatureMap {
  /** Rows of the landmarks, ascending. */
  readonly landmarks: Int32Array;
  /** Landmarks with pivots at most this were dropped. */
  readonly cut: number;
  readonly dropped: number;
}

/** `count` rows of n without replacement, ascending; all of them when there are no more. */
export function drawLandmarks(n: number, count: number, seed: number): Int32Array {
  if (count >= n) return Int32Array.from({ length: n }, (_, i) => i);
  return createRandom(seed).permutation(n).slice(0, count).sort();
}

function unitLength(rows: Float64Array, count: number, d: number, rowOf: (i: number) => number, name: string): void {
  for (let i = 0; i < count; i++) {
    let squares = 0;
    for (let k = i * d; k < (i + 1) * d; k++) squares += rows[k] * rows[k];
    if (squares === 0)
      throw new InputError(
        `${name}: row ${rowOf(i)} is all zeros and has no direction to compare; drop it or use another kernel`,
      );
    const length = Math.sqrt(squares);
    for (let k = i * d; k < (i + 1) * d; k++) rows[k] /= length;
  }
}

/** The kernel of the landmarks `[m, m]`. */
async function landmarkKernel(
  rows: Float64Array,
  m: number,
  d: number,
  kernel: LandmarkKernel,
  products: TiledProducts,
): Promise<Float64Array> {
  if (kernel.kind === 'cosine') return products.product(rows, m, rows, m, d);
  const gram = await squaredDistances(rows, m, d, products);
  const factor = -1 / (2 * kernel.sigma * kernel.sigma);
  return gram.map((squared) => Math.exp(factor * squared));
}

/**
 * Pivoted Cholesky factor of the landmarks' kernel: the landmarks that are kept, in the order of the pivots, and `L^{-1}`
 * `[kept, kept]` with `K = L L^T` over them.
 */
function inverseFactor(
  gram: Float64Array,
  m: number,
  threads: number,
): { root: Float64Array; pivots: Int32Array; cut: number } {
  let largest = 0;
  for (let i = 0; i < m; i++) largest = Math.max(largest, gram[i * (m + 1)]);
  const { factor, rank, pivots } = pivotedCholesky(gram, m, NYSTROM_CUT, { threads });
  const lower = new Float64Array(rank * rank);
  pivots.forEach((pivot, i) => {
    lower.set(factor.subarray(pivot * rank, pivot * rank + i + 1), i * rank);
  });
  return { root: invertLower(lower, rank, { threads }), pivots, cut: NYSTROM_CUT * largest };
}

const halfNorms = (rows: Float64Array, count: number, d: number): Float64Array =>
  Float64Array.from({ length: count }, (_, i) => {
    let squares = 0;
    for (let k = i * d; k < (i + 1) * d; k++) squares += rows[k] * rows[k];
    return squares / 2;
  });

/**
 * Nyström features (Williams & Seeger 2001) `K_nm L^{-T}` of landmarks m with the pivoted Cholesky factor `K_mm = L L^T`:
 * those of `K_mm^{-1/2}` up to a rotation, which no spectrum sees. Their inner products are the kernel on the landmarks
 * and a lower approximation elsewhere, so a covariance may miss the trace: divide by it. f64 throughout. O(n m (d + m)).
 * @throws InputError for a row of length zero under the cosine kernel
 */
export async function nystromMap(
  matrix: FeatureMatrix,
  kernel: LandmarkKernel,
  landmarks: Int32Array,
  products: TiledProducts,
): Promise<NystromMap> {
  const { columns: d, name } = matrix;
  const { threads } = products;
  const m = landmarks.length;
  const all = loadMatrix(matrix, landmarks);
  if (kernel.kind === 'cosine') unitLength(all, m, d, (i) => landmarks[i], name);
  const { root, pivots, cut } = inverseFactor(await landmarkKernel(all, m, d, kernel, products), m, threads);
  const kept = pivots.length;
  const chosen = new Float64Array(kept * d);
  pivots.forEach((pivot, i) => {
    chosen.set(all.subarray(pivot * d, (pivot + 1) * d), i * d);
  });
  const centre = kernel.kind === 'gaussian' ? columnMeans(chosen, kept, d) : new Float64Array(d);
  const scale = kernel.kind === 'gaussian' ? 1 / kernel.sigma : 1;
  const place = (rows: Float64Array, count: number): void => {
    for (let i = 0; i < count; i++) for (let k = 0; k < d; k++) rows[i * d + k] = (rows[i * d + k] - centre[k]) * scale;
  };
  place(chosen, kept);
  const chosenNorms = halfNorms(chosen, kept, d);
  const over = (points: FeatureMatrix): FeatureMap => ({
    n: points.rows,
    features: kept,
    name: `${m} landmarks${kernel.kind === 'gaussian' ? ` at sigma ${kernel.sigma}` : ''}`,
    remedy: 'raise the number of landmarks, raise sigma, or take another method',
    async eachBlock(visit) {
      const most = Math.min(points.rows, FEATURE_BLOCK);
      const similarities = new Float64Array(kept * most);
      const features = new Float64Array(kept * most);
      await eachBlock(points, FEATURE_BLOCK, 'f64', async (block: Float64Array, start, count) => {
        if (kernel.kind === 'cosine') unitLength(block, count, d, (i) => start + i, points.name);
        place(block, count);
        await products.product(chosen, kept, block, count, d, similarities);
        if (kernel.kind === 'gaussian') {
          const tile = { data: similarities, rows: kept, columns: count };
          gaussianTile(tile, chosenNorms, halfNorms(block, count, d), 1, { threads });
        }
        await products.multiply('nn', root, similarities, { m: kept, n: count, k: kept }, features);
        await visit(features.subarray(0, kept * count), start, count);
      });
    },
    over,
  });
  return { ...over(matrix), landmarks, cut, dropped: m - kept };
}
