import { type ClusteredData, type ClusterSolve, mahalanobis } from './clusters.js';
import { type EffectPenalty, fitFixedEffects } from './generalised-least-squares.js';
import { penaltyValue } from './penalty.js';
import { jointProfileTerm, qGaussianLogDensity, qOfFreedom } from './tsallis.js';

/** Log-likelihood of all observations as one joint vector with block-diagonal scale: no product of clusters. */
export function jointLogLikelihood(
  data: ClusteredData,
  solves: readonly ClusterSolve[],
  distances2: Float64Array,
  m: number,
): number {
  const distance2 = distances2.reduce((sum, value) => sum + value, 0);
  const logDeterminant = solves.reduce((sum, solve) => sum + solve.logDeterminant, 0);
  return qGaussianLogDensity(m, data.observations, distance2, logDeterminant);
}

/** The joint model at its best theta and sigma^2, with the profile over m that shows that q cannot be known. */
export interface JointFit {
  readonly theta: Float64Array;
  /** What the given scale must be multiplied with: `(RSS + 2 n sum_j w(theta_j)) / n`. */
  readonly scaleMultiplier: number;
  readonly profile: readonly { readonly m: number; readonly q: number; readonly logLikelihood: number }[];
}

/**
 * The joint model `y ~ qGaussian(q, X theta, sigma^2 Psi)` with given scale matrices: theta is penalised generalised least
 * squares whatever q is, and once sigma^2 is profiled out the likelihood rises with m without end. q is not identifiable
 * from one vector.
 */
export function fitJoint(
  data: ClusteredData,
  solves: readonly ClusterSolve[],
  freedoms: readonly number[],
  effectPenalty?: EffectPenalty,
): JointFit {
  const n = data.observations;
  const theta = fitFixedEffects(data, solves, new Float64Array(data.clusters.length).fill(1), effectPenalty);
  const rss = mahalanobis(data, solves, theta).reduce((sum, value) => sum + value, 0);
  let penalty = 0;
  if (effectPenalty) {
    theta.forEach((value, j) => {
      if (effectPenalty.penalised[j] !== 0) penalty += penaltyValue(effectPenalty.penalty, value);
    });
  }
  const scaleMultiplier = (rss + 2 * n * penalty) / n;
  const logDeterminant = solves.reduce((sum, solve) => sum + solve.logDeterminant, 0) + n * Math.log(scaleMultiplier);
  const profile = freedoms.map((m) => ({
    m,
    q: qOfFreedom(m, n),
    logLikelihood: jointProfileTerm(m, n) - 0.5 * (n * Math.log(Math.PI) + logDeterminant),
  }));
  return { theta, scaleMultiplier, profile };
}
