import { type EntropyEstimate, type EstimateContext, exactEntropy, pointEntropy } from './entropy-estimate.js';
import { lanczosEntropy } from './lanczos-entropy.js';
import { fourierEntropy, nystromEntropy } from './low-rank-entropy.js';
import type { PointCloud } from './points.js';
import type { EntropyMethod } from './settings.js';

type Estimator = (cloud: PointCloud, sigma: number, context: EstimateContext) => Promise<EntropyEstimate>;

const ESTIMATORS: Readonly<Record<EntropyMethod, Estimator>> = {
  exact: exactEntropy,
  slq: lanczosEntropy,
  fkea: fourierEntropy,
  nystrom: nystromEntropy,
};

/** Diffusion entropies of a point cloud by the method that is named. */
export async function estimateEntropy(
  cloud: PointCloud,
  sigma: number,
  method: EntropyMethod,
  context: EstimateContext,
): Promise<EntropyEstimate> {
  if (cloud.n < 2) return pointEntropy(cloud.n, context.settings.times.length, method);
  return ESTIMATORS[method](cloud, sigma, context);
}
