import { symmetricSpectrum } from '../kernels/symmetric-spectrum.js';
import { type DiffusionOperator, diffusionOperator, gaussianKernel, type KernelRange } from './diffusion-kernel.js';

/** All eigenvalues of a diffusion operator. */
export interface DiffusionSpectrum extends KernelRange {
  /** Descending. */
  readonly eigenvalues: Float64Array;
}

/** Eigenvalues, descending, of a symmetric matrix given by its lower triangle, which is overwritten. */
export function descendingSpectrum(matrix: Float64Array, n: number, threads?: number): Float64Array {
  return symmetricSpectrum(matrix, n, threads === undefined ? {} : { threads }).reverse();
}

/**
 * Spectrum of the diffusion operator of a point cloud (Liao et al. 2023): `G = exp(-D^2 / (2 s^2))`,
 * `K_ij = G_ij / sqrt(deg_i deg_j)`, and under `P` the same normalisation once more.
 * @param squaredDistances `[n, n]`, lower triangle; overwritten
 */
export function diffusionSpectrum(
  squaredDistances: Float64Array,
  n: number,
  sigma: number,
  operator: DiffusionOperator,
  threads?: number,
): DiffusionSpectrum {
  const range = gaussianKernel(squaredDistances, n, sigma);
  diffusionOperator(squaredDistances, n, operator);
  return { ...range, eigenvalues: descendingSpectrum(squaredDistances, n, threads) };
}
