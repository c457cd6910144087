import { InputError } from '../errors.js';
import type { Points } from '../kernels/neighbours.js';
import {
  checkNeighbours,
  isNeighbourEstimator,
  type NeighbourEstimator,
  splitEstimates,
  testNeighbours,
} from './continuous-analysis.js';
import { type CountProfile, checkSupport } from './count-profile.js';
import type { DataColumn } from './data-columns.js';
import {
  allEstimates,
  bootstrapDiscrete,
  type Convergence,
  type DiscreteData,
  type DiscreteSettings,
  discreteConvergence,
  type IntervalResult,
  measureStreams,
  type TestKind,
  type TestResult,
  tableProfile,
  testDiscrete,
} from './discrete-analysis.js';
import {
  DEFAULT_ESTIMATOR,
  ENTROPY_ESTIMATORS,
  type EstimateWithError,
  entropyEstimator,
} from './entropy-estimators.js';
import { bindMeasure, type EntropyTerm } from './information.js';
import { type JointTable, jointTable } from './joint-table.js';
import type { Exchange, Segments } from './row-orders.js';
import type { SerialTest } from './serial-dependence.js';
import { joinSymbols, type Symbols } from './symbols.js';
import type { Variable, VariableSettings } from './variables.js';

export interface AnalysisSettings extends VariableSettings {
  /** Null for the default of the kind of measure. */
  readonly estimator: string | null;
  /** Which neighbour of the continuous estimators. */
  readonly k: number;
  /** Symbols that can occur, one number a variable; null where none is stated. */
  readonly support: readonly number[] | null;
  readonly permutations: number;
  readonly bootstrap: number;
  readonly alpha: number;
  readonly exchange: 'rows' | 'shift' | 'block';
  readonly block: number | null;
  /** Rows of the target's past (k) and of the source's (l). */
  readonly history: number;
  readonly lag: number;
  readonly convergence: boolean;
  readonly seed: number;
}

export interface AnalysisArguments {
  /** `pairs`: every two of the variables; `transfer`: between the first two, both ways. */
  readonly mode: 'measures' | 'transfer' | 'pairs';
  readonly variables: readonly { readonly name: string; readonly columns: readonly DataColumn[] }[];
  /** How often each row was seen; null for once. */
  readonly counts: Float64Array | null;
  readonly group: DataColumn | null;
  readonly settings: AnalysisSettings;
  readonly threads: number;
}

export type MeasureName =
  | 'entropy'
  | 'differential_entropy'
  | 'mutual_information'
  | 'conditional_mutual_information'
  | 'interaction_information'
  | 'transfer_entropy'
  | 'active_information';

/** One measure of one set of variables. */
export interface MeasureResult {
  readonly measure: MeasureName;
  /** `x`, `x; y`, `x; y | z`, `x -> y` with the names of the variables. */
  readonly of: string;
  readonly samples: number;
  /** Of the joint table; null for continuous measures. */
  readonly profile: Omit<CountProfile, 'values' | 'multiplicities'> | null;
  readonly support: number | null;
  readonly estimates: readonly EstimateWithError[];
  readonly chosen: EstimateWithError;
  readonly test: TestResult | null;
  readonly interval: IntervalResult | null;
  readonly convergence: Convergence | null;
}

export interface VariableResult {
  readonly name: string;
  readonly columns: readonly string[];
  readonly kind: Variable['kind'];
  readonly symbols: number | null;
  readonly bins: readonly number[] | null;
  readonly serial: SerialTest | null;
}

export interface AnalysisResult {
  readonly rows: number;
  readonly segments: number;
  readonly variables: readonly VariableResult[];
  readonly measures: readonly MeasureResult[];
  readonly warnings: readonly string[];
}

/** What all measures of one run share. */
export interface Bench {
  readonly args: AnalysisArguments;
  readonly variables: readonly Variable[];
  readonly segments: Segments;
  readonly warnings: string[];
  /** Place of the next measure: its streams of random numbers depend on it alone. */
  next: number;
  tick(): void;
}

export const isSymbols = (variable: Variable): variable is Variable & { readonly kind: 'symbols' } =>
  variable.kind === 'symbols';
export const symbolsOfVariable = (variable: Variable): Symbols =>
  variable.kind === 'symbols' ? variable.symbols : { codes: new Int32Array(0), size: 0 };

/**
 * The stated or observed number of symbols of each variable of a table.
 * @throws InputError for a support below what was seen
 */
export function supportsOf(bench: Bench, table: JointTable, places: readonly number[]): number[] {
  const { support } = bench.args.settings;
  return places.map((place, v) => {
    const stated = support?.[place];
    if (stated === undefined) return table.sizes[v];
    checkSupport(stated, table.sizes[v], `variable "${bench.variables[place].name}"`);
    return stated;
  });
}

function discreteSettings(
  bench: Bench,
  supports: readonly number[],
  segments: Segments,
  estimator: string,
): DiscreteSettings {
  const { permutations, bootstrap, alpha, block } = bench.args.settings;
  return { estimator, supports, permutations, bootstrap, alpha, block, segments };
}

