import { symmetricEigen } from '../../linalg/symmetric-eigen.js';
import { correlationOf } from './correlation.js';

/** Adam with the published constants, and when it stops. */
const LEARNING_RATE = 5e-4;
const FIRST_DECAY = 0.9;
const SECOND_DECAY = 0.999;
const EPSILON = 1e-8;
const MOST_STEPS = 10_000;
const PATIENCE = 500;
const LEAST_GAIN = 1e-6;

/** Which iterate Adam gives back: the published code's is the last, though it speaks of the best. */
export type Iterate = 'last' | 'best';

/** What the weights of a pool are to do. `icir` and `lcb` look at the daily ICs of the combination. */
export type PoolObjective =
  | { readonly kind: 'ic' }
  | { readonly kind: 'icir' }
  | { readonly kind: 'lcb'; readonly beta: number };

/** Least-squares solution of least norm of M w = s, singular values below n eps times the largest being dropped. */
export function solveLeastSquares(mutual: Float64Array, single: Float64Array): Float64Array {
  const n = single.length;
  const { values, vectors } = symmetricEigen(mutual, n);
  let largest = 0;
  for (const value of values) largest = Math.max(largest, Math.abs(value));
  const weights = new Float64Array(n);
  for (let k = 0; k < n; k++) {
    if (Math.abs(values[k]) <= n * Number.EPSILON * largest) continue;
    let projection = 0;
    for (let i = 0; i < n; i++) projection += vectors[k * n + i] * single[i];
    for (let i = 0; i < n; i++) weights[i] += (projection / values[k]) * vectors[k * n + i];
  }
  return weights;
}

/** What Adam descends: fills the gradient, gives the loss that decides about patience. */
type Objective = (weights: Float64Array, gradient: Float64Array) => number;

/** Adam from `start`; stops after 500 steps without a gain of more than 1e-6, or after 10,000. */
function descend(start: Float64Array, objective: Objective, iterate: Iterate): Float64Array {
  const n = start.length;
  const weights = Float64Array.from(start);
  const best = Float64Array.from(start);
  const gradient = new Float64Array(n);
  const first = new Float64Array(n);
  const second = new Float64Array(n);
  let least = Number.POSITIVE_INFINITY;
  let waited = 0;
  let firstPower = 1;
  let secondPower = 1;
  for (let step = 0; ; step++) {
    const loss = objective(weights, gradient);
    if (least - loss > LEAST_GAIN) waited = 0;
    else waited++;
    if (loss < least) {
      best.set(weights);
      least = loss;
    }
    firstPower *= FIRST_DECAY;
    secondPower *= SECOND_DECAY;
    for (let i = 0; i < n; i++) {
      first[i] = FIRST_DECAY * first[i] + (1 - FIRST_DECAY) * gradient[i];
      second[i] = SECOND_DECAY * second[i] + (1 - SECOND_DECAY) * gradient[i] * gradient[i];
      const root = Math.sqrt(second[i]) / Math.sqrt(1 - secondPower) + EPSILON;
      weights[i] -= ((LEARNING_RATE / (1 - firstPower)) * first[i]) / root;
    }
    if (waited >= PATIENCE || step >= MOST_STEPS) break;
  }
  return iterate === 'last' ? weights : best;
}

/**
 * Weights that minimise w'Mw - 2 w's + 1 + l1 |w|_1 by Adam (spec 10.5); patience looks at the part without l1.
 * @param mutual M, [n, n]; single s, [n]
 */
export function minimiseSquares(
  mutual: Float64Array,
  single: Float64Array,
  start: Float64Array,
  l1: number,
  iterate: Iterate,
): Float64Array {
  const n = single.length;
  const objective: Objective = (weights, gradient) => {
    let loss = 1;
    for (let i = 0; i < n; i++) {
      let row = 0;
      let column = 0;
      for (let j = 0; j < n; j++) {
        row += mutual[i * n + j] * weights[j];
        column += mutual[j * n + i] * weights[j];
      }
      loss += weights[i] * row - 2 * weights[i] * single[i];
      gradient[i] = row + column - 2 * single[i] + l1 * Math.sign(weights[i]);
    }
    return loss;
  };
  return descend(start, objective, iterate);
}

