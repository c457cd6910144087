import {
  dayMoments,
  dayProducts,
  dayRanks,
  normalisePanel,
  type PanelShape,
  type PanelValues,
} from '../../kernels/panel-operators.js';

/** Below this population standard deviation the divisor of a correlation is 1: it becomes about 0 and never NaN. */
const LEAST_DEVIATION = 1e-3;

/** Z-scores by day, and their root mean square over all stocks, which is their standard deviation. */
export interface Normalised {
  /** [days, stocks]; 0 where the value was missing. */
  readonly scores: PanelValues;
  /** [days]; 0 on days without variation. */
  readonly deviations: Float64Array;
}

/** Z-scores of every day (spec 10.4) in a new array of the kind of `values`. */
export function normaliseByDay(values: PanelValues, shape: PanelShape, threads?: number): Normalised {
  const scores = values instanceof Float32Array ? new Float32Array(values.length) : new Float64Array(values.length);
  const deviations = new Float64Array(shape.days);
  normalisePanel(values, scores, deviations, shape, threads);
  return { scores, deviations };
}

/** Divides a covariance as 10.4 has it. */
export function correlationOf(covariance: number, deviationX: number, deviationY: number): number {
  const small = deviationX < LEAST_DEVIATION || deviationY < LEAST_DEVIATION;
  return covariance / (small ? 1 : deviationX * deviationY);
}

function correlateMoments(moments: Float64Array, days: number): Float64Array {
  const result = new Float64Array(days);
  for (let t = 0; t < days; t++) {
    const [n, xx, yy, xy] = moments.subarray(t * 4, t * 4 + 4);
    result[t] = correlationOf(xy / n, Math.sqrt(xx / n), Math.sqrt(yy / n));
  }
  return result;
}

/**
 * Pearson's correlation of every day over the stocks that both have, `[days]`; NaN on a day that has none of them.
 * Population standard deviations; where one is below 1e-3 the divisor is 1.
 */
export function dailyPearson(x: PanelValues, y: PanelValues, shape: PanelShape, threads?: number): Float64Array {
  return correlateMoments(dayMoments(x, y, shape, threads), shape.days);
}

/** Spearman's correlation of every day: Pearson's on average ranks among the stocks that both have. */
export function dailySpearman(x: PanelValues, y: PanelValues, shape: PanelShape, threads?: number): Float64Array {
  const ranksX = new Float64Array(x.length);
  const ranksY = new Float64Array(y.length);
  dayRanks(x, y, 'average', ranksX, shape, threads);
  dayRanks(y, x, 'average', ranksY, shape, threads);
  return dailyPearson(ranksX, ranksY, shape, threads);
}

/**
 * Pearson's correlations of every day of two normalised panels, `[days]`: one product a day, since z-scores have mean 0 and a
 * standard deviation that is known. All mutual ICs of a pool are so the product of a matrix with its transpose.
 */
export function dailyCorrelations(a: Normalised, b: Normalised, shape: PanelShape, threads?: number): Float64Array {
  const result = dayProducts(a.scores, b.scores, shape, threads);
  for (let t = 0; t < shape.days; t++) {
    result[t] = correlationOf(result[t] / shape.stocks, a.deviations[t], b.deviations[t]);
  }
  return result;
}

export function meanOf(values: Float64Array): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum / values.length;
}

/** Mean over sample standard deviation (n - 1) of daily correlations; NaN for fewer than two days. */
export function informationRatio(daily: Float64Array): number {
  const mean = meanOf(daily);
  let squares = 0;
  for (const value of daily) squares += (value - mean) * (value - mean);
  return mean / Math.sqrt(squares / (daily.length - 1));
}
