import { multiply } from '../kernels/gemm.js';
import { choleskyInPlace, invertLower } from './blocked-cholesky.js';
import { choleskySolve } from './cholesky.js';
import { minimiseInBox } from './quasi-newton.js';

/** Squared-exponential covariance with one length a coordinate, and noise; all of standardised targets. */
export interface GaussianProcessSettings {
  readonly signalVariance: number;
  /** [dimensions], in the units of the coordinates. */
  readonly lengths: Float64Array;
  readonly noiseVariance: number;
}

/** A posterior: mean(x) = offset + spread * sum_r weights_r k(x, x_r). */
export interface GaussianProcess {
  readonly settings: GaussianProcessSettings;
  readonly logLikelihood: number;
  /** Mean and deviation of the targets, which the process is scaled by. */
  readonly offset: number;
  readonly spread: number;
  mean(x: ArrayLike<number>): number;
  /** [rows]: what the process says of each row without it, its settings kept. */
  leftOut(): Float64Array;
}

export interface GaussianProcessOptions {
  readonly threads?: number;
  /** Settings to use as they are; sought by maximum marginal likelihood when absent. */
  readonly settings?: GaussianProcessSettings;
}

/** Bounds of signal variance, lengths (of standardised coordinates) and noise variance in the search. */
const BOUNDS = [1e-5, 1e5] as const;
const LEAST_NOISE = 1e-6;
/** Lengths, and noise variances, from which the search begins. */
const STARTS = [
  [1, 0.1],
  [0.3, 0.3],
  [3, 0.5],
] as const;

interface Fitted {
  readonly logLikelihood: number;
  readonly weights: Float64Array;
  /** The covariance's Cholesky factor L. */
  readonly lower: Float64Array;
}

const threadsOf = (threads: number | undefined): { threads?: number } => (threads === undefined ? {} : { threads });
const meanOf = (values: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum / values.length;
};
const deviationOf = (values: ArrayLike<number>): number => {
  const mean = meanOf(values);
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += (values[i] - mean) ** 2;
  return Math.sqrt(sum / values.length);
};

/**
 * Gaussian-process regression (Rasmussen & Williams 2006, algorithm 2.1, equations 5.8 and 5.12): zero mean over standardised
 * targets, k(x, x') = s^2 exp(-1/2 sum_d ((x_d - x'_d) / l_d)^2) + noise. Settings by maximum marginal likelihood (BFGS from
 * three starts, the best of them). O(rows^3) a step.
 *
 * @param x [rows, dimensions] row-major @param y [rows]
 * @throws RangeError where the covariance is not positive definite in f64, which noise of 1e-6 and more does not leave
 */
export function fitGaussianProcess(
  x: Float64Array,
  y: Float64Array,
  dimensions: number,
  options: GaussianProcessOptions = {},
): GaussianProcess {
  const rows = y.length;
  const d = dimensions;
  const offset = meanOf(y);
  const spread = deviationOf(y) || 1;
  const target = y.map((value) => (value - offset) / spread);
  const scale = Float64Array.from({ length: d }, (_, j) => deviationOf(y.map((_, r) => x[r * d + j])) || 1);
  const scaled = x.map((value, i) => value / scale[i % d]);
  const settings = options.settings ?? likeliestSettings(scaled, target, d, scale, options.threads);
  const lengths = settings.lengths.map((length, j) => length / scale[j]);
  const covariance = covarianceOf(scaled, rows, d, settings.signalVariance, lengths);
  const fitted = factor(covariance, target, settings.noiseVariance, options.threads);
  if (fitted === undefined) throw new RangeError('the covariance of the rows is not positive definite');
  const { weights, lower } = fitted;
  const inverse = settings.lengths.map((length) => 1 / length);
  return {
    settings,
    logLikelihood: fitted.logLikelihood,
    offset,
    spread,
    leftOut() {
      const lowerInverse = invertLower(lower, rows, threadsOf(options.threads));
      return y.map((value, r) => {
        let precision = 0;
        for (let k = r; k < rows; k++) precision += lowerInverse[k * rows + r] ** 2;
        return value - (spread * weights[r]) / precision;
      });
    },
    mean(at) {
      let sum = 0;
      for (let r = 0; r < rows; r++) {
        let square = 0;
        for (let j = 0; j < d; j++) square += ((at[j] - x[r * d + j]) * inverse[j]) ** 2;
        sum += weights[r] * Math.exp(-0.5 * square);
      }
      return offset + spread * settings.signalVariance * sum;
    },
  };
}

