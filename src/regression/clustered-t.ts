import { brentMinimum, brentRoot } from '../linalg/brent.js';
import { cholesky } from '../linalg/cholesky.js';
import { digamma } from '../linalg/special-functions.js';
import {
  type Cluster,
  type ClusteredData,
  type ClusterSolve,
  type ErrorCorrelation,
  factorCluster,
  mahalanobis,
  residualsOf,
  type Scales,
  whiten,
} from './clusters.js';
import { type EffectPenalty, fitFixedEffects } from './generalised-least-squares.js';
import { logNormaliser, qGaussianLogDensity } from './tsallis.js';

/** Range in which the degrees of freedom are sought. */
export const LEAST_FREEDOM = 2.01;
export const MOST_FREEDOM = 200;

/** All parameters of the clustered model. */
export interface ClusteredParameters extends Scales {
  readonly theta: Float64Array;
  /** Degrees of freedom; infinite is the normal distribution. */
  readonly m: number;
}

/** `(m + n_i) / (m + d_i^2)`: outlying clusters weigh far less than 1. All 1 for infinite m. */
export function clusterWeights(data: ClusteredData, distances2: Float64Array, m: number): Float64Array {
  if (m === Number.POSITIVE_INFINITY) return new Float64Array(distances2.length).fill(1);
  return distances2.map((d2, i) => (m + data.clusters[i].n) / (m + d2));
}

/** Sum of the clusters' log-densities: m-variate t, or normal for infinite m. */
export function clusteredLogLikelihood(
  data: ClusteredData,
  solves: readonly ClusterSolve[],
  distances2: Float64Array,
  m: number,
): number {
  let sum = 0;
  data.clusters.forEach(({ n }, i) => {
    const { logDeterminant } = solves[i];
    sum +=
      m === Number.POSITIVE_INFINITY
        ? -0.5 * (n * Math.log(2 * Math.PI) + logDeterminant + distances2[i])
        : qGaussianLogDensity(m, n, distances2[i], logDeterminant);
  });
  return sum;
}

/**
 * Degrees of freedom in [2.01, 200] of the greatest likelihood at given distances: Brent's minimum in log m, made exact by
 * Brent's root of the derivative beside it.
 */
export function bestFreedom(data: ClusteredData, distances2: Float64Array): number {
  const cost = (logM: number): number => {
    const m = Math.exp(logM);
    let sum = 0;
    data.clusters.forEach(({ n }, i) => {
      sum += logNormaliser(m, n) - 0.5 * (m + n) * Math.log1p(distances2[i] / m);
    });
    return -sum;
  };
  const slope = (logM: number): number => {
    const m = Math.exp(logM);
    let sum = 0;
    data.clusters.forEach(({ n }, i) => {
      const d2 = distances2[i];
      const normaliser = digamma((m + n) / 2) - digamma(m / 2) - n / m;
      sum += normaliser - Math.log1p(d2 / m) + ((m + n) * d2) / (m * (m + d2));
    });
    return sum;
  };
  const [low, high] = [Math.log(LEAST_FREEDOM), Math.log(MOST_FREEDOM)];
  const near = brentMinimum(cost, low, high, 1e-6).x;
  const root = brentRoot(slope, Math.max(low, near - 1e-3), Math.min(high, near + 1e-3), 1e-13);
  return Math.exp(root?.x ?? near);
}

/** Best linear unbiased predictions `Psi Z_i' S_i^-1 r_i`, `[clusters, r]`. */
export function randomEffects(
  data: ClusteredData,
  solves: readonly ClusterSolve[],
  parameters: Pick<ClusteredParameters, 'theta' | 'psi'>,
): Float64Array {
  const r = data.random;
  const out = new Float64Array(data.clusters.length * r);
  data.clusters.forEach((cluster, i) => {
    const { b } = conditional(cluster, solves[i], parameters.theta, parameters.psi, r);
    out.set(b, i * r);
  });
  return out;
}

