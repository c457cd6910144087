import { gaussianInformation, linfoot, pearsonError } from '../linalg/correlation.js';
import { benjaminiHochberg } from '../linalg/multiple-tests.js';
import type { Cell } from '../report/csv.js';
import type { PartialReport, ReportBody } from '../report/merge.js';
import { numberOfReport, reportObject } from '../report/values.js';
import type { ClumpDecision } from './clumping.js';
import { ESTIMATORS, type EstimatorName } from './estimators.js';
import { nullMoments, permutationP } from './permutation.js';
import { rankColumns } from './ranking.js';
import type { ScreenResult } from './screen-job.js';

/** Name of the report's schema. */
export const SCREEN_SCHEMA = 'screen';

/** What the figures of all columns are made from: mergeable over shards, lossless as JSON. */
export type ScreenStatistics = Omit<ScreenResult, 'kept' | 'clumps' | 'keptValues' | 'outcomeValues' | 'spilled'>;

/** What the report needs to know beside the statistics. */
export interface ScreenReportSettings {
  /** The first one ranks. */
  readonly estimators: readonly EstimatorName[];
  readonly permutations: number;
  readonly stopAfter: number;
  readonly top: number;
}

/** All figures of one column. Absent figures are null. */
export interface ColumnFigures {
  readonly rank: number;
  readonly column: string;
  readonly index: number;
  readonly kind: 'continuous' | 'discrete';
  /** By the estimator that ranks. */
  readonly mi_nats: number;
  readonly mi_nats_se: number | null;
  readonly linfoot: number;
  readonly mi_kernel_nats: number | null;
  readonly mi_binned_nats: number | null;
  readonly mi_binned_nats_se: number | null;
  readonly mi_ksg_nats: number | null;
  readonly pearson_r: number | null;
  readonly pearson_r_se: number | null;
  readonly gaussian_mi_nats: number | null;
  readonly p_value: number | null;
  readonly replicates: number;
  readonly q_value: number | null;
  readonly null_mean_nats: number | null;
  readonly mi_minus_null_mean_nats: number | null;
  readonly null_z: number | null;
}

export const SCREEN_COLUMNS_OF_TABLE = [
  'rank',
  'column',
  'index',
  'kind',
  'mi_nats',
  'mi_nats_se',
  'linfoot',
  'mi_kernel_nats',
  'mi_binned_nats',
  'mi_binned_nats_se',
  'mi_ksg_nats',
  'pearson_r',
  'pearson_r_se',
  'gaussian_mi_nats',
  'p_value',
  'replicates',
  'q_value',
  'null_mean_nats',
  'mi_minus_null_mean_nats',
  'null_z',
] as const satisfies readonly (keyof ColumnFigures)[];

export interface ScreenBody {
  readonly rows: number;
  readonly columns: number;
  readonly measured_columns: number;
  readonly constant_columns: number;
  /** The first ten. */
  readonly constant_column_names: readonly string[];
  readonly discrete_columns: number;
  readonly outcome: {
    readonly kind: string;
    readonly bins: number;
    readonly levels: readonly { readonly name: string; readonly rows: number }[] | null;
  };
  readonly ranked_by: EstimatorName;
  readonly estimators: readonly EstimatorName[];
  readonly permutations: number;
  readonly stop_after: number;
  readonly significant_columns_q05: number | null;
  readonly ranking: readonly ColumnFigures[];
  readonly clumping: {
    readonly threshold_nats: number;
    readonly kept: readonly string[];
    readonly dropped: readonly { readonly column: string; readonly because: string; readonly mi_nats: number }[];
  } | null;
}

const orNull = (value: number | undefined): number | null =>
  value === undefined || Number.isNaN(value) ? null : value;

/** Order, p and q of all columns. */
interface Ranked {
  readonly order: Int32Array;
  readonly p: Float64Array;
  readonly q: Float64Array;
}

function rankStatistics(statistics: ScreenStatistics, settings: ScreenReportSettings): Ranked {
  const figures = statistics.nats[settings.estimators[0]] ?? new Float64Array(0);
  const order = rankColumns(figures).filter((j) => statistics.kinds[j] !== 2);
  const p = Float64Array.from(statistics.kinds, (kind, j) =>
    kind === 2 || Number.isNaN(figures[j])
      ? Number.NaN
      : permutationP(statistics.exceedances[j], statistics.drawn[j], settings.stopAfter),
  );
  return { order, p, q: benjaminiHochberg(p) };
}

