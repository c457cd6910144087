import { centralIntervals } from './levels.js';
import { crossingRate } from './non-crossing.js';
import { meanOf, pinball, pinballByLevel } from './pinball.js';

/**
 * Interval score of the interval [l, u] at miscoverage alpha, the Winkler score (Winkler 1972; Gneiting & Raftery 2007):
 * (u - l) + (2 / alpha) ((l - y)+ + (y - u)+).
 */
export const intervalScore = (lower: number, upper: number, outcome: number, miscoverage: number): number =>
  upper - lower + (2 / miscoverage) * (Math.max(0, lower - outcome) + Math.max(0, outcome - upper));

export interface IntervalScores {
  readonly miscoverage: number;
  readonly score: number;
  readonly coverage: number;
  readonly width: number;
}

/** What a set of quantiles is worth. Means over rows that have an outcome and all quantiles. */
export interface QuantileScores {
  readonly rows: number;
  readonly pinballByLevel: Float64Array;
  readonly meanPinball: number;
  readonly levelCoverage: Float64Array;
  readonly intervals: readonly IntervalScores[];
  /** Mean over the central intervals of |coverage - nominal|; NaN without intervals. */
  readonly meanCoverageError: number;
  /** Weighted interval score; NaN unless the levels are symmetric with a median. */
  readonly wis: number;
  /** Mean over levels of |coverage - level|, and root of the mean square. */
  readonly meanAbsoluteCalibrationError: number;
  readonly rmsCalibrationError: number;
  readonly crossingPairs: number;
  readonly crossingRows: number;
  /** Twice the integral of the pinball loss over (0, 1), by {@link levelWeights}. */
  readonly crps: number;
}

/**
 * Weights that sum to 1 with which the loss at each level stands for its part of (0, 1): from the middle between it and
 * the level below to the middle above.
 */
export function levelWeights(levels: ArrayLike<number>): Float64Array {
  const m = levels.length;
  return Float64Array.from({ length: m }, (_, j) => {
    const low = j === 0 ? 0 : (levels[j - 1] + levels[j]) / 2;
    const high = j === m - 1 ? 1 : (levels[j] + levels[j + 1]) / 2;
    return high - low;
  });
}

/** Weighted interval score of one row by its definition (Bracher et al. 2021): (|y - med| / 2 + sum (alpha / 2) IS) / (K + 1/2). */
export function weightedIntervalScore(row: ArrayLike<number>, outcome: number, levels: ArrayLike<number>): number {
  const { intervals, median, symmetric } = centralIntervals(levels);
  if (!symmetric) return Number.NaN;
  let sum = Math.abs(outcome - row[median]) / 2;
  for (const { lower, upper, miscoverage } of intervals) {
    sum += (miscoverage / 2) * intervalScore(row[lower], row[upper], outcome, miscoverage);
  }
  return sum / (intervals.length + 0.5);
}

/** Rows that can be scored: with an outcome and every quantile. */
export function scoredRows(quantiles: ArrayLike<number>, outcomes: ArrayLike<number>, m: number): Int32Array {
  const rows: number[] = [];
  for (let i = 0; i < outcomes.length; i++) {
    let complete = !Number.isNaN(outcomes[i]);
    for (let j = 0; j < m && complete; j++) complete = !Number.isNaN(quantiles[i * m + j]);
    if (complete) rows.push(i);
  }
  return Int32Array.from(rows);
}

/** Mean pinball loss over the levels of every row `[n]`; NaN where a quantile or the outcome is missing. */
export function pinballByRow(
  quantiles: ArrayLike<number>,
  outcomes: ArrayLike<number>,
  levels: ArrayLike<number>,
): Float64Array {
  const m = levels.length;
  return Float64Array.from({ length: outcomes.length }, (_, i) => {
    let sum = 0;
    for (let j = 0; j < m; j++) sum += pinball(levels[j], outcomes[i] - quantiles[i * m + j]);
    return sum / m;
  });
}

