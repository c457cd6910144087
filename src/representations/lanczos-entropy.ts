import { anisotropicOperator, diffusionOperator, type SymmetricOperator } from '../linalg/kernel-operator.js';
import { combineTraces, type SpectralFunction, traceFunctions } from '../linalg/lanczos-quadrature.js';
import { meanSimilarityOf } from './diffusion-kernel.js';
import type { EntropyEstimate, EstimateContext } from './entropy-estimate.js';
import type { PointCloud } from './points.js';

/**
 * The operator without one eigenvector of eigenvalue 1. A diffusion operator is similar to a stochastic matrix, so that 1
 * and its eigenvector are known; taken out of the random part, they add no noise to it.
 */
function withoutStationary(operator: SymmetricOperator, weights: Float64Array): SymmetricOperator {
  const { n, precision, squaredNorm } = operator;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const stationary = weights.map((weight) => Math.sqrt(weight / total));
  return {
    n,
    precision,
    trace: async () => (await operator.trace()) - 1,
    ...(squaredNorm && { squaredNorm: async () => (await squaredNorm()) - 1 }),
    async multiply(v, b, out) {
      await operator.multiply(v, b, out);
      for (let p = 0; p < b; p++) {
        let product = 0;
        for (let i = 0; i < n; i++) product += stationary[i] * v[p * n + i];
        for (let i = 0; i < n; i++) out[p * n + i] -= product * stationary[i];
      }
    },
  };
}

/** The operator, its stationary weights, and the row sums of G. */
async function openOperator(
  cloud: PointCloud,
  sigma: number,
  { products, settings }: EstimateContext,
): Promise<{ operator: SymmetricOperator; weights: Float64Array; degrees: Float64Array }> {
  const precision = cloud.data instanceof Float32Array ? 'f32' : 'f64';
  const options = { products, precision } as const;
  const anisotropic = await anisotropicOperator(cloud, sigma, options);
  const { degrees } = anisotropic;
  if (settings.operator === 'K') return { operator: anisotropic, weights: degrees, degrees };
  const sums = new Float64Array(cloud.n);
  await anisotropic.multiply(new Float64Array(cloud.n).fill(1), 1, sums);
  return { operator: await diffusionOperator(cloud, sigma, options), weights: sums, degrees };
}

/**
 * Entropies by stochastic Lanczos quadrature on the operator, whose tiles are formed anew for every product: nothing of
 * size n x n is held. With `tau = tr K^t` and `A = tr(K^t log K^t)`, `S = log tau - A / tau`; the eigenvalue 1 adds 1 to
 * tau and nothing to A. tr K and tr K^2 are exact. Points in f32 are worked on in f32.
 */
export async function lanczosEntropy(
  cloud: PointCloud,
  sigma: number,
  context: EstimateContext,
): Promise<EntropyEstimate> {
  const { settings } = context;
  const { operator, weights, degrees } = await openOperator(cloud, sigma, context);
  const functions = settings.times.flatMap((t): SpectralFunction[] => [
    { name: `power ${t}`, at: (x) => Math.abs(x) ** t },
    { name: `entropy ${t}`, at: (x) => (x === 0 ? 0 : Math.abs(x) ** t * t * Math.log(Math.abs(x))) },
  ]);
  const estimates = await traceFunctions(withoutStationary(operator, weights), functions, {
    probes: settings.probes,
    seed: settings.seed,
    threads: settings.threads,
  });
  const entropies = settings.times.map((_, k) => {
    const tau = 1 + Math.max(0, estimates.traces[2 * k].value);
    const sum = Math.min(0, estimates.traces[2 * k + 1].value);
    return combineTraces(estimates, Math.max(0, Math.log(tau) - sum / tau), [
      { index: 2 * k, derivative: (1 + sum / tau) / tau },
      { index: 2 * k + 1, derivative: -1 / tau },
    ]);
  });
  return {
    method: 'slq',
    bits: Float64Array.from(entropies, ({ value }) => value / Math.LN2),
    standardErrorBits: Float64Array.from(entropies, ({ standardError }) => standardError / Math.LN2),
    halfRankBits: null,
    eigenvalues: null,
    meanSimilarity: meanSimilarityOf(degrees),
  };
}
