import {
  clusteredLogLikelihood,
  clusterWeights,
  fitClustered,
  randomEffects,
} from '../../src/regression/clustered-t.js';
import { errorCorrelation, factorCluster, gatherClusters, mahalanobis } from '../../src/regression/clusters.js';
import { fitFixedEffects } from '../../src/regression/generalised-least-squares.js';
import { fitJoint, jointLogLikelihood } from '../../src/regression/joint-model.js';
import { covarianceFactor, jointProfileTerm, qOfFreedom, tsallisEntropy } from '../../src/regression/tsallis.js';
import type { Json } from './harness.js';
import { float64, int32, keysOf, number, numbers, shapeOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const [n, p] = shapeOf(inputs.X, 'X');
  const x = float64(inputs.X, 'X');
  const chosen = numbers(inputs.Z_columns, 'Z_columns');
  const z = Float64Array.from({ length: n * chosen.length }, (_, k) => {
    return x[Math.floor(k / chosen.length) * p + chosen[k % chosen.length]];
  });
  const data = gatherClusters(float64(inputs.y, 'y'), x, z, int32(inputs.group, 'group'), []);
  const scales = { psi: float64(inputs.Psi, 'Psi'), sigma2: number(inputs.sigma2, 'sigma2') };
  const m = number(inputs.m, 'm');
  const theta0 = float64(inputs.theta0, 'theta0');
  const correlation = errorCorrelation();
  const solves = data.clusters.map((cluster) => factorCluster(cluster, scales, correlation));
  const distances2 = mahalanobis(data, solves, theta0);
  const weights = clusterWeights(data, distances2, m);
  const fit = fitClustered(data, {
    m,
    scales,
    correlation,
    start: { theta: theta0, m, ...scales },
    tolerance: 1e-14,
  });
  const joint = fitJoint(data, solves, [m]);
  const count = data.clusters.length;
  const vector = (values: ArrayLike<number>): unknown => tensor([values.length], values);
  const first = data.clusters[0].n;
  const named: Record<string, unknown> = {
    joint_q: qOfFreedom(m, n),
    joint_qgaussian_loglik: jointLogLikelihood(data, solves, distances2, m),
    cluster_q: qOfFreedom(m, first),
    cluster_qgaussian_loglik: clusteredLogLikelihood(data, solves, distances2, m),
    mahalanobis2_per_cluster: vector(distances2),
    weights_at_theta0: vector(weights),
    theta_after_one_weighted_step: vector(fitFixedEffects(data, solves, weights)),
    theta_converged_fixed_scale: vector(fit.theta),
    weights_converged: vector(fit.weights),
    theta_gaussian_gls: vector(joint.theta),
    joint_profile_sigma2_hat_multiplier: joint.scaleMultiplier,
    q_marginal_of_first_cluster_under_joint: qOfFreedom(m, first),
    random_effects_blup: tensor(
      [count, data.random],
      randomEffects(data, solves, { theta: fit.theta, psi: scales.psi }),
    ),
    covariance_factor_m_over_m_minus_2: covarianceFactor(m),
  };
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const terms = /^joint_profile_loglik_terms_m_([\d_.]+)$/.exec(key);
    const uniform = /^tsallis_entropy_uniform(\d+)_q([\d.]+)$/.exec(key);
    if (terms !== null) result[key] = terms[1].split('_').map((freedom) => jointProfileTerm(Number(freedom), n));
    else if (uniform !== null) {
      const states = Number(uniform[1]);
      result[key] = tsallisEntropy(new Float64Array(states).fill(1 / states), Number(uniform[2]));
    } else if (key in named) result[key] = named[key];
  }
  return result;
}
