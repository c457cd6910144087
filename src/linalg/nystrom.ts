import { InputError } from '../errors.js';
import { eachBlock, type FeatureMatrix, loadMatrix } from '../formats/feature-matrix.js';
import { gaussianTile } from '../kernels/kernel-tiles.js';
import { createRandom } from '../random.js';
import { FEATURE_BLOCK, type FeatureMap } from './feature-map.js';
import { columnMeans, squaredDistances } from './gram.js';
import { symmetricEigen } from './symmetric-eigen.js';
import type { TiledProducts } from './tiled-products.js';

/** Gaussian `exp(-|x - y|²/2σ²)`, or the cosine of the rows. */
export type LandmarkKernel = { readonly kind: 'gaussian'; readonly sigma: number } | { readonly kind: 'cosine' };

/** Eigenvalues of the landmarks' kernel below this share of the largest are dropped: their directions are rounding. */
export const NYSTROM_CUT = 1e-10;

export interface NystromMap extends FeatureMap {
  /** Rows of the landmarks, ascending. */
  readonly landmarks: Int32Array;
  /** Eigenvalues of the landmarks' kernel at most this were dropped. */
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

/** `U diag(λ^{-1/2})` over the eigenvalues above the cut, transposed `[kept, m]`. */
function inverseRoot(gram: Float64Array, m: number): { root: Float64Array; kept: number; cut: number } {
  const { values, vectors } = symmetricEigen(gram, m);
  const cut = NYSTROM_CUT * values[m - 1];
  const first = values.findIndex((value) => value > cut);
  const root = vectors.slice(first * m);
  for (let i = first; i < m; i++) {
    const scale = 1 / Math.sqrt(values[i]);
    for (let k = 0; k < m; k++) root[(i - first) * m + k] *= scale;
  }
  return { root, kept: m - first, cut };
}

const halfNorms = (rows: Float64Array, count: number, d: number): Float64Array =>
  Float64Array.from({ length: count }, (_, i) => {
    let squares = 0;
    for (let k = i * d; k < (i + 1) * d; k++) squares += rows[k] * rows[k];
    return squares / 2;
  });

/**
 * Nyström features `K_nm K_mm^{-1/2}` (Williams & Seeger 2001) of landmarks m, up to a rotation: the coordinates along the
 * eigenvectors of K_mm whose eigenvalues are above the cut. Their inner products are the kernel on the landmarks and a
 * lower approximation elsewhere, so a covariance may miss the trace: divide by it. f64 throughout. O(n m (d + m)).
 * @throws InputError for a row of length zero under the cosine kernel
 */
export async function nystromMap(
  matrix: FeatureMatrix,
  kernel: LandmarkKernel,
  landmarks: Int32Array,
  products: TiledProducts,
): Promise<NystromMap> {
  const { rows: n, columns: d, name } = matrix;
  const { threads } = products;
  const m = landmarks.length;
  const chosen = loadMatrix(matrix, landmarks);
  if (kernel.kind === 'cosine') unitLength(chosen, m, d, (i) => landmarks[i], name);
  const { root, kept, cut } = inverseRoot(await landmarkKernel(chosen, m, d, kernel, products), m);
  const centre = kernel.kind === 'gaussian' ? columnMeans(chosen, m, d) : new Float64Array(d);
  const scale = kernel.kind === 'gaussian' ? 1 / kernel.sigma : 1;
  const place = (rows: Float64Array, count: number): void => {
    for (let i = 0; i < count; i++) for (let k = 0; k < d; k++) rows[i * d + k] = (rows[i * d + k] - centre[k]) * scale;
  };
  place(chosen, m);
  const chosenNorms = halfNorms(chosen, m, d);
  return {
    n,
    features: kept,
    name: `${m} landmarks${kernel.kind === 'gaussian' ? ` at sigma ${kernel.sigma}` : ''}`,
    remedy: 'raise the number of landmarks, raise sigma, or take another method',
    landmarks,
    cut,
    dropped: m - kept,
    async eachBlock(visit) {
      const similarities = new Float64Array(m * Math.min(n, FEATURE_BLOCK));
      const features = new Float64Array(kept * Math.min(n, FEATURE_BLOCK));
      await eachBlock(matrix, FEATURE_BLOCK, 'f64', async (block: Float64Array, start, count) => {
        if (kernel.kind === 'cosine') unitLength(block, count, d, (i) => start + i, name);
        place(block, count);
        await products.product(chosen, m, block, count, d, similarities);
        if (kernel.kind === 'gaussian') {
          const tile = { data: similarities, rows: m, columns: count };
          gaussianTile(tile, chosenNorms, halfNorms(block, count, d), 1, { threads });
        }
        await products.multiply('nn', root, similarities, { m: kept, n: count, k: m }, features);
        await visit(features.subarray(0, kept * count), start, count);
      });
    },
  };
}