/**
 * All scores of quantiles `[n, m]`. Infinite quantiles (conformal intervals of tiny samples) give infinite scores.
 * @param levels ascending
 */
export function scoreQuantiles(
  quantiles: Float64Array,
  outcomes: ArrayLike<number>,
  levels: ArrayLike<number>,
): QuantileScores {
  const m = levels.length;
  const kept = scoredRows(quantiles, outcomes, m);
  const n = kept.length;
  const whole = n === outcomes.length;
  const rows = whole ? quantiles : new Float64Array(n * m);
  const y = Float64Array.from(kept, (i) => outcomes[i]);
  if (!whole) {
    kept.forEach((i, at) => {
      rows.set(quantiles.subarray(i * m, (i + 1) * m), at * m);
    });
  }

  const levelCoverage = new Float64Array(m);
  for (let i = 0; i < n; i++) for (let j = 0; j < m; j++) if (y[i] <= rows[i * m + j]) levelCoverage[j]++;
  for (let j = 0; j < m; j++) levelCoverage[j] /= n;
  const { intervals: pairs, median, symmetric } = centralIntervals(levels);
  const intervals = pairs.map(({ lower, upper, miscoverage }) => {
    let [score, covered, width] = [0, 0, 0];
    for (let i = 0; i < n; i++) {
      const [low, high] = [rows[i * m + lower], rows[i * m + upper]];
      score += intervalScore(low, high, y[i], miscoverage);
      width += high - low;
      if (y[i] >= low && y[i] <= high) covered++;
    }
    return { miscoverage, score: score / n, coverage: covered / n, width: width / n };
  });
  let distance = 0;
  for (let i = 0; symmetric && i < n; i++) distance += Math.abs(y[i] - rows[i * m + median]) / n;
  const intervalSum = intervals.reduce((sum, { miscoverage, score }) => sum + (miscoverage / 2) * score, 0);
  const wis = (distance / 2 + intervalSum) / (intervals.length + 0.5);
  const byLevel = pinballByLevel(rows, y, levels);
  const errors = levelCoverage.map((coverage, j) => coverage - levels[j]);
  const crossing = crossingRate(rows, m);
  const weights = levelWeights(levels);
  return {
    rows: n,
    pinballByLevel: byLevel,
    meanPinball: meanOf(byLevel),
    levelCoverage,
    intervals,
    meanCoverageError: meanOf(intervals.map(({ coverage, miscoverage }) => Math.abs(coverage - (1 - miscoverage)))),
    wis: symmetric ? wis : Number.NaN,
    meanAbsoluteCalibrationError: meanOf(errors.map(Math.abs)),
    rmsCalibrationError: Math.sqrt(meanOf(errors.map((error) => error * error))),
    crossingPairs: crossing.pairs,
    crossingRows: crossing.rows,
    crps: 2 * byLevel.reduce((sum, loss, j) => sum + weights[j] * loss, 0),
  };
}

/**
 * Probability integral transform of an outcome under a row of quantiles: piecewise linear between levels, and spread
 * evenly over what lies beyond the outermost ones by `tie` in [0, 1). Ties between equal quantiles are spread likewise.
 * @param row ascending, `[m]`
 */
export function pitOf(row: ArrayLike<number>, outcome: number, levels: ArrayLike<number>, tie: number): number {
  const m = levels.length;
  if (outcome < row[0]) return tie * levels[0];
  if (outcome > row[m - 1]) return levels[m - 1] + tie * (1 - levels[m - 1]);
  let first = 0;
  while (row[first] < outcome) first++;
  if (row[first] === outcome) {
    let last = first;
    while (last + 1 < m && row[last + 1] === outcome) last++;
    return levels[first] + tie * (levels[last] - levels[first]);
  }
  const share = (outcome - row[first - 1]) / (row[first] - row[first - 1]);
  return levels[first - 1] + share * (levels[first] - levels[first - 1]);
}
