import { directSquaredDistances } from '../../src/linalg/point-distances.js';
import {
  gaussianAdjacencyEntropyBits,
  neighbourAdjacencyEntropyBits,
} from '../../src/representations/adjacency-entropy.js';
import { binnedEntropy } from '../../src/representations/binned-entropy.js';
import { diffusionSpectrum } from '../../src/representations/diffusion-entropy.js';
import {
  type DiffusionOperator,
  diffusionOperator,
  gaussianKernel,
  matrixEntryEntropyBits,
} from '../../src/representations/diffusion-kernel.js';
import { spectralEntropy } from '../../src/representations/spectral-entropy.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, shapeOf, tensor } from './tensors.js';

/** Eigenvalues that the cases list. */
const LISTED = 12;

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const x = float64(inputs.X, 'X');
  const [n, d] = shapeOf(inputs.X, 'X');
  const sigma = number(inputs.sigma, 'sigma');
  const bins = inputs.num_bins_per_dim === undefined ? 2 : number(inputs.num_bins_per_dim, 'num_bins_per_dim');
  const distances = (): Float64Array => directSquaredDistances(x, n, d);
  const gaussian = (): Float64Array => {
    const matrix = distances();
    gaussianKernel(matrix, n, sigma);
    return matrix;
  };
  const spectrum = (operator: DiffusionOperator): Float64Array =>
    diffusionSpectrum(gaussian(), n, operator).eigenvalues;
  const diffusion = (): Float64Array => {
    const matrix = gaussian();
    diffusionOperator(matrix, n, 'K');
    return matrix;
  };
  const listed = (values: Float64Array): unknown => {
    const top = values.slice(0, Math.min(LISTED, n));
    return tensor([top.length], top);
  };
  const figure = (key: string): unknown => {
    const powered = /^dse_t([\d.]+)_bits$/.exec(key);
    if (powered) return spectralEntropy(spectrum('K'), Number(powered[1])).bits;
    const stochastic = /^dse_from_true_P_t([\d.]+)_bits$/.exec(key);
    if (stochastic) return spectralEntropy(spectrum('P'), Number(stochastic[1])).bits;
    const neighbours = /^ase_knn(\d+)_bits$/.exec(key);
    if (neighbours) return neighbourAdjacencyEntropyBits(distances(), n, Number(neighbours[1]));
    switch (key) {
      case 'kernel_matrix_K_first_row': {
        const matrix = diffusion();
        return tensor(
          [n],
          Array.from({ length: n }, (_, j) => matrix[j * n]),
        );
      }
      case 'top_eigenvalues_K':
        return listed(spectrum('K'));
      case 'top_eigenvalues_row_stochastic_P_abs':
        return listed(spectrum('P').map(Math.abs).sort().reverse());
      case 'matrix_entry_entropy_bits':
        return matrixEntryEntropyBits(diffusion(), n);
      case 'classic_shannon_bits':
        return binnedEntropy(x, n, d, bins, 'error').bits;
      case 'ase_gaussian_bits':
        return gaussianAdjacencyEntropyBits(gaussian(), n, false);
      case 'ase_anisotropic_bits':
        return gaussianAdjacencyEntropyBits(gaussian(), n, true);
      default:
        return undefined;
    }
  };
  return Object.fromEntries(keysOf(wanted).map((key) => [key, figure(key)]));
}