function figuresOf(
  statistics: ScreenStatistics,
  settings: ScreenReportSettings,
  { p, q }: Ranked,
  j: number,
  rank: number,
): ColumnFigures {
  const { nats, errors, r, drawn, nullSums } = statistics;
  const [by] = settings.estimators;
  const mi = nats[by]?.[j] ?? Number.NaN;
  const { mean, deviation } = nullMoments(nullSums[2 * j], nullSums[2 * j + 1], drawn[j]);
  return {
    rank,
    column: statistics.names[j],
    index: statistics.places[j],
    kind: statistics.kinds[j] === 1 ? 'discrete' : 'continuous',
    mi_nats: mi,
    mi_nats_se: orNull(errors[by]?.[j]),
    linfoot: linfoot(mi),
    mi_kernel_nats: orNull(nats.kernel?.[j]),
    mi_binned_nats: orNull(nats.binned?.[j]),
    mi_binned_nats_se: orNull(errors.binned?.[j]),
    mi_ksg_nats: orNull(nats.ksg?.[j]),
    pearson_r: orNull(r[j]),
    pearson_r_se: orNull(pearsonError(r[j], statistics.rows)),
    gaussian_mi_nats: orNull(gaussianInformation(r[j])),
    p_value: orNull(p[j]),
    replicates: drawn[j],
    q_value: orNull(q[j]),
    null_mean_nats: orNull(mean),
    mi_minus_null_mean_nats: orNull(mi - mean),
    null_z: deviation > 0 ? orNull((mi - mean) / deviation) : null,
  };
}

/** The body of the report. Runs and united shards go through here alike. */
export function screenBody(
  statistics: ScreenStatistics,
  settings: ScreenReportSettings,
  clumping?: { readonly threshold: number; readonly decisions: readonly ClumpDecision[] },
): ScreenBody {
  const ranked = rankStatistics(statistics, settings);
  const { kinds, names, outcome } = statistics;
  const constants = Array.from(kinds.keys()).filter((j) => kinds[j] === 2);
  return {
    rows: statistics.rows,
    columns: statistics.total,
    measured_columns: ranked.order.length,
    constant_columns: constants.length,
    constant_column_names: constants.slice(0, 10).map((j) => names[j]),
    discrete_columns: kinds.reduce((sum, kind) => sum + (kind === 1 ? 1 : 0), 0),
    outcome: {
      kind: outcome.kind,
      bins: outcome.bins,
      levels:
        outcome.kind === 'discrete'
          ? outcome.levelNames.map((name, k) => ({ name, rows: outcome.levelCounts[k] }))
          : null,
    },
    ranked_by: settings.estimators[0],
    estimators: settings.estimators,
    permutations: settings.permutations,
    stop_after: settings.stopAfter,
    significant_columns_q05: settings.permutations === 0 ? null : ranked.q.filter((q) => q <= 0.05).length,
    ranking: Array.from(ranked.order.subarray(0, settings.top), (j, k) =>
      figuresOf(statistics, settings, ranked, j, k + 1),
    ),
    clumping: clumping
      ? {
          threshold_nats: clumping.threshold,
          kept: clumping.decisions.filter(({ because }) => because < 0).map(({ column }) => names[column]),
          dropped: clumping.decisions
            .filter(({ because }) => because >= 0)
            .map(({ column, because, nats }) => ({ column: names[column], because: names[because], mi_nats: nats })),
        }
      : null,
  };
}

/**
 * Rows of the table: all columns, best first. Those of a shard stand in the order of their places, because their rank among
 * all columns is not known there.
 */
export function* screenRows(
  statistics: ScreenStatistics,
  settings: ScreenReportSettings,
  shard: boolean,
): Generator<Cell[]> {
  const ranked = rankStatistics(statistics, settings);
  const order = shard ? Int32Array.from(ranked.order).sort() : ranked.order;
  for (let k = 0; k < order.length; k++) {
    const figures = figuresOf(statistics, settings, ranked, order[k], k + 1);
    yield SCREEN_COLUMNS_OF_TABLE.map((key) => (shard && (key === 'rank' || key === 'q_value') ? null : figures[key]));
  }
}

