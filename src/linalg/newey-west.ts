/** A mean of dependent observations. */
export interface DependentMean {
  readonly mean: number;
  /** Newey-West standard error: Bartlett weights up to the lag. */
  readonly standardError: number;
  /** Independent observations that would leave the mean as uncertain: n gamma_0 / long-run variance. */
  readonly effectiveSample: number;
}

/**
 * Mean of a stationary series with the standard error of Newey & West (1987): long-run variance
 * gamma_0 + 2 sum_{l=1..lag} (1 - l / (lag + 1)) gamma_l, autocovariances divided by n. NaN where fewer than two values are
 * given; a series without variation has standard error 0.
 * @param lag lags that count; more than n - 1 are none
 */
export function dependentMean(values: Float64Array, lag: number): DependentMean {
  const n = values.length;
  if (n < 2) return { mean: n === 1 ? values[0] : Number.NaN, standardError: Number.NaN, effectiveSample: n };
  let mean = 0;
  for (const value of values) mean += value;
  mean /= n;
  const covariance = (distance: number): number => {
    let sum = 0;
    for (let t = distance; t < n; t++) sum += (values[t] - mean) * (values[t - distance] - mean);
    return sum / n;
  };
  const variance = covariance(0);
  let longRun = variance;
  for (let l = 1; l <= Math.min(lag, n - 1); l++) longRun += 2 * (1 - l / (lag + 1)) * covariance(l);
  longRun = Math.max(0, longRun);
  return {
    mean,
    standardError: Math.sqrt(longRun / n),
    effectiveSample: longRun > 0 ? (n * variance) / longRun : n,
  };
}