/** Mean b = Psi Z' S^-1 r and scale Omega = Psi - Psi Z' S^-1 Z Psi of the random effects given the data. */
function conditional(cluster: Cluster, solve: ClusterSolve, theta: Float64Array, psi: Float64Array, r: number) {
  const { n } = cluster;
  const residual = residualsOf(cluster, theta);
  const white = Float64Array.from(residual);
  whiten(solve.factor, n, white, 1);
  // V = L^-1 Z Psi, so that Psi Z' S^-1 = V' L^-1.
  const v = new Float64Array(n * r);
  for (let i = 0; i < n; i++)
    for (let b = 0; b < r; b++) for (let a = 0; a < r; a++) v[i * r + b] += cluster.z[i * r + a] * psi[a * r + b];
  whiten(solve.factor, n, v, r);
  const b = new Float64Array(r);
  const omega = Float64Array.from(psi);
  for (let i = 0; i < n; i++) {
    for (let a = 0; a < r; a++) {
      b[a] += v[i * r + a] * white[i];
      for (let c = 0; c < r; c++) omega[a * r + c] -= v[i * r + a] * v[i * r + c];
    }
  }
  return { residual, b, omega };
}

export interface ClusteredFitOptions {
  /** Fixed degrees of freedom (infinite: normal); estimated when absent. */
  readonly m?: number;
  /** Fixed scales; estimated when absent. */
  readonly scales?: Scales;
  readonly correlation: ErrorCorrelation;
  readonly effectPenalty?: EffectPenalty;
  /** Where the search starts. */
  readonly start?: ClusteredParameters;
  /** Ends when the log-likelihood rises by less than this over one step; default 1e-10 of its size. */
  readonly tolerance?: number;
  readonly maxIterations?: number;
  readonly onIteration?: (iteration: number, logLikelihood: number) => void;
}

export interface ClusteredFit extends ClusteredParameters {
  readonly logLikelihood: number;
  readonly distances2: Float64Array;
  readonly weights: Float64Array;
  /** `[clusters, r]` */
  readonly blups: Float64Array;
  readonly iterations: number;
  readonly converged: boolean;
  readonly solves: readonly ClusterSolve[];
}

interface State {
  readonly parameters: ClusteredParameters;
  readonly solves: readonly ClusterSolve[];
  readonly distances2: Float64Array;
  /** Log-likelihood, less N times the penalty where there is one. */
  readonly objective: number;
  readonly logLikelihood: number;
}

function stateOf(data: ClusteredData, parameters: ClusteredParameters, options: ClusteredFitOptions): State {
  const solves = data.clusters.map((cluster) => factorCluster(cluster, parameters, options.correlation));
  const distances2 = mahalanobis(data, solves, parameters.theta);
  const logLikelihood = clusteredLogLikelihood(data, solves, distances2, parameters.m);
  return { parameters, solves, distances2, logLikelihood, objective: logLikelihood };
}

/** One ECM step: weights, theta, then Psi and sigma^2, then m. */
function step(data: ClusteredData, state: State, options: ClusteredFitOptions): State {
  const { parameters, solves, distances2 } = state;
  const { m, sigma2 } = parameters;
  const weights = clusterWeights(data, distances2, m);
  const theta = fitFixedEffects(data, solves, weights, options.effectPenalty, sigma2, parameters.theta);
  const scales = options.scales ?? updateScales(data, solves, theta, parameters, weights, options.correlation);
  const moved = stateOf(data, { theta, ...scales, m }, options);
  if (options.m !== undefined) return moved;
  const better = bestFreedom(data, moved.distances2);
  return stateOf(data, { ...moved.parameters, m: better }, options);
}

/**
 * Psi and sigma^2 from the expected second moments of b and e, the weights of the E step being those at the old theta.
 * Both are divided by the mean weight (parameter expansion, Meng & van Dyk 1997), which is 1 at the solution and makes the
 * way there shorter.
 */
