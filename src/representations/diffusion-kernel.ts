import { symmetricRankK } from '../kernels/gemm.js';
import { gaussianTile } from '../kernels/kernel-tiles.js';
import { squaredDistances } from '../linalg/gram.js';
import type { TiledProducts } from '../linalg/tiled-products.js';
import { centredPoints, doubles, type PointCloud } from './points.js';

/**
 * Dense kernels of a point cloud. All of them live in one array `[n, n]`, row-major, of which only the lower triangle
 * (diagonal included) holds the matrix: each step overwrites the one before.
 */

/** Which matrix's spectrum is taken: that of K, as the reference does, or that of P = diag(K1)^-1 K, which it names. */
export type DiffusionOperator = 'K' | 'P';

/**
 * `exp(-D^2 / (2 s^2))` from squared distances, in place. The factor `1/(s sqrt(2 pi))` of the reference cancels in K, P
 * and every normalised spectrum, and is left out.
 * @param sigma bandwidth s, > 0
 */
export function gaussianKernel(squaredDistances: Float64Array, n: number, sigma: number): void {
  const scale = -0.5 / (sigma * sigma);
  for (let i = 0; i < n; i++) {
    const row = i * n;
    for (let j = 0; j < i; j++) squaredDistances[row + j] = Math.exp(scale * squaredDistances[row + j]);
    squaredDistances[row + i] = 1;
  }
}

/** Squared norms, in bandwidths, up to which inner products give the kernel to 1e-12. */
const MOST_SQUARED_NORM = 1e4;

/**
 * The Gaussian kernel of points, lower triangle of `[n, n]`. From inner products of the centred points where their size
 * allows it: rounding of `|x|^2 / s^2` is an error of the exponent, and so a relative one of the kernel. Otherwise from
 * distances that keep the digits of near pairs.
 */
export async function gaussianKernelOfPoints(
  cloud: PointCloud,
  sigma: number,
  products: TiledProducts,
): Promise<Float64Array> {
  const { data, n, d } = cloud;
  const { threads } = products;
  const centred = centredPoints(data, n, d);
  const kernel = symmetricRankK(centred, new Float64Array(n * n), { n, k: d }, { threads });
  const halfNorms = Float64Array.from({ length: n }, (_, i) => kernel[i * (n + 1)] / 2);
  if (halfNorms.every((half) => 2 * half <= MOST_SQUARED_NORM * sigma * sigma)) {
    gaussianTile({ data: kernel, rows: n, columns: n }, halfNorms, halfNorms, 1 / (sigma * sigma), { threads });
    return kernel;
  }
  const distances = await squaredDistances(doubles(cloud), n, d, products);
  gaussianKernel(distances, n, sigma);
  return distances;
}

/** Row sums of a symmetric matrix given by its lower triangle. */
export function degrees(matrix: Float64Array, n: number): Float64Array {
  const sums = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const row = i * n;
    let own = 0;
    for (let j = 0; j < i; j++) {
      own += matrix[row + j];
      sums[j] += matrix[row + j];
    }
    sums[i] += own + matrix[row + i];
  }
  return sums;
}

/** `A_ij / sqrt(deg_i deg_j)` of the lower triangle, in place. Returns the degrees that were divided by. */
export function normaliseByDegrees(matrix: Float64Array, n: number): Float64Array {
  const sums = degrees(matrix, n);
  const factors = sums.map((sum) => 1 / Math.sqrt(sum));
  for (let i = 0; i < n; i++) {
    const row = i * n;
    const factor = factors[i];
    for (let j = 0; j <= i; j++) matrix[row + j] *= factor * factors[j];
  }
  return sums;
}

/**
 * Turns a Gaussian kernel G into a matrix with the eigenvalues of the diffusion operator, in place. Returns the row sums
 * of G.
 *
 * K: `G_ij / sqrt(deg_i deg_j)`, deg = G1, the reference's choice. P: `diag(K1)^-1 K` through the symmetric
 * `diag(K1)^-1/2 K diag(K1)^-1/2`, which is similar to it. The spectra differ unless all row sums of K are 1.
 */
export function diffusionOperator(gaussian: Float64Array, n: number, operator: DiffusionOperator): Float64Array {
  const sums = normaliseByDegrees(gaussian, n);
  if (operator === 'P') normaliseByDegrees(gaussian, n);
  return sums;
}

/**
 * Mean of `G_ij / G_ii` over i != j, from the row sums of G: 1 when no distance counts, 0 when every point is alone. NaN
 * for one point.
 */
export function meanSimilarityOf(degrees: Float64Array): number {
  const n = degrees.length;
  const total = degrees.reduce((sum, degree) => sum + (degree - 1), 0);
  return n < 2 ? Number.NaN : total / (n * (n - 1));
}

/**
 * Entropy, bits, of all n^2 entries of `P = diag(K1)^-1 K`, normalised to sum to 1: each row of P sums to 1, so that
 * p_ij = P_ij / n.
 * @param diffusion K, lower triangle
 */
export function matrixEntryEntropyBits(diffusion: Float64Array, n: number): number {
  if (n === 0) return 0;
  const sums = degrees(diffusion, n);
  let total = 0;
  for (let i = 0; i < n; i++) {
    let row = 0;
    for (let j = 0; j <= i; j++) {
      const value = diffusion[i * n + j];
      if (value === 0) continue;
      const ofRow = value / sums[i];
      row -= ofRow * Math.log(ofRow);
      if (i !== j) {
        const ofColumn = value / sums[j];
        row -= ofColumn * Math.log(ofColumn);
      }
    }
    total += row;
  }
  return Math.max(0, (total / n + Math.log(n)) / Math.LN2);
}
