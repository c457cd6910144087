/** Pinball loss rho_tau(e) = max(tau e, (tau - 1) e) of an error e = y - q (Koenker & Bassett 1978). */
export const pinball = (level: number, error: number): number => (error >= 0 ? level * error : (level - 1) * error);

/**
 * Pinball loss with its corner rounded: e^2 / (2 alpha) inside |e| < alpha, |e| - alpha / 2 outside, times tau above and
 * 1 - tau below. `alpha` 0 is the pinball loss itself.
 */
export function smoothPinball(level: number, error: number, alpha: number): number {
  const size = Math.abs(error);
  const huber = size < alpha ? (size * size) / (2 * alpha) : size - alpha / 2;
  return (error >= 0 ? level : 1 - level) * huber;
}

/** Derivative of {@link smoothPinball} in the quantile q (not in the error). At the corner itself it is 0. */
export function smoothPinballSlope(level: number, error: number, alpha: number): number {
  if (error === 0) return 0;
  const size = Math.abs(error);
  const slope = size < alpha ? size / alpha : 1;
  return error > 0 ? -level * slope : (1 - level) * slope;
}

/**
 * Mean pinball loss over rows, level by level. Rows without an outcome and cells without a quantile (NaN) are left out.
 * @param quantiles `[n, m]`
 * @param outcomes `[n]`
 * @param alpha rounds the corner (default 0: not)
 * @returns `[m]`; NaN for a level without a cell
 */
export function pinballByLevel(
  quantiles: ArrayLike<number>,
  outcomes: ArrayLike<number>,
  levels: ArrayLike<number>,
  alpha = 0,
): Float64Array {
  const n = outcomes.length;
  const m = levels.length;
  const sums = new Float64Array(m);
  const counts = new Float64Array(m);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < m; j++) {
      const error = outcomes[i] - quantiles[i * m + j];
      if (Number.isNaN(error)) continue;
      sums[j] += alpha === 0 ? pinball(levels[j], error) : smoothPinball(levels[j], error, alpha);
      counts[j]++;
    }
  }
  return sums.map((sum, j) => sum / counts[j]);
}

/** Mean of the entries of a vector; NaN for an empty one. */
export function meanOf(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum / values.length;
}