/** Statistics and settings as JSON, for `partial`. */
export function screenPartial(statistics: ScreenStatistics, settings: ScreenReportSettings): object {
  const { estimators, permutations, stopAfter, top } = settings;
  return { settings: { estimators, permutations, stopAfter, top }, ...statistics };
}

type Loose = Readonly<Record<string, unknown>>;

const numbers = (value: unknown): number[] =>
  Array.isArray(value) ? value.map((entry) => numberOfReport(entry) ?? Number.NaN) : [];

function fromPartial(part: PartialReport): { statistics: ScreenStatistics; settings: ScreenReportSettings } {
  const partial = part.partial as Loose;
  const byEstimator = (value: unknown): Partial<Record<EstimatorName, Float64Array>> =>
    Object.fromEntries(
      ESTIMATORS.filter((name) => (value as Loose)[name] !== undefined).map((name) => [
        name,
        Float64Array.from(numbers((value as Loose)[name])),
      ]),
    );
  const outcome = partial.outcome as Loose;
  return {
    settings: partial.settings as ScreenReportSettings,
    statistics: {
      rows: partial.rows as number,
      total: partial.total as number,
      names: partial.names as string[],
      places: Int32Array.from(numbers(partial.places)),
      kinds: Uint8Array.from(numbers(partial.kinds)),
      nats: byEstimator(partial.nats),
      errors: byEstimator(partial.errors),
      r: Float64Array.from(numbers(partial.r)),
      exceedances: Int32Array.from(numbers(partial.exceedances)),
      drawn: Int32Array.from(numbers(partial.drawn)),
      nullSums: Float64Array.from(numbers(partial.nullSums)),
      outcome: {
        kind: outcome.kind as 'continuous' | 'discrete',
        bins: outcome.bins as number,
        levelNames: outcome.levelNames as string[],
        levelCounts: Int32Array.from(numbers(outcome.levelCounts)),
      },
    },
  };
}

/** Puts the columns of all parts back to their places. */
export function uniteStatistics(parts: readonly ScreenStatistics[]): ScreenStatistics {
  const [first] = parts;
  const columns = parts.flatMap((part, k) => Array.from(part.places, (place, j) => ({ place, k, j })));
  columns.sort((a, b) => a.place - b.place);
  const pick = (of: (part: ScreenStatistics) => ArrayLike<number> | undefined): number[] =>
    columns.map(({ k, j }) => of(parts[k])?.[j] ?? Number.NaN);
  const byEstimator = (of: (part: ScreenStatistics) => Partial<Record<EstimatorName, Float64Array>>) =>
    Object.fromEntries(
      ESTIMATORS.filter((name) => of(first)[name] !== undefined).map((name) => [
        name,
        Float64Array.from(pick((part) => of(part)[name])),
      ]),
    );
  return {
    rows: first.rows,
    total: first.total,
    names: columns.map(({ k, j }) => parts[k].names[j]),
    places: Int32Array.from(columns, ({ place }) => place),
    kinds: Uint8Array.from(pick(({ kinds }) => kinds)),
    nats: byEstimator(({ nats }) => nats),
    errors: byEstimator(({ errors }) => errors),
    r: Float64Array.from(pick(({ r }) => r)),
    exceedances: Int32Array.from(pick(({ exceedances }) => exceedances)),
    drawn: Int32Array.from(pick(({ drawn }) => drawn)),
    nullSums: Float64Array.from(columns.flatMap(({ k, j }) => [...parts[k].nullSums.subarray(2 * j, 2 * j + 2)])),
    outcome: first.outcome,
  };
}

/** Unites the reports of shards. */
export function mergeScreenReports(parts: readonly PartialReport[]): ReportBody {
  const opened = parts.map(fromPartial);
  const statistics = uniteStatistics(opened.map((part) => part.statistics));
  return reportObject({ ...screenBody(statistics, opened[0].settings), regression: null }) as ReportBody;
}
