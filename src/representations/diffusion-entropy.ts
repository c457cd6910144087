import { symmetricSpectrum } from '../kernels/symmetric-spectrum.js';
import { type DiffusionOperator, diffusionOperator, meanSimilarityOf } from './diffusion-kernel.js';

/** All eigenvalues of a diffusion operator. */
export interface DiffusionSpectrum {
  /** Descending. */
  readonly eigenvalues: Float64Array;
  /** Mean of `G_ij / G_ii` over i != j. */
  readonly meanSimilarity: number;
}

/** Eigenvalues, descending, of a symmetric matrix given by its lower triangle, which is overwritten. */
export function descendingSpectrum(matrix: Float64Array, n: number, threads?: number): Float64Array {
  return symmetricSpectrum(matrix, n, threads === undefined ? {} : { threads }).reverse();
}

/**
 * Spectrum of the diffusion operator of a point cloud (Liao et al. 2023): of `K_ij = G_ij / sqrt(deg_i deg_j)`, and under
 * `P` of the same normalisation once more.
 * @param gaussian the kernel `G = exp(-D^2 / (2 s^2))` `[n, n]`, lower triangle; overwritten
 */
export function diffusionSpectrum(
  gaussian: Float64Array,
  n: number,
  operator: DiffusionOperator,
  threads?: number,
): DiffusionSpectrum {
  const degrees = diffusionOperator(gaussian, n, operator);
  return { eigenvalues: descendingSpectrum(gaussian, n, threads), meanSimilarity: meanSimilarityOf(degrees) };
}
