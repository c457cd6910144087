import { type EntropyEstimate, type EstimateContext, exactEntropy, pointEntropy } from './entropy-estimate.js';
import type { PointCloud } from './points.js';
import type { EntropyMethod } from './settings.js';

/** Diffusion entropies of a point cloud by the method that is named. */
export async function estimateEntropy(
  cloud: PointCloud,
  sigma: number,
  method: EntropyMethod,
  context: EstimateContext,
): Promise<EntropyEstimate> {
  if (cloud.n < 2) return pointEntropy(cloud.n, context.settings.times.length, method);
  return exactEntropy(cloud, sigma, context);
}