export interface DiscreteSpec {
  readonly measure: MeasureName;
  readonly of: string;
  /** Places of the variables in the table. */
  readonly terms: readonly EntropyTerm[];
  /** Variables of the table that the measure is about. */
  readonly subset: readonly number[];
  readonly test: { readonly kind: TestKind; readonly exchange: Exchange } | null;
  /** False where the rows of a series overlap and only blocks of them may be drawn. */
  readonly exchangeable: boolean;
}

/** A measure of a table by all estimators, with what was asked for beside. */
export function measureDiscrete(
  bench: Bench,
  data: DiscreteData,
  supports: readonly number[],
  segments: Segments,
  spec: DiscreteSpec,
): MeasureResult {
  const { settings } = bench.args;
  // An estimator of points was named: it is for the other measures of the run.
  const name =
    settings.estimator === null || isNeighbourEstimator(settings.estimator) ? DEFAULT_ESTIMATOR : settings.estimator;
  const estimator = entropyEstimator(name);
  const { table } = data;
  const measure = bindMeasure(table, spec.terms, supports);
  const estimates = allEstimates(measure, table.counts, estimator.name, bench.args.mode === 'pairs');
  const chosen = estimates.find((estimate) => estimate.estimator === estimator.name) ?? estimates[0];
  const streams = measureStreams(settings.seed, bench.next++);
  const own = discreteSettings(bench, supports, segments, name);
  const profile = tableProfile(table, spec.subset);
  const { total, observed, singles, doubles } = profile;
  const known = !Number.isNaN(chosen.valueNats);
  return {
    measure: spec.measure,
    of: spec.of,
    samples: table.total,
    profile: { total, observed, singles, doubles },
    support: settings.support === null ? null : spec.subset.reduce((product, v) => product * supports[v], 1),
    estimates,
    chosen,
    test:
      known && spec.test && settings.permutations > 0
        ? testDiscrete(spec.test.kind, data, chosen.valueNats, spec.test.exchange, own, streams.test, bench.tick)
        : null,
    interval:
      known && settings.bootstrap > 0 && (spec.exchangeable || settings.block !== null)
        ? bootstrapDiscrete(measure, data, own, streams.bootstrap, bench.tick)
        : null,
    convergence: settings.convergence
      ? discreteConvergence(measure, data, ENTROPY_ESTIMATORS, streams.convergence)
      : null,
  };
}

export interface ContinuousSpec {
  readonly measure: MeasureName;
  readonly of: string;
  readonly points: readonly Points[];
  readonly estimators: readonly NeighbourEstimator[];
  readonly test: { readonly exchanged: number; readonly exchange: Exchange } | null;
}

/** A measure of points by all estimators that there are for it. */
export function measureContinuous(bench: Bench, spec: ContinuousSpec): MeasureResult {
  const { settings, threads } = bench.args;
  const [{ rows }] = spec.points;
  const what = `${spec.measure.replaceAll('_', ' ')} of ${spec.of}`;
  checkNeighbours(rows, settings.k, what);
  const wanted = spec.estimators.find(({ name }) => name === settings.estimator) ?? spec.estimators[0];
  const streams = measureStreams(settings.seed, bench.next++);
  const neighbours = { k: settings.k, threads };
  const { convergence, estimates } = splitEstimates(
    spec.estimators,
    wanted.name,
    spec.points,
    neighbours,
    what,
    streams.convergence,
    bench.tick,
  );
  const chosen = estimates.find((estimate) => estimate.estimator === wanted.name) ?? estimates[0];
  const test =
    spec.test && settings.permutations > 0
      ? testNeighbours(
          wanted,
          spec.points,
          spec.test.exchanged,
          chosen.valueNats,
          spec.test.exchange,
          settings.permutations,
          neighbours,
          streams.test,
          bench.tick,
        )
      : null;
  return {
    measure: spec.measure,
    of: spec.of,
    samples: rows,
    profile: null,
    support: null,
    estimates,
    chosen,
    test,
    interval: null,
    convergence: settings.convergence ? convergence : null,
  };
}

/** How rows are exchanged under the null hypothesis, by the options. */
export function exchangeOf(bench: Bench, segments: Segments): Exchange {
  const { exchange, block } = bench.args.settings;
  if (exchange === 'shift') return { kind: 'shift', segments };
  if (exchange === 'block' && block !== null) return { kind: 'block', segments, length: block };
  return { kind: 'rows' };
}

/** @throws InputError when some variables are symbols and others numbers */
export function requireOneKind(variables: readonly Variable[], what: string): void {
  const [first] = variables;
  const other = variables.find((variable) => variable.kind !== first.kind);
  if (other === undefined) return;
  throw new InputError(
    `${what}: "${first.name}" holds ${first.kind}, "${other.name}" ${other.kind}; bin the numbers with --bins, or name one kind with --as`,
  );
}

/** Rows of symbols as cells of their table. */
export function discreteData(variables: readonly Symbols[]): DiscreteData {
  const table = jointTable(variables);
  return { table, rows: joinSymbols(variables).codes };
}

/** A table of counts with its rows spread out, one cell after another. */
