import { eigenvaluesByComponents } from '../linalg/general-eigenvalues.js';
import { selectSmallest } from '../linalg/point-distances.js';
import { descendingSpectrum } from './diffusion-entropy.js';
import { normaliseByDegrees } from './diffusion-kernel.js';
import { spectralEntropy } from './spectral-entropy.js';

/**
 * Entropy, bits, of the absolute eigenvalues of an adjacency matrix of a point cloud: the Gaussian kernel, or that kernel
 * over `sqrt(deg_i deg_j)` (anisotropic), which is the matrix K of the diffusion entropy at t = 1.
 * @param gaussian `[n, n]`, lower triangle; overwritten
 */
export function gaussianAdjacencyEntropyBits(
  gaussian: Float64Array,
  n: number,
  anisotropic: boolean,
  threads?: number,
): number {
  if (anisotropic) normaliseByDegrees(gaussian, n);
  return spectralEntropy(descendingSpectrum(gaussian, n, threads), 1).bits;
}

/**
 * Directed graph of neighbours `[n, n]`: `A_ij = 1` where `D_ij` is at most the k-th smallest of row i. The point itself
 * counts as one of the k; ties add neighbours.
 * @param squaredDistances `[n, n]`, whole
 */
export function neighbourGraph(squaredDistances: Float64Array, n: number, k: number): Float64Array {
  const graph = new Float64Array(n * n);
  const row = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    row.set(squaredDistances.subarray(i * n, (i + 1) * n));
    const reach = selectSmallest(row, k - 1);
    for (let j = 0; j < n; j++) if (squaredDistances[i * n + j] <= reach) graph[i * n + j] = 1;
  }
  return graph;
}

/**
 * Entropy, bits, of the moduli of the eigenvalues of the neighbour graph, which is not symmetrised. Such a matrix can be
 * defective: its zero eigenvalues are then known to a root of the rounding error only, and the entropy to about 1e-4.
 * @param squaredDistances `[n, n]`, whole
 * @param k neighbours, the point itself included; 1..n
 */
export function neighbourAdjacencyEntropyBits(squaredDistances: Float64Array, n: number, k: number): number {
  const { real, imaginary } = eigenvaluesByComponents(neighbourGraph(squaredDistances, n, k), n);
  const moduli = real.map((value, i) => Math.hypot(value, imaginary[i]));
  return spectralEntropy(moduli, 1).bits;
}