/** Covariances of every day over the stocks: among the members of a pool and with the target. */
export interface DailyCovariances {
  readonly days: number;
  readonly members: number;
  /** [days, members, members] and [days, members]. */
  readonly among: Float64Array;
  readonly withTarget: Float64Array;
  /** [days]: standard deviation of the normalised target. */
  readonly targetDeviation: Float64Array;
}

/**
 * IC of every day of a weighted sum of z-scores, from covariances alone: the panels are not read again. O(days members^2).
 * @param slope takes d IC_t / d w, [days, members], where it is given
 */
export function dailyIcOfWeights(
  covariances: DailyCovariances,
  weights: Float64Array,
  slope?: Float64Array,
): Float64Array {
  const { days, members: n, among, withTarget, targetDeviation } = covariances;
  const result = new Float64Array(days);
  const product = new Float64Array(n);
  for (let t = 0; t < days; t++) {
    let covariance = 0;
    let variance = 0;
    for (let i = 0; i < n; i++) {
      let sum = 0;
      for (let j = 0; j < n; j++) sum += among[(t * n + i) * n + j] * weights[j];
      product[i] = sum;
      covariance += weights[i] * withTarget[t * n + i];
      variance += weights[i] * sum;
    }
    const deviation = Math.sqrt(Math.max(0, variance));
    result[t] = correlationOf(covariance, deviation, targetDeviation[t]);
    if (slope === undefined) continue;
    // Where the divisor is 1, it does not move with the weights.
    const divisor = correlationOf(1, deviation, targetDeviation[t]);
    const moves = divisor === 1 && deviation * targetDeviation[t] !== 1 ? 0 : result[t] / variance;
    for (let i = 0; i < n; i++) slope[t * n + i] = withTarget[t * n + i] * divisor - moves * product[i];
  }
  return result;
}

/** Mean over standard deviation of daily ICs, or mean less beta standard deviations; sample standard deviation. */
export function objectiveOf(daily: Float64Array, objective: PoolObjective): number {
  const days = daily.length;
  let mean = 0;
  for (const value of daily) mean += value;
  mean /= days;
  if (objective.kind === 'ic') return mean;
  let squares = 0;
  for (const value of daily) squares += (value - mean) * (value - mean);
  const deviation = Math.sqrt(squares / (days - 1));
  return objective.kind === 'icir' ? mean / deviation : mean - objective.beta * deviation;
}

/** Weights that maximise ICIR or a lower bound of the daily ICs, less l1 |w|_1, by Adam (spec 10.5). */
export function maximiseDailyObjective(
  covariances: DailyCovariances,
  start: Float64Array,
  settings: { readonly objective: PoolObjective; readonly l1: number; readonly iterate: Iterate },
): Float64Array {
  const { days, members: n } = covariances;
  const slope = new Float64Array(days * n);
  const { objective, l1, iterate } = settings;
  return descend(
    start,
    (weights, gradient) => {
      const daily = dailyIcOfWeights(covariances, weights, slope);
      let mean = 0;
      for (const value of daily) mean += value;
      mean /= days;
      let squares = 0;
      for (const value of daily) squares += (value - mean) * (value - mean);
      const deviation = Math.sqrt(squares / (days - 1));
      gradient.fill(0);
      let size = 0;
      for (let i = 0; i < n; i++) size += Math.abs(weights[i]);
      for (let t = 0; t < days; t++) {
        const deviationSlope = (daily[t] - mean) / ((days - 1) * deviation);
        const factor =
          objective.kind === 'ic'
            ? 1 / days
            : objective.kind === 'icir'
              ? 1 / (days * deviation) - (mean / (deviation * deviation)) * deviationSlope
              : 1 / days - objective.beta * deviationSlope;
        for (let i = 0; i < n; i++) gradient[i] -= factor * slope[t * n + i];
      }
      for (let i = 0; i < n; i++) gradient[i] += l1 * Math.sign(weights[i]);
      return l1 * size - objectiveOf(daily, objective);
    },
    iterate,
  );
}
