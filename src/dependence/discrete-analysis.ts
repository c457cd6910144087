import { createRandom, type Random } from '../random.js';
import { type AsymptoticTest, asymptoticTest, countTables, type Margins } from './contingency.js';
import { type CountProfile, profileOf } from './count-profile.js';
import { drawMultinomial } from './draws.js';
import type { EstimateWithError } from './entropy-estimators.js';
import { ENTROPY_ESTIMATORS, type EntropyEstimator, entropyEstimator } from './entropy-estimators.js';
import {
  type BoundMeasure,
  bindMeasure,
  type EntropyTerm,
  leaveOneOutCells,
  MEASURE_TERMS,
  measureOf,
  measureWithError,
} from './information.js';
import { type BootstrapIntervals, bootstrapIntervals } from './intervals.js';
import { type JointTable, marginalCounts, marginalIndex } from './joint-table.js';
import { judgeAgainst, judgeExactly, type PermutationResult } from './permutation.js';
import { drawBlocks, type Exchange, type Segments, singleStrata } from './row-orders.js';
import {
  enumeratedValues,
  prefersTables,
  type ShuffledMeasure,
  shuffledValues,
  tableMargins,
  tableValues,
} from './shuffled-measure.js';
import type { Symbols } from './symbols.js';

/** Rows of symbols as cells of a table. Tables that were given as counts have rows only when they are spread out. */
export interface DiscreteData {
  readonly table: JointTable;
  /** Cell of each row, in the order of the rows. */
  readonly rows: Int32Array;
}

export interface DiscreteSettings {
  readonly estimator: string;
  readonly supports: readonly number[];
  readonly permutations: number;
  readonly bootstrap: number;
  /** 1 - level of the intervals. */
  readonly alpha: number;
  /** Rows of a block, for data whose order matters; null for exchangeable rows. */
  readonly block: number | null;
  readonly segments: Segments;
}

/** How the null values were made. */
export type NullMethod = 'enumeration' | 'tables' | 'rows' | 'strata' | 'shift' | 'block';

export interface TestResult extends PermutationResult {
  readonly method: NullMethod;
  readonly exact: boolean;
  readonly replicates: number;
  /** Strata of one row, whose rows carry no information; null without strata. */
  readonly singleStrata: number | null;
  readonly nullValues: Float64Array;
  readonly asymptotic: AsymptoticTest | null;
}

export interface IntervalResult extends BootstrapIntervals {
  readonly method: 'multinomial' | 'block';
}

/** Tables that are enumerated instead of drawn, at most; fewer where one value takes an integral. */
const MOST_TABLES = 1_000_000;
const MOST_SLOW_TABLES = 10_000;

/** Estimates by all estimators, or by the plug-in and the wanted one alone. `dirichlet-A` that was asked for is added. */
export function allEstimates(
  measure: BoundMeasure,
  counts: Float64Array,
  wanted: string,
  alone = false,
): EstimateWithError[] {
  const listed = ENTROPY_ESTIMATORS.some(({ name }) => name === wanted)
    ? ENTROPY_ESTIMATORS
    : [...ENTROPY_ESTIMATORS, entropyEstimator(wanted)];
  return listed
    .filter(({ name }) => !alone || name === wanted || name === 'plugin')
    .map((estimator) => measureWithError(measure, counts, estimator));
}

const symbolsOfCells = (data: DiscreteData, subset: readonly number[]): Symbols => {
  const { codes, size } = marginalIndex(data.table, subset);
  return { codes: Int32Array.from(data.rows, (cell) => codes[cell]), size };
};

/** What is exchanged in each test: variable 0 against 1 (within strata of 2), or the source 1 against present 0 and past 2. */
export type TestKind = 'pair' | 'conditional' | 'transfer';

function shuffledMeasure(kind: TestKind, data: DiscreteData, settings: DiscreteSettings): ShuffledMeasure {
  const { table } = data;
  const { supports } = settings;
  const estimator = entropyEstimator(settings.estimator);
  const support = (subset: readonly number[]): number => subset.reduce((product, v) => product * supports[v], 1);
  const fixedOf = (terms: readonly EntropyTerm[]): number =>
    measureOf(bindMeasure(table, terms, supports), table.counts, estimator);
  const H = (sign: 1 | -1, ...variables: number[]): EntropyTerm => ({ sign, variables });
  const joined = (sign: 1 | -1, exchanged: number, others: readonly number[]) => ({
    sign,
    other: symbolsOfCells(data, others),
    support: support([exchanged, ...others]),
  });
  if (kind === 'pair') {
    return { exchanged: symbolsOfCells(data, [0]), fixed: fixedOf([H(1, 0), H(1, 1)]), joined: [joined(-1, 0, [1])] };
  }
  if (kind === 'conditional') {
    const fixed = fixedOf([H(1, 0, 2), H(1, 1, 2), H(-1, 2)]);
    return { exchanged: symbolsOfCells(data, [0]), fixed, joined: [joined(-1, 0, [1, 2])] };
  }
  const fixed = fixedOf([H(1, 0, 2), H(-1, 2)]);
  return {
    exchanged: symbolsOfCells(data, [1]),
    fixed,
    joined: [joined(1, 1, [2]), joined(-1, 1, [0, 2])],
  };
}