function updateScales(
  data: ClusteredData,
  solves: readonly ClusterSolve[],
  theta: Float64Array,
  { psi, sigma2 }: Scales,
  weights: Float64Array,
  correlation: ErrorCorrelation,
): Scales {
  const r = data.random;
  const nextPsi = new Float64Array(r * r);
  let squares = 0;
  let mass = 0;
  data.clusters.forEach((cluster, i) => {
    const { n } = cluster;
    const { residual, b, omega } = conditional(cluster, solves[i], theta, psi, r);
    for (let a = 0; a < r; a++)
      for (let c = 0; c < r; c++) nextPsi[a * r + c] += weights[i] * b[a] * b[c] + omega[a * r + c];
    const e = residual.map((value, k) => {
      let sum = value;
      for (let a = 0; a < r; a++) sum -= cluster.z[k * r + a] * b[a];
      return sum;
    });
    const inverse = correlation.inverse(n);
    for (let k = 0; k < n; k++) {
      for (let l = 0; l < n; l++) {
        const precision = inverse[k * n + l];
        if (precision === 0) continue;
        let spread = 0;
        for (let a = 0; a < r; a++)
          for (let c = 0; c < r; c++) spread += cluster.z[k * r + a] * omega[a * r + c] * cluster.z[l * r + c];
        squares += precision * (weights[i] * e[k] * e[l] + spread);
      }
    }
    mass += weights[i];
  });
  const expansion = mass / data.clusters.length;
  for (let a = 0; a < r * r; a++) nextPsi[a] /= data.clusters.length * expansion;
  return { psi: nextPsi, sigma2: Math.max(squares / (data.observations * expansion), 1e-12 * sigma2) };
}

/** Least squares, half of its residual variance for the errors and half for the random effects. */
function firstParameters(data: ClusteredData, options: ClusteredFitOptions): ClusteredParameters {
  const unit = { psi: new Float64Array(data.random ** 2), sigma2: 1 };
  const solves = data.clusters.map((cluster) => factorCluster(cluster, unit, options.correlation));
  const theta = fitFixedEffects(data, solves, new Float64Array(data.clusters.length).fill(1), options.effectPenalty);
  const m = options.m ?? 8;
  if (options.scales) return { theta, m, ...options.scales };
  let squares = 0;
  for (const cluster of data.clusters) for (const value of residualsOf(cluster, theta)) squares += value * value;
  const variance = Math.max(squares / data.observations, 1e-12);
  const psi = new Float64Array(data.random ** 2);
  let size = 0;
  for (const { z } of data.clusters) for (const value of z) size += value * value;
  const mean = size / (data.observations * Math.max(1, data.random));
  for (let a = 0; a < data.random; a++) {
    psi[a * data.random + a] = (0.5 * variance) / (Math.max(mean, 1e-12) * data.random);
  }
  return { theta, psi, sigma2: 0.5 * variance, m };
}

/**
 * Maximum likelihood of the clustered q-Gaussian model `y_i = X_i theta + Z_i b_i + e_i`, jointly t_m in every cluster with
 * scale `Z_i Psi Z_i' + sigma^2 R_i`: ECM steps, extrapolated in pairs (SQUAREM, Varadhan & Roland 2008) wherever that does
 * not lower the likelihood. With a penalty the theta step minimises
 * `sum_i w_i r_i' (S_i / sigma^2)^-1 r_i / 2N + sum_j w(theta_j)`, and steps are not extrapolated.
 * @throws InputError when the fixed effects are collinear or a scale is not positive definite
 */
export function fitClustered(data: ClusteredData, options: ClusteredFitOptions): ClusteredFit {
  const maxIterations = options.maxIterations ?? 5000;
  let state = stateOf(data, options.start ?? firstParameters(data, options), options);
  let iterations = 0;
  let converged = false;
  while (iterations < maxIterations && !converged) {
    const once = step(data, state, options);
    const twice = step(data, once, options);
    iterations += 2;
    const next = (options.effectPenalty ? undefined : extrapolated(data, state, once, twice, options)) ?? twice;
    const change = largestChange(once.parameters, twice.parameters);
    converged = change < (options.tolerance ?? 1e-9);
    state = converged ? twice : next;
    options.onIteration?.(iterations, state.logLikelihood);
  }
  const { parameters, solves, distances2, logLikelihood } = state;
  return {
    ...parameters,
    logLikelihood,
    distances2,
    weights: clusterWeights(data, distances2, parameters.m),
    blups: randomEffects(data, solves, parameters),
    iterations,
    converged,
    solves,
  };
}

