/** Conformal corrections of one central interval: how far its ends move. Infinite where the rank exceeds n. */
export interface ConformalOffsets {
  readonly rows: number;
  /** Rank among the n calibration scores. */
  readonly rank: number;
  /** Subtracted from the lower end. */
  readonly lower: number;
  /** Added to the upper end. */
  readonly upper: number;
}

/** ceil(share (n + 1)), safe against a product that floating point put just above an integer. */
export const conformalRank = (share: number, n: number): number => Math.ceil(share * (n + 1) - 1e-12);

function orderStatistic(scores: Float64Array, rank: number): number {
  return rank > scores.length ? Number.POSITIVE_INFINITY : scores.sort()[Math.max(0, rank - 1)];
}

/**
 * Conformalized quantile regression (Romano, Patterson & Candes 2019): with scores E_i = max(lo_i - y_i, y_i - hi_i) of a
 * calibration set the interval [lo - Q, hi + Q], Q the ceil((1 - alpha)(n + 1))-th smallest score, covers a new
 * exchangeable sample with probability at least 1 - alpha, and at most 1 / (n + 1) more where scores do not tie. `asymmetric` (theorem 2) takes
 * each side by itself at level 1 - alpha / 2. Offsets may be negative; they are infinite, not clamped, where n is too
 * small. Rows with NaN are left out.
 * @param lower, upper, outcomes `[n]`
 * @param miscoverage alpha
 */
export function conformalOffsets(
  lower: ArrayLike<number>,
  upper: ArrayLike<number>,
  outcomes: ArrayLike<number>,
  miscoverage: number,
  asymmetric: boolean,
): ConformalOffsets {
  const below: number[] = [];
  const above: number[] = [];
  for (let i = 0; i < outcomes.length; i++) {
    const under = lower[i] - outcomes[i];
    const over = outcomes[i] - upper[i];
    if (Number.isNaN(under) || Number.isNaN(over)) continue;
    below.push(under);
    above.push(over);
  }
  const rows = below.length;
  const rank = conformalRank(asymmetric ? 1 - miscoverage / 2 : 1 - miscoverage, rows);
  if (asymmetric) {
    return {
      rows,
      rank,
      lower: orderStatistic(Float64Array.from(below), rank),
      upper: orderStatistic(Float64Array.from(above), rank),
    };
  }
  const offset = orderStatistic(
    Float64Array.from(below, (under, i) => Math.max(under, above[i])),
    rank,
  );
  return { rows, rank, lower: offset, upper: offset };
}

/** Column `place` of a matrix `[n, m]`. */
export function columnOf(quantiles: ArrayLike<number>, m: number, place: number): Float64Array {
  return Float64Array.from({ length: quantiles.length / m }, (_, i) => quantiles[i * m + place]);
}

/** Moves the ends of one interval in all rows, in place. Negative offsets may turn an interval round; sorting follows. */
export function applyOffsets(
  quantiles: Float64Array,
  m: number,
  lower: number,
  upper: number,
  offsets: Pick<ConformalOffsets, 'lower' | 'upper'>,
): void {
  for (let start = 0; start < quantiles.length; start += m) {
    quantiles[start + lower] -= offsets.lower;
    quantiles[start + upper] += offsets.upper;
  }
}