/** χ² of 2 N I0, over the strata of the conditioning variable where there is one. */
function asymptoticOf(kind: TestKind, table: JointTable): AsymptoticTest {
  const [a, b, given] = kind === 'transfer' ? [1, 0, 2] : [0, 1, 2];
  const conditional = kind !== 'pair';
  const terms = conditional ? MEASURE_TERMS.conditional_mutual_information : MEASURE_TERMS.mutual_information;
  const plugin = measureOf(bindMeasure(table, terms), table.counts, entropyEstimator('plugin'));
  const strata = conditional ? table.cells[given] : new Int32Array(table.counts.length);
  const count = conditional ? table.sizes[given] : 1;
  const margins: Margins[] = [];
  const cellsOf: number[][] = Array.from({ length: count }, () => []);
  for (let cell = 0; cell < strata.length; cell++) cellsOf[strata[cell]].push(cell);
  for (const cells of cellsOf) {
    const add = (variable: number): Float64Array => {
      const sums = new Map<number, number>();
      for (const cell of cells) {
        const symbol = table.cells[variable][cell];
        sums.set(symbol, (sums.get(symbol) ?? 0) + table.counts[cell]);
      }
      return Float64Array.from(sums.values());
    };
    margins.push({ rows: add(a), columns: add(b) });
  }
  return asymptoticTest(margins, plugin);
}

/**
 * Whether the measure is above what exchanged rows give. Rows of a pair are exchanged freely (all tables enumerated where
 * they are few, drawn where that is quicker), turned or moved in blocks; a conditional pair within the strata of the third
 * variable; a source's history as rows against the target's present and past.
 */
export function testDiscrete(
  kind: TestKind,
  data: DiscreteData,
  observed: number,
  exchange: Exchange,
  settings: DiscreteSettings,
  random: Random,
  onReplicate: () => void,
): TestResult {
  const estimator = entropyEstimator(settings.estimator);
  const measure = shuffledMeasure(kind, data, settings);
  const asymptotic = asymptoticOf(kind, data.table);
  const rows = data.rows.length;
  const margins = kind === 'pair' ? tableMargins(measure, exchange) : undefined;
  const common = {
    asymptotic,
    singleStrata: exchange.kind === 'strata' ? singleStrata(exchange.codes, exchange.size) : null,
  };
  const most = estimator.name === 'nsb' ? MOST_SLOW_TABLES : MOST_TABLES;
  if (margins && countTables(margins, most) !== undefined) {
    const { values, probabilities } = enumeratedValues(measure, estimator, margins);
    return {
      ...judgeExactly(observed, values, probabilities),
      ...common,
      method: 'enumeration',
      exact: true,
      replicates: values.length,
      nullValues: spreadByProbability(values, probabilities),
    };
  }
  const byTables = margins !== undefined && prefersTables(margins, rows);
  const nullValues = byTables
    ? tableValues(measure, estimator, margins, random, settings.permutations, onReplicate)
    : shuffledValues(measure, estimator, exchange, random, settings.permutations, onReplicate);
  return {
    ...judgeAgainst(observed, nullValues),
    ...common,
    method: byTables ? 'tables' : exchange.kind,
    exact: false,
    replicates: nullValues.length,
    nullValues,
  };
}

/** A thousand quantiles of an exact law, for pictures. */
function spreadByProbability(values: readonly number[], probabilities: readonly number[]): Float64Array {
  const order = values.map((_, i) => i).sort((a, b) => values[a] - values[b]);
  const count = Math.min(1000, values.length);
  const result = new Float64Array(count);
  let at = 0;
  let mass = probabilities[order[0]] ?? 1;
  for (let q = 0; q < count; q++) {
    while (mass < (q + 0.5) / count && at + 1 < order.length) mass += probabilities[order[++at]];
    result[q] = values[order[at]];
  }
  return result;
}

/** The four bootstrap intervals of a measure by the chosen estimator: multinomial draws on the cells, or blocks of rows. */
export function bootstrapDiscrete(
  measure: BoundMeasure,
  data: DiscreteData,
  settings: DiscreteSettings,
  random: Random,
  onReplicate: () => void,
): IntervalResult {
  const estimator = entropyEstimator(settings.estimator);
  const { counts, total } = data.table;
  const estimate = measureOf(measure, counts, estimator);
  const drawn = new Float64Array(counts.length);
  const { block, segments } = settings;
  const replicates = Float64Array.from({ length: settings.bootstrap }, (_, b) => {
    onReplicate();
    const stream = random.fork(b);
    if (block === null) drawMultinomial(stream, total, counts, drawn);
    else {
      drawn.fill(0);
      for (const row of drawBlocks(segments, block, data.rows.length, stream)) drawn[data.rows[row]]++;
    }
    return measureOf(measure, drawn, estimator);
  });
  const jackknife = jackknifeOf(measure, counts, estimator);
  return {
    ...bootstrapIntervals(estimate, replicates, jackknife, settings.alpha),
    method: block === null ? 'multinomial' : 'block',
  };
}