/** Largest relative change of any parameter. */
function largestChange(a: ClusteredParameters, b: ClusteredParameters): number {
  const scale = a.theta.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-12);
  const spread = Math.sqrt(b.sigma2) + scale;
  let most = Math.abs(a.sigma2 - b.sigma2) / b.sigma2;
  for (let j = 0; j < a.theta.length; j++) most = Math.max(most, Math.abs(a.theta[j] - b.theta[j]) / spread);
  const level = b.psi.reduce((sum, value) => Math.max(sum, Math.abs(value)), b.sigma2);
  for (let k = 0; k < a.psi.length; k++) most = Math.max(most, Math.abs(a.psi[k] - b.psi[k]) / level);
  if (Number.isFinite(b.m)) most = Math.max(most, 0.1 * Math.abs(Math.log(a.m / b.m)));
  return most;
}

/** The parameters on a scale without bounds: theta, the log-Cholesky factor of Psi, log sigma^2, log m. */
function freely(parameters: ClusteredParameters, r: number): Float64Array | undefined {
  const factor = r === 0 ? new Float64Array(0) : cholesky(parameters.psi, r);
  if (factor === undefined) return undefined;
  const lower: number[] = [];
  for (let a = 0; a < r; a++)
    for (let b = 0; b <= a; b++) lower.push(a === b ? Math.log(factor[a * r + a]) : factor[a * r + b]);
  const m = Number.isFinite(parameters.m) ? [Math.log(parameters.m)] : [];
  return Float64Array.from([...parameters.theta, ...lower, Math.log(parameters.sigma2), ...m]);
}

function fromFree(free: Float64Array, like: ClusteredParameters, r: number): ClusteredParameters {
  const p = like.theta.length;
  const factor = new Float64Array(r * r);
  let at = p;
  for (let a = 0; a < r; a++)
    for (let b = 0; b <= a; b++) factor[a * r + b] = a === b ? Math.exp(free[at++]) : free[at++];
  const psi = new Float64Array(r * r);
  for (let a = 0; a < r; a++)
    for (let b = 0; b < r; b++) for (let k = 0; k < r; k++) psi[a * r + b] += factor[a * r + k] * factor[b * r + k];
  const sigma2 = Math.exp(free[at++]);
  const m = Number.isFinite(like.m) ? Math.min(MOST_FREEDOM, Math.max(LEAST_FREEDOM, Math.exp(free[at]))) : like.m;
  return { theta: free.slice(0, p), psi, sigma2, m };
}

/** SQUAREM's third scheme; undefined where it would not be better than two plain steps. */
function extrapolated(
  data: ClusteredData,
  from: State,
  once: State,
  twice: State,
  options: ClusteredFitOptions,
): State | undefined {
  const r = data.random;
  const [x0, x1, x2] = [from, once, twice].map((state) => freely(state.parameters, r));
  if (!x0 || !x1 || !x2) return undefined;
  let rr = 0;
  let vv = 0;
  for (let k = 0; k < x0.length; k++) {
    const first = x1[k] - x0[k];
    const second = x2[k] - x1[k] - first;
    rr += first * first;
    vv += second * second;
  }
  if (!(vv > 0)) return undefined;
  const alpha = -Math.sqrt(rr / vv);
  if (alpha > -1) return undefined;
  const free = x0.map((value, k) => {
    const first = x1[k] - value;
    const second = x2[k] - x1[k] - first;
    return value - 2 * alpha * first + alpha * alpha * second;
  });
  const wanted = fromFree(free, { ...twice.parameters }, r);
  const fixedM = options.m === undefined ? wanted : { ...wanted, m: options.m };
  const parameters = options.scales ? { ...fixedM, ...options.scales } : fixedM;
  if (!Number.isFinite(parameters.sigma2) || parameters.psi.some((value) => !Number.isFinite(value))) return undefined;
  try {
    const state = stateOf(data, parameters, options);
    return state.logLikelihood > twice.logLikelihood ? state : undefined;
  } catch {
    return undefined;
  }
}
