import { RESPONSE_FIELD, RESPONSE_FIELDS } from '../../kernels/policy-tokens.js';
import { addTo, createCompensatedSum, totalOf } from '../compensated-sum.js';

const F = RESPONSE_FIELD;

/** A mean with its standard error. */
export interface Estimate {
  readonly mean: number;
  /** NaN where there is no second unit to tell the spread from. */
  readonly se: number;
}

/** Figures of the responses of a step, in the order of the dump. */
export interface ResponseTable {
  readonly responses: number;
  /** [responses, RESPONSE_FIELDS]. */
  readonly figures: Float64Array;
}

export function figureOf(table: ResponseTable, response: number, field: number): number {
  return table.figures[response * RESPONSE_FIELDS + field];
}

/** Sum of a field over all responses. */
export function fieldTotal(table: ResponseTable, field: number): number {
  const total = createCompensatedSum();
  for (let r = 0; r < table.responses; r++) addTo(total, figureOf(table, r, field));
  return totalOf(total);
}

/**
 * Mean over tokens of a quantity whose sum in every response is `sums`, with the standard error that allows for tokens of one
 * response being alike: sqrt(R / (R - 1) sum (S_r - n_r mean)^2) / N.
 * @param counts [responses]: tokens that count.
 */
export function clusteredMean(sums: Float64Array, counts: Float64Array): Estimate {
  const total = createCompensatedSum();
  const tokens = createCompensatedSum();
  let responses = 0;
  for (let r = 0; r < sums.length; r++) {
    if (counts[r] === 0) continue;
    addTo(total, sums[r]);
    addTo(tokens, counts[r]);
    responses++;
  }
  const n = totalOf(tokens);
  const mean = totalOf(total) / n;
  const squares = createCompensatedSum();
  for (let r = 0; r < sums.length; r++) if (counts[r] > 0) addTo(squares, (sums[r] - counts[r] * mean) ** 2);
  const se = responses > 1 ? Math.sqrt((responses / (responses - 1)) * totalOf(squares)) / n : Number.NaN;
  return { mean, se };
}

/** Plain mean of the values that are known (not NaN), with its standard error. */
export function meanOfKnown(values: ArrayLike<number>): Estimate {
  const total = createCompensatedSum();
  let n = 0;
  for (let i = 0; i < values.length; i++) {
    if (Number.isNaN(values[i])) continue;
    addTo(total, values[i]);
    n++;
  }
  const mean = totalOf(total) / n;
  const squares = createCompensatedSum();
  for (let i = 0; i < values.length; i++) if (!Number.isNaN(values[i])) addTo(squares, (values[i] - mean) ** 2);
  return { mean, se: n > 1 ? Math.sqrt(totalOf(squares) / (n - 1) / n) : Number.NaN };
}

/** One field of every response. */
export function column(table: ResponseTable, field: number): Float64Array {
  const values = new Float64Array(table.responses);
  for (let r = 0; r < values.length; r++) values[r] = figureOf(table, r, field);
  return values;
}

/** Mean of a token's quantity in every response; NaN for responses of which no token counts. */
export function responseMeans(table: ResponseTable, field: number): Float64Array {
  const means = column(table, field);
  for (let r = 0; r < means.length; r++) means[r] /= figureOf(table, r, F.count);
  return means;
}

/** Token mean of a field with its standard error. */
export function tokenMean(table: ResponseTable, field: number): Estimate {
  return clusteredMean(column(table, field), column(table, F.count));
}

/** Sums over the tokens of every response of (A - mean A)(ln pi - mean ln pi), means over the step. */
export function covarianceSums(table: ResponseTable, meanLogProb: number, meanAdvantage: number): Float64Array {
  const sums = new Float64Array(table.responses);
  for (let r = 0; r < sums.length; r++) {
    const n = figureOf(table, r, F.count);
    if (n === 0) continue;
    const advantage = figureOf(table, r, F.advantage) / n - meanAdvantage;
    const logProb = figureOf(table, r, F.logProb) / n - meanLogProb;
    sums[r] = figureOf(table, r, F.products) + n * advantage * logProb;
  }
  return sums;
}
