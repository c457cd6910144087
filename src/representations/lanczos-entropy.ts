import { estimateEntropies } from '../linalg/estimated-entropy.js';
import { anisotropicOperator, type DegreeOperator, diffusionOperator } from '../linalg/kernel-operator.js';
import type { KnownEigenpair } from '../linalg/lanczos-quadrature.js';
import { meanSimilarityOf } from './diffusion-kernel.js';
import type { EntropyEstimate, EstimateContext } from './entropy-estimate.js';
import type { PointCloud } from './points.js';

/** Copies of the points and tiles that are held beside the Krylov spaces. */
function operatorBytes({ data, n, d }: PointCloud): number {
  return data.BYTES_PER_ELEMENT * (2 * n * d + 2 * 1024 * 1024);
}

/**
 * The operator and what is known of it: a diffusion operator is similar to a stochastic matrix, so that 1 is an
 * eigenvalue and the roots of the stationary weights are its eigenvector.
 */
async function openOperator(
  cloud: PointCloud,
  sigma: number,
  { products, settings }: EstimateContext,
): Promise<{ operator: DegreeOperator; known: KnownEigenpair }> {
  const precision = cloud.data instanceof Float32Array ? 'f32' : 'f64';
  const options = { products, precision } as const;
  const operator = await (settings.operator === 'K' ? anisotropicOperator : diffusionOperator)(cloud, sigma, options);
  const { weights } = operator;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return { operator, known: { value: 1, vector: weights.map((weight) => Math.sqrt(weight / total)) } };
}

/**
 * Entropies by stochastic Lanczos quadrature on the operator, whose tiles are formed anew for every product: nothing of
 * size n x n is held. The eigenvalue 1 is taken out of the random part; tr K and tr K^2 are exact. Points in f32 are
 * worked on in f32.
 * @throws InputError when the Krylov spaces do not fit into what the points leave of --max-memory
 */
export async function lanczosEntropy(
  cloud: PointCloud,
  sigma: number,
  context: EstimateContext,
): Promise<EntropyEstimate> {
  const { times, probes, seed, threads, maxMemoryBytes } = context.settings;
  const { operator, known } = await openOperator(cloud, sigma, context);
  const { entropies } = await estimateEntropies(
    operator,
    times.map((power) => ({ power })),
    { known, probes, seed, threads, maxMemoryBytes: maxMemoryBytes - operatorBytes(cloud) },
  );
  return {
    method: 'slq',
    bits: Float64Array.from(entropies, ({ value }) => value / Math.LN2),
    standardErrorBits: Float64Array.from(entropies, ({ standardError }) => standardError / Math.LN2),
    halfRankBits: null,
    eigenvalues: null,
    meanSimilarity: meanSimilarityOf(operator.degrees),
  };
}
