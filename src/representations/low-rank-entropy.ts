import { arrayMatrix } from '../formats/feature-matrix.js';
import { symmetricSpectrum } from '../kernels/symmetric-spectrum.js';
import { diffusionCovariance, type FeatureMap } from '../linalg/feature-map.js';
import { drawLandmarks, nystromMap } from '../linalg/nystrom.js';
import { drawFrequencies, fourierMap, fourierScores } from '../linalg/random-features.js';
import { meanSimilarityOf } from './diffusion-kernel.js';
import type { EntropyEstimate, EstimateContext } from './entropy-estimate.js';
import type { PointCloud } from './points.js';
import { spectralEntropy } from './spectral-entropy.js';

const matrixOf = ({ data, n, d }: PointCloud) => arrayMatrix('points', data, n, d);

async function covarianceOf(map: FeatureMap, { products, settings }: EstimateContext) {
  return diffusionCovariance(map, settings.operator === 'K' ? 1 : 2, { products });
}

function spectrumOf(covariance: Float64Array, features: number, threads: number): Float64Array {
  return symmetricSpectrum(covariance, features, { threads })
    .map((value) => Math.max(0, value))
    .reverse();
}

/**
 * Entropies by random Fourier features of the Gaussian kernel: the operator of `G ~ Phi Phi^T` has the non-zero spectrum
 * of a covariance of features, `Phi^T diag(1 / deg) Phi`. Finite D shortens spectra: those of half of the frequencies, with
 * degrees of their own, stand beside them. Standard errors are a jackknife over frequencies at the degrees of all.
 * @throws InputError when the features are too coarse for the bandwidth
 */
export async function fourierEntropy(
  cloud: PointCloud,
  sigma: number,
  context: EstimateContext,
): Promise<EntropyEstimate> {
  const { products, settings } = context;
  const { features: frequencies, threads, times } = settings;
  const precision = cloud.data instanceof Float32Array ? 'f32' : 'f64';
  const measure = async (count: number) => {
    const omega = drawFrequencies(cloud.d, count, sigma, settings.seed);
    return covarianceOf(fourierMap(matrixOf(cloud), omega, count, { products, precision, sigma }), context);
  };
  const { covariance, degrees } = await measure(frequencies);
  const scores = fourierScores(
    covariance,
    frequencies,
    times.map((t) => (eigenvalues: Float64Array) => spectralEntropy(eigenvalues, t).bits),
    threads,
  );
  const half = frequencies >> 1;
  const halfSpectrum = spectrumOf((await measure(half)).covariance, 2 * half, threads);
  return {
    method: 'fkea',
    bits: Float64Array.from(scores, ({ value }) => value),
    standardErrorBits: Float64Array.from(scores, ({ standardError }) => standardError),
    halfRankBits: Float64Array.from(times, (t) => spectralEntropy(halfSpectrum, t).bits),
    eigenvalues: spectrumOf(covariance, 2 * frequencies, threads),
    meanSimilarity: meanSimilarityOf(degrees),
  };
}

/**
 * Entropies by Nystrom features of random landmarks, in the same way. Deterministic given the landmarks; those of half of
 * the landmarks stand beside them.
 */
export async function nystromEntropy(
  cloud: PointCloud,
  sigma: number,
  context: EstimateContext,
): Promise<EntropyEstimate> {
  const { products, settings } = context;
  const matrix = matrixOf(cloud);
  const measure = async (landmarks: number) => {
    const rows = drawLandmarks(cloud.n, landmarks, settings.seed);
    const map = await nystromMap(matrix, { kind: 'gaussian', sigma }, rows, products);
    const { covariance, degrees } = await covarianceOf(map, context);
    const eigenvalues = spectrumOf(covariance, map.features, settings.threads);
    const bits = Float64Array.from(settings.times, (t) => spectralEntropy(eigenvalues, t).bits);
    return { bits, eigenvalues, degrees };
  };
  const whole = await measure(settings.landmarks);
  const half = await measure(Math.max(1, Math.min(settings.landmarks, cloud.n) >> 1));
  return {
    method: 'nystrom',
    bits: whole.bits,
    standardErrorBits: null,
    halfRankBits: half.bits,
    eigenvalues: whole.eigenvalues,
    meanSimilarity: meanSimilarityOf(whole.degrees),
  };
}
