import { normalCdf, normalQuantile } from '../linalg/special-functions.js';
import { quantileType7 } from './quantiles.js';

export interface Interval {
  readonly low: number;
  readonly high: number;
}

/** The four intervals of a bootstrap, with what they were made from. */
export interface BootstrapIntervals {
  readonly replicates: number;
  /** Mean of the replicates less the estimate. */
  readonly bias: number;
  /** The estimate less the bias. */
  readonly corrected: number;
  readonly se: number;
  readonly percentile: Interval;
  readonly basic: Interval;
  readonly normal: Interval;
  readonly bca: Interval;
  readonly z0: number;
  readonly acceleration: number;
}

/** Leave-one-out values, each for `weights[i]` observations. */
export interface Jackknife {
  readonly values: ArrayLike<number>;
  readonly weights: ArrayLike<number>;
}

/** Acceleration Σd³ / (6 (Σd²)^1.5), d the mean of the leave-one-out values less each; 0 where they are all equal. */
export function accelerationOf({ values, weights }: Jackknife): number {
  let total = 0;
  let mean = 0;
  for (let i = 0; i < values.length; i++) {
    if (weights[i] === 0) continue;
    total += weights[i];
    mean += weights[i] * values[i];
  }
  mean /= total;
  let squares = 0;
  let cubes = 0;
  let largest = 0;
  for (let i = 0; i < values.length; i++) {
    if (weights[i] === 0) continue;
    const d = mean - values[i];
    largest = Math.max(largest, Math.abs(d));
    squares += weights[i] * d * d;
    cubes += weights[i] * d * d * d;
  }
  // Differences that are rounding alone have no skewness.
  return largest <= 1e-14 * Math.max(1, Math.abs(mean)) ? 0 : cubes / (6 * squares ** 1.5);
}

/**
 * Percentile, basic (2H - q), bias-corrected normal (H - (mean - H) ± z sd) and BCa intervals at level 1 - alpha;
 * quantiles of type 7. z0 takes the share of replicates below the estimate and half of those equal to it, clipped to the
 * probabilities that the replicates can tell.
 */
export function bootstrapIntervals(
  estimate: number,
  replicates: Float64Array,
  jackknife: Jackknife,
  alpha = 0.05,
): BootstrapIntervals {
  const count = replicates.length;
  const sorted = replicates.slice().sort();
  let sum = 0;
  let below = 0;
  for (const value of replicates) {
    sum += value;
    if (value === estimate) below += 0.5;
    else if (value < estimate) below++;
  }
  const mean = sum / count;
  let squares = 0;
  for (const value of replicates) squares += (value - mean) ** 2;
  const se = Math.sqrt(squares / (count - 1));
  const bias = mean - estimate;
  const corrected = estimate - bias;
  const z = normalQuantile(1 - alpha / 2);
  const low = quantileType7(sorted, alpha / 2);
  const high = quantileType7(sorted, 1 - alpha / 2);
  const share = Math.min(1 - 1 / (2 * count), Math.max(1 / (2 * count), below / count));
  const z0 = normalQuantile(share);
  const acceleration = accelerationOf(jackknife);
  const shifted = (quantile: number): number => {
    const moved = z0 + quantile;
    return quantileType7(sorted, normalCdf(z0 + moved / (1 - acceleration * moved)));
  };
  return {
    replicates: count,
    bias,
    corrected,
    se,
    percentile: { low, high },
    basic: { low: 2 * estimate - high, high: 2 * estimate - low },
    normal: { low: corrected - z * se, high: corrected + z * se },
    bca: { low: shifted(-z), high: shifted(z) },
    z0,
    acceleration,
  };
}