function covarianceOf(x: Float64Array, rows: number, d: number, variance: number, lengths: Float64Array): Float64Array {
  const covariance = new Float64Array(rows * rows);
  for (let a = 0; a < rows; a++) {
    for (let b = 0; b <= a; b++) {
      let square = 0;
      for (let j = 0; j < d; j++) square += ((x[a * d + j] - x[b * d + j]) / lengths[j]) ** 2;
      covariance[a * rows + b] = variance * Math.exp(-0.5 * square);
    }
  }
  return covariance;
}

/** Weights (K + noise)^-1 y and the log marginal likelihood; only the lower triangle of K is read. */
function factor(covariance: Float64Array, y: Float64Array, noise: number, threads?: number): Fitted | undefined {
  const n = y.length;
  const lower = covariance.slice();
  for (let i = 0; i < n; i++) lower[i * n + i] += noise;
  if (!choleskyInPlace(lower, n, threadsOf(threads))) return undefined;
  const weights = choleskySolve(lower, n, y);
  let value = -0.5 * n * Math.log(2 * Math.PI);
  for (let i = 0; i < n; i++) value -= 0.5 * y[i] * weights[i] + Math.log(lower[i * n + i]);
  return { logLikelihood: value, weights, lower };
}

/** Settings of the highest marginal likelihood; the search is over their logarithms, of standardised coordinates. */
function likeliestSettings(
  x: Float64Array,
  y: Float64Array,
  d: number,
  scale: Float64Array,
  threads?: number,
): GaussianProcessSettings {
  const n = y.length;
  const [low, high] = BOUNDS.map((bound) => new Float64Array(d + 2).fill(Math.log(bound)));
  low[d + 1] = Math.log(LEAST_NOISE);
  const negative = (logs: Float64Array, gradient: Float64Array): number => {
    const [variance, noise] = [Math.exp(logs[0]), Math.exp(logs[d + 1])];
    const lengths = logs.slice(1, d + 1).map(Math.exp);
    const covariance = covarianceOf(x, n, d, variance, lengths);
    const fitted = factor(covariance, y, noise, threads);
    if (fitted === undefined) return Number.POSITIVE_INFINITY;
    const { weights, lower } = fitted;
    const lowerInverse = invertLower(lower, n, threadsOf(threads));
    // K^-1 = L^-T L^-1.
    const product = { transposeA: true, ...threadsOf(threads) };
    const precision = multiply(lowerInverse, lowerInverse, new Float64Array(n * n), { m: n, n, k: n }, product);
    gradient.fill(0);
    for (let a = 0; a < n; a++) {
      for (let b = 0; b <= a; b++) {
        // d(-L) / dK_ab, both triangles.
        const slope = (a === b ? 0.5 : 1) * (precision[a * n + b] - weights[a] * weights[b]);
        const k = slope * covariance[a * n + b];
        gradient[0] += k;
        for (let j = 0; j < d; j++) gradient[1 + j] += k * ((x[a * d + j] - x[b * d + j]) / lengths[j]) ** 2;
        if (a === b) gradient[d + 1] += slope * noise;
      }
    }
    return -fitted.logLikelihood;
  };
  let best: { point: Float64Array; value: number } | undefined;
  for (const [length, noise] of STARTS) {
    const start = new Float64Array(d + 2).fill(Math.log(length), 1, d + 1);
    start[d + 1] = Math.log(noise);
    const found = minimiseInBox(negative, start, low, high, { tolerance: 1e-6 });
    if (best === undefined || found.value < best.value) best = found;
  }
  const { point } = best as { point: Float64Array };
  return {
    signalVariance: Math.exp(point[0]),
    lengths: point.slice(1, d + 1).map((log, j) => Math.exp(log) * scale[j]),
    noiseVariance: Math.exp(point[d + 1]),
  };
}
