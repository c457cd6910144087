import { profileOf } from './count-profile.js';
import {
  type EntropyEstimator,
  type ErrorMethod,
  type EstimateWithError,
  errorMethodOf,
  estimateWithError,
  leaveOneOut,
} from './entropy-estimators.js';
import { type JointTable, marginalCounts, marginalIndex } from './joint-table.js';
import type { Symbols } from './symbols.js';

/** One entropy of a sum: ± H of the variables `variables` (their places in the table). */
export interface EntropyTerm {
  readonly sign: 1 | -1;
  readonly variables: readonly number[];
}

const H = (sign: 1 | -1, ...variables: number[]): EntropyTerm => ({ sign, variables });

/** The measures as sums of entropies; x, y, z are the variables 0, 1, 2 of the table. */
export const MEASURE_TERMS = {
  /** H(X, ...) of all variables is made by `entropyTerms`. */
  mutual_information: [H(1, 0), H(1, 1), H(-1, 0, 1)],
  /** I(X;Y|Z) */
  conditional_mutual_information: [H(1, 0, 2), H(1, 1, 2), H(-1, 2), H(-1, 0, 1, 2)],
  /** I(X;Y|Z) - I(X;Y) */
  interaction_information: [H(1, 0, 2), H(1, 1, 2), H(-1, 2), H(-1, 0, 1, 2), H(-1, 0), H(-1, 1), H(1, 0, 1)],
} as const satisfies Readonly<Record<string, readonly EntropyTerm[]>>;

/** H of all variables of a table together. */
export function entropyTerms(variables: number): EntropyTerm[] {
  return [{ sign: 1, variables: Array.from({ length: variables }, (_, v) => v) }];
}

/** A sum of entropies bound to the cells of a table, so that it can be taken again for other counts in the same cells. */
export interface BoundMeasure {
  readonly terms: readonly { readonly sign: 1 | -1; readonly index: Symbols; readonly support: number }[];
}

/**
 * @param supports number of symbols that can occur, for each variable of the table; that of several variables is the
 *   product
 */
export function bindMeasure(
  table: JointTable,
  terms: readonly EntropyTerm[],
  supports: readonly number[] = table.sizes,
): BoundMeasure {
  return {
    terms: terms.map(({ sign, variables }) => ({
      sign,
      index: marginalIndex(table, variables),
      support: variables.reduce((product, v) => product * supports[v], 1),
    })),
  };
}

/** The measure for `counts` over the cells of its table, in nats. Corrected values may be below 0 and stay so. */
export function measureOf(measure: BoundMeasure, counts: Float64Array, estimator: EntropyEstimator): number {
  let sum = 0;
  for (const { sign, index, support } of measure.terms) {
    sum += sign * estimator.value(profileOf(marginalCounts(counts, index)), support);
  }
  return sum;
}

/**
 * Values with one observation of each cell left out, [cells] (NaN for cells without). An entropy sees the cell by its
 * count in the marginal table alone, so that the work is that of the distinct counts, not of the cells.
 */
export function leaveOneOutCells(
  measure: BoundMeasure,
  counts: Float64Array,
  estimator: EntropyEstimator,
): Float64Array {
  const values = new Float64Array(counts.length);
  for (const { sign, index, support } of measure.terms) {
    const marginal = marginalCounts(counts, index);
    const profile = profileOf(marginal);
    const left = leaveOneOut(profile, support, estimator);
    const byCount = new Map<number, number>();
    profile.values.forEach((count, g) => {
      byCount.set(count, left[g]);
    });
    for (let cell = 0; cell < counts.length; cell++) {
      values[cell] += counts[cell] > 0 ? sign * (byCount.get(marginal[index.codes[cell]]) ?? Number.NaN) : Number.NaN;
    }
  }
  return values;
}

/** Delta-method standard error of a sum of plug-in entropies: of the mean of its local values over the observations. */
export function deltaErrorOf(measure: BoundMeasure, counts: Float64Array): number {
  const local = new Float64Array(counts.length);
  let total = 0;
  for (let cell = 0; cell < counts.length; cell++) total += counts[cell];
  for (const { sign, index } of measure.terms) {
    const marginal = marginalCounts(counts, index);
    for (let cell = 0; cell < counts.length; cell++) {
      if (counts[cell] > 0) local[cell] += sign * Math.log(total / marginal[index.codes[cell]]);
    }
  }
  return Math.sqrt(weightedSquares(local, counts, total) / (total * total));
}

/** Σ n (v - mean)², over the cells that were seen. */
function weightedSquares(values: Float64Array, counts: Float64Array, total: number): number {
  let mean = 0;
  for (let i = 0; i < counts.length; i++) if (counts[i] > 0) mean += (counts[i] / total) * values[i];
  let squares = 0;
  for (let i = 0; i < counts.length; i++) if (counts[i] > 0) squares += counts[i] * (values[i] - mean) ** 2;
  return squares;
}

/** Above this many distinct counts in one marginal table the jackknife, quadratic in them, is left out. */
const MOST_JACKKNIFED = 5000;
/** The same where every value takes an integral. */
const MOST_SLOW_JACKKNIFED = 40;

/** A measure by one estimator with its standard error. */
export function measureWithError(
  measure: BoundMeasure,
  counts: Float64Array,
  estimator: EntropyEstimator,
): EstimateWithError {
  const { terms } = measure;
  const profiles = terms.map(({ index }) => profileOf(marginalCounts(counts, index)));
  if (terms.length === 1) return estimateWithError(profiles[0], terms[0].support, estimator);
  const valueNats = measureOf(measure, counts, estimator);
  const reason =
    estimator.name === 'ansb'
      ? profiles.map((profile) => estimator.estimate(profile, 0).reason).find((found) => found !== undefined)
      : undefined;
  const named = { estimator: estimator.name, valueNats, ...(reason !== undefined && { reason }) };
  if (Number.isNaN(valueNats)) return { ...named, seNats: null, seMethod: null };
  const withMethod = (seNats: number, seMethod: ErrorMethod): EstimateWithError =>
    Number.isFinite(seNats) ? { ...named, seNats, seMethod } : { ...named, seNats: null, seMethod: null };
  const method = errorMethodOf(estimator);
  if (method === 'delta') return withMethod(deltaErrorOf(measure, counts), 'delta');
  const [{ total }] = profiles;
  const most = estimator.name === 'nsb' ? MOST_SLOW_JACKKNIFED : MOST_JACKKNIFED;
  if (method === null || total < 2 || profiles.some((profile) => profile.values.length > most)) {
    return { ...named, seNats: null, seMethod: null };
  }
  const squares = weightedSquares(leaveOneOutCells(measure, counts, estimator), counts, total);
  return withMethod(Math.sqrt(((total - 1) / total) * squares), 'jackknife');
}
