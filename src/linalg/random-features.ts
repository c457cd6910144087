import { eachBlock, type FeatureMatrix, type Floats } from '../formats/feature-matrix.js';
import { cosSinFeatures } from '../kernels/kernel-tiles.js';
import { symmetricSpectrum } from '../kernels/symmetric-spectrum.js';
import { createRandom } from '../random.js';
import { FEATURE_BLOCK, type FeatureMap } from './feature-map.js';
import { columnMeans } from './gram.js';
import type { TiledProducts } from './tiled-products.js';

/**
 * Frequencies ω_r ~ N(0, I/σ²) of the Gaussian kernel `exp(-|x - y|²/2σ²)`, `[d, frequencies]`: column r is ω_r. Each
 * frequency has a stream of its own, so that the first half of a draw is the draw of half as many.
 * @param draw another independent set of the same seed
 */
export function drawFrequencies(d: number, frequencies: number, sigma: number, seed: number, draw = 0): Float64Array {
  const omega = new Float64Array(d * frequencies);
  const stream = createRandom(seed).fork(draw);
  for (let r = 0; r < frequencies; r++) {
    const random = stream.fork(r);
    for (let k = 0; k < d; k++) omega[k * frequencies + r] = random.normal() / sigma;
  }
  return omega;
}

export interface FourierOptions {
  readonly products: TiledProducts;
  /** Arithmetic of angles and features. Default f64. */
  readonly precision?: 'f32' | 'f64';
  /** For messages. */
  readonly sigma?: number;
  /** Where the points are shifted to `[d]`; the mean of the first rows when absent. */
  readonly centre?: Float64Array;
}

/** The mean of the first rows. */
function firstMean(matrix: FeatureMatrix): Float64Array {
  const { rows, columns } = matrix;
  const count = Math.min(rows, FEATURE_BLOCK);
  const block = new Float64Array(count * columns);
  matrix.readRows(0, count, block);
  return columnMeans(block, count, columns);
}

/**
 * Random Fourier features (Rahimi & Recht 2007) `φ(x) = [cos ωᵀx, sin ωᵀx]/√D`: every point has length 1, and φ(x)·φ(y)
 * is the Gaussian kernel up to 1/√D. Features 0..D-1 are cosines, the next D sines of the same frequencies. Points are
 * shifted by the mean of the first rows, which rotates every pair of features and changes no product, so that f32 keeps
 * the digits of data far from the origin.
 * @param omega `[d, D]`, column r a frequency
 */
export function fourierMap(
  matrix: FeatureMatrix,
  omega: Float64Array,
  frequencies: number,
  options: FourierOptions,
): FeatureMap {
  const { products, precision = 'f64', sigma, centre = firstMean(matrix) } = options;
  const { rows: n, columns: d } = matrix;
  if (omega.length !== d * frequencies)
    throw new RangeError(`${omega.length} entries are no ${frequencies} frequencies of ${d} dimensions`);
  const floats = (length: number): Floats =>
    precision === 'f32' ? new Float32Array(length) : new Float64Array(length);
  const transposed = floats(omega.length);
  for (let r = 0; r < frequencies; r++) for (let k = 0; k < d; k++) transposed[r * d + k] = omega[k * frequencies + r];
  return {
    n,
    features: 2 * frequencies,
    name: `${frequencies} random frequencies${sigma === undefined ? '' : ` at sigma ${sigma}`}`,
    remedy: 'raise the number of frequencies, raise sigma, or take another method',
    async eachBlock(visit) {
      const most = Math.min(n, FEATURE_BLOCK);
      const shifted = floats(most * d);
      const angles = floats(most * frequencies);
      const features = floats(2 * most * frequencies);
      await eachBlock(matrix, FEATURE_BLOCK, precision, async (block: Floats, start, count) => {
        for (let i = 0; i < count; i++) for (let k = 0; k < d; k++) shifted[i * d + k] = block[i * d + k] - centre[k];
        await products.product(transposed, frequencies, shifted, count, d, angles);
        const tile = { data: angles, rows: frequencies, columns: count };
        cosSinFeatures(tile, 1 / Math.sqrt(frequencies), features, { threads: products.threads });
        await visit(features.subarray(0, 2 * frequencies * count), start, count);
      });
    },
    over: (points) => fourierMap(points, omega, frequencies, { ...options, centre }),
  };
}

/** Rows and columns `indices` of a matrix of order n, times `factor`. */
function principalPart(matrix: Float64Array, n: number, indices: readonly number[], factor: number): Float64Array {
  const m = indices.length;
  const part = new Float64Array(m * m);
  for (let i = 0; i < m; i++)
    for (let j = 0; j < m; j++) part[i * m + j] = factor * matrix[indices[i] * n + indices[j]];
  return part;
}

/**
 * Eigenvalues, ascending, of the covariance of the frequencies first..last-1 alone, as if no others had been drawn: the
 * principal part of the covariance, at their own scale.
 * @param covariance `[2D, 2D]` of `fourierMap`; not changed
 */
export function spectrumOfFrequencies(
  covariance: Float64Array,
  frequencies: number,
  chosen: (frequency: number) => boolean,
  threads?: number,
): Float64Array {
  const kept = Array.from({ length: frequencies }, (_, r) => r).filter(chosen);
  const indices = [...kept, ...kept.map((r) => frequencies + r)];
  const part = principalPart(covariance, 2 * frequencies, indices, frequencies / kept.length);
  return symmetricSpectrum(part, indices.length, threads === undefined ? {} : { threads });
}

/** A score of random features, with its error and what fewer frequencies would have given. */
export interface FourierScore {
  readonly value: number;
  /** Over the draw of the frequencies, by the jackknife over groups of them. */
  readonly standardError: number;
  /** From the first half of the frequencies: finite D gives spectra that are too short, and this shows by how much. */
  readonly half: number;
}

/** Groups of frequencies that the jackknife leaves out one at a time. */
const GROUPS = 8;

/**
 * Scores of the spectrum of a covariance of random features. The standard error is the delete-a-group jackknife over
 * eight groups of frequencies (Efron & Tibshirani 1993, chapter 11): the covariance of any subset of the frequencies is a
 * principal part of the whole, so it takes no further pass over the points.
 * @param score a function of the eigenvalues, ascending, which sum to the trace of the covariance
 * @throws RangeError for fewer than 2 frequencies
 */
export function fourierScores(
  covariance: Float64Array,
  frequencies: number,
  scores: readonly ((eigenvalues: Float64Array) => number)[],
  threads?: number,
): FourierScore[] {
  if (frequencies < 2) throw new RangeError(`${frequencies} frequencies leave none out`);
  const groups = Math.min(GROUPS, frequencies);
  const of = (chosen: (frequency: number) => boolean): Float64Array => {
    const eigenvalues = spectrumOfFrequencies(covariance, frequencies, chosen, threads);
    return Float64Array.from(scores, (score) => score(eigenvalues));
  };
  const values = of(() => true);
  const halves = of((r) => r < frequencies >> 1);
  const without = Array.from({ length: groups }, (_, g) => of((r) => r % groups !== g));
  return scores.map((_, s) => {
    const replicates = without.map((each) => each[s]);
    const centre = replicates.reduce((sum, value) => sum + value, 0) / groups;
    const spread = replicates.reduce((sum, value) => sum + (value - centre) ** 2, 0);
    return { value: values[s], standardError: Math.sqrt(((groups - 1) / groups) * spread), half: halves[s] };
  });
}
