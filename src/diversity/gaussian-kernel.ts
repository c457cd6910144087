import { type FeatureMatrix, loadMatrix } from '../formats/feature-matrix.js';
import { gaussianPowerSum, scalePoints } from '../linalg/gaussian-tiles.js';
import { squaredDistances } from '../linalg/gram.js';
import type { TiledProducts } from '../linalg/tiled-products.js';
import type { SpectralSource } from './feature-source.js';
import type { KernelSource } from './kernel-source.js';

/** `exp(-|x_i - x_j|^2 / (2 sigma^2))` `[n, n]`, with a diagonal of exactly 1. */
export async function gaussianGram(
  x: Float64Array,
  n: number,
  d: number,
  sigma: number,
  products: TiledProducts,
): Promise<Float64Array> {
  const k = await squaredDistances(x, n, d, products);
  const factor = -1 / (2 * sigma * sigma);
  for (let i = 0; i < k.length; i++) k[i] = Math.exp(k[i] * factor);
  return k;
}

/** Up to this many items IntDiv of a Gaussian kernel takes all pairs; beyond, a sample of them. */
const MOST_PAIRED = 20_000;

/**
 * A source whose spectrum is approximate, with the Gaussian kernel itself where pairs of items are asked for: IntDiv does
 * not inherit the error of random features or landmarks.
 */
export function withGaussianPairs(
  source: SpectralSource,
  matrix: FeatureMatrix,
  sigma: number,
  products: TiledProducts,
  weights?: Float64Array,
): KernelSource {
  const { rows: n, columns: d } = matrix;
  return {
    ...source,
    async meanPower(q) {
      if (n > MOST_PAIRED) return undefined;
      const points = scalePoints({ data: loadMatrix(matrix), n, d }, sigma);
      return gaussianPowerSum(points, weights ?? new Float64Array(n).fill(1 / n), q, { products });
    },
    similarity(i, j) {
      const pair = loadMatrix(matrix, Int32Array.of(i, j));
      let squares = 0;
      for (let c = 0; c < d; c++) squares += (pair[c] - pair[d + c]) ** 2;
      return Math.exp(-squares / (2 * sigma * sigma));
    },
  };
}