/** Leave-one-out values a cell; by distinct counts where the measure is a single entropy. */
function jackknifeOf(
  measure: BoundMeasure,
  counts: Float64Array,
  estimator: EntropyEstimator,
): { values: Float64Array; weights: Float64Array } {
  const values = leaveOneOutCells(measure, counts, estimator);
  const weights = counts.map((count, cell) => (Number.isNaN(values[cell]) ? 0 : count));
  return { values, weights };
}

/** One line of a convergence plot: values at growing subsamples. */
export interface ConvergenceLine {
  readonly estimator: string;
  readonly mean: Float64Array;
  /** Of the mean over the subsamples. */
  readonly se: Float64Array;
}

export interface Convergence {
  readonly sizes: Int32Array;
  readonly subsamples: number;
  readonly lines: readonly ConvergenceLine[];
}

const LEAST_SUBSAMPLE = 8;
const SIZES = 10;
/** Subsamples for an estimator that takes an integral for every value. */
const SLOW_SUBSAMPLES = 3;
/** Rows that are drawn for all subsamples together, at most. */
const DRAWN_ROWS = 20_000_000;

/** Sizes from about a five-hundredth of the rows to all of them, in equal ratios. */
export function subsampleSizes(rows: number, least = LEAST_SUBSAMPLE): Int32Array {
  const from = Math.min(rows, Math.max(least, Math.round(rows / 512)));
  const count = Math.min(SIZES, 1 + Math.floor(2 * Math.log2(rows / from)));
  if (count < 2) return Int32Array.of(rows);
  const sizes = Array.from({ length: count }, (_, i) => Math.round(from * (rows / from) ** (i / (count - 1))));
  return Int32Array.from([...new Set(sizes)]);
}

/** Every estimator on nested subsamples without replacement: where the curves have not met, the sample is too small. */
export function discreteConvergence(
  measure: BoundMeasure,
  data: DiscreteData,
  estimators: readonly EntropyEstimator[],
  random: Random,
): Convergence {
  const rows = data.rows.length;
  const sizes = subsampleSizes(rows);
  const subsamples = Math.max(2, Math.min(20, Math.floor(DRAWN_ROWS / rows)));
  const repeats = estimators.map(({ name }) => (name === 'nsb' ? Math.min(subsamples, SLOW_SUBSAMPLES) : subsamples));
  const values = repeats.map((count) => new Float64Array(sizes.length * count));
  const counts = new Float64Array(data.table.counts.length);
  for (let r = 0; r < subsamples; r++) {
    const order = random.fork(r).permutation(rows);
    counts.fill(0);
    let taken = 0;
    sizes.forEach((size, s) => {
      for (; taken < size; taken++) counts[data.rows[order[taken]]]++;
      estimators.forEach((estimator, e) => {
        if (r >= repeats[e]) return;
        const at = s * repeats[e] + r;
        // All rows are the same subsample every time.
        values[e][at] = size === rows && r > 0 ? values[e][at - 1] : measureOf(measure, counts, estimator);
      });
    });
  }
  const lines = estimators.map((estimator, e) => ({
    estimator: estimator.name,
    ...meansOf(values[e], sizes.length, repeats[e]),
  }));
  return { sizes, subsamples, lines };
}

/** Means and their standard errors over runs of `length` values; values that are no numbers leave a gap. */
export function meansOf(values: Float64Array, runs: number, length: number): { mean: Float64Array; se: Float64Array } {
  const mean = new Float64Array(runs);
  const se = new Float64Array(runs);
  for (let s = 0; s < runs; s++) {
    const run = values.subarray(s * length, (s + 1) * length);
    mean[s] = run.reduce((sum, value) => sum + value, 0) / length;
    const squares = run.reduce((sum, value) => sum + (value - mean[s]) ** 2, 0);
    se[s] = length > 1 ? Math.sqrt(squares / (length - 1) / length) : 0;
  }
  return { mean, se };
}

/** Profile of the finest table: what is known of coverage comes from it. */
export function tableProfile(table: JointTable, subset: readonly number[]): CountProfile {
  return profileOf(marginalCounts(table.counts, marginalIndex(table, subset)));
}

/** Streams for the parts of one measure, whatever other measures draw. */
export function measureStreams(seed: number, place: number): { test: Random; bootstrap: Random; convergence: Random } {
  const root = createRandom(seed).fork(0x64657000 + place);
  return { test: root.fork(1), bootstrap: root.fork(2), convergence: root.fork(3) };
}
