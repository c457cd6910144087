import type { TopLogProbs } from '../formats/logprob-rows.js';
import type { Cell } from '../report/csv.js';
import { escapeToken } from '../report/escape.js';
import { type ReportObject, reportObject } from '../report/values.js';
import {
  addColumnRow,
  type ColumnDocument,
  type ColumnStatistics,
  type ColumnStatisticsJson,
  columnHistogram,
  columnIntervals,
  columnsByContext,
  columnsFromJson,
  countColumns,
  createColumns,
  mergeColumns,
  summarizeColumn,
} from './column-statistics.js';
import { HISTOGRAM_WIDTH_NATS } from './corpus.js';
import { type EntropyBounds, entropyBounds } from './logprob-bounds.js';

export const LOGPROBS_SCHEMA = 'logprobs';

/** Columns of the table of positions. */
export const LOGPROB_COLUMNS = [
  'document',
  'document_id',
  'position',
  'token',
  'token_id',
  'returned',
  'surprisal_nats',
  'surprisal_is_lower_bound',
  'entropy_lower_nats',
  'entropy_upper_nats',
  'kept_mass',
  'tail_mass',
  'top1_prob',
] as const;

/** Largest of the returned probabilities. */
function topProbability(row: TopLogProbs): number {
  let top = Number.NEGATIVE_INFINITY;
  for (const logProb of row.top) top = Math.max(top, logProb);
  return Math.exp(Math.min(0, top));
}

/** A row of the table. */
export function logProbRow(document: ColumnDocument, row: TopLogProbs, bounds: EntropyBounds): Cell[] {
  return [
    document.index,
    document.id,
    row.position,
    escapeToken(row.token),
    row.tokenId,
    row.top.length + (row.extra === undefined ? 0 : 1),
    bounds.surprisalNats,
    bounds.surprisalIsLowerBound,
    bounds.lowerNats,
    bounds.upperNats,
    bounds.keptMass,
    bounds.tailMass,
    topProbability(row),
  ];
}

const COLUMNS = ['lower', 'upper', 'surprisal', 'surprisal_bound', 'kept_mass', 'width'] as const;

export function createLogProbStatistics(): ColumnStatistics {
  return createColumns(COLUMNS, HISTOGRAM_WIDTH_NATS);
}

/** Bounds of one position, entered into the statistics. @throws InputError as `entropyBounds` */
export function addLogProbs(
  statistics: ColumnStatistics,
  document: ColumnDocument,
  row: TopLogProbs,
  vocabulary: number | undefined,
): EntropyBounds {
  const bounds = entropyBounds(row, vocabulary);
  const { lowerNats, upperNats, surprisalNats, surprisalIsLowerBound, keptMass } = bounds;
  addColumnRow(statistics, document, row.position, [
    lowerNats,
    upperNats,
    surprisalIsLowerBound ? Number.NaN : surprisalNats,
    surprisalIsLowerBound ? surprisalNats : Number.NaN,
    keptMass,
    upperNats - lowerNats,
  ]);
  return bounds;
}

/** Body of the report of `analyze-entropy logits` over log-probabilities. */
export interface LogProbsBody {
  documents: number;
  positions: number;
  /** Null when it is not known: the upper bound is then infinite wherever a tail is missing. */
  vocabulary_size: number | null;
  mean_entropy_lower_nats: number;
  mean_entropy_lower_nats_se: number;
  mean_entropy_upper_nats: number;
  mean_entropy_upper_nats_se: number;
  mean_bound_width_nats: number;
  /** Positions whose upper bound is infinite. */
  unbounded_positions: number;
  mean_kept_mass: number;
  /** Positions whose target was returned, and the figures over these alone. */
  scored_tokens: number;
  infinite_tokens: number;
  mean_nll_nats: number;
  mean_nll_nats_se: number;
  perplexity: number;
  /** Positions whose target was not returned: at least this surprising in the mean. */
  unreturned_targets: number;
  mean_unreturned_surprisal_lower_nats: number;
  intervals?: ReportObject;
  entropy_lower_quantiles_nats: Record<string, number>;
  entropy_upper_quantiles_nats: Record<string, number>;
  kept_mass_quantiles: Record<string, number>;
  by_position: {
    first: number;
    last: number;
    positions: number;
    mean_entropy_lower_nats: number;
    mean_entropy_lower_nats_se: number;
    mean_entropy_upper_nats: number;
    mean_entropy_upper_nats_se: number;
  }[];
  histograms: {
    bin_width_nats: number;
    entropy_lower: [number, number][];
    entropy_upper: [number, number][];
  };
}

/** Makes the body from the statistics of all documents, in one process or united from shards. */
export function logProbsBody(statistics: ColumnStatistics, vocabulary: number | null, seed: number): LogProbsBody {
  const { documents, rows } = countColumns(statistics);
  const lower = summarizeColumn(statistics, 'lower');
  const upper = summarizeColumn(statistics, 'upper');
  const surprisal = summarizeColumn(statistics, 'surprisal');
  const unreturned = summarizeColumn(statistics, 'surprisal_bound');
  const kept = summarizeColumn(statistics, 'kept_mass');
  const found = columnIntervals(statistics, ['lower', 'upper', 'surprisal'], seed);
  return {
    documents,
    positions: rows,
    vocabulary_size: vocabulary,
    mean_entropy_lower_nats: lower.mean,
    mean_entropy_lower_nats_se: lower.standardError,
    mean_entropy_upper_nats: upper.mean,
    mean_entropy_upper_nats_se: upper.standardError,
    mean_bound_width_nats: summarizeColumn(statistics, 'width').mean,
    unbounded_positions: upper.infinite,
    mean_kept_mass: kept.mean,
    scored_tokens: surprisal.count,
    infinite_tokens: surprisal.infinite,
    mean_nll_nats: surprisal.mean,
    mean_nll_nats_se: surprisal.standardError,
    perplexity: Math.exp(surprisal.mean),
    unreturned_targets: unreturned.count,
    mean_unreturned_surprisal_lower_nats: unreturned.mean,
    ...(found && {
      intervals: {
        level: found.level,
        resamples: found.resamples,
        units: found.units,
        seed: found.seed,
        mean_entropy_lower_nats: found.means[0],
        mean_entropy_upper_nats: found.means[1],
        mean_nll_nats: found.means[2],
      },
    }),
    entropy_lower_quantiles_nats: lower.quantiles,
    entropy_upper_quantiles_nats: upper.quantiles,
    kept_mass_quantiles: kept.quantiles,
    by_position: columnsByContext(statistics).map(({ first, last, rows: count, means, standardErrors }) => ({
      first,
      last,
      positions: count,
      mean_entropy_lower_nats: means[0],
      mean_entropy_lower_nats_se: standardErrors[0],
      mean_entropy_upper_nats: means[1],
      mean_entropy_upper_nats_se: standardErrors[1],
    })),
    histograms: {
      bin_width_nats: statistics.binWidth,
      entropy_lower: columnHistogram(statistics, 'lower'),
      entropy_upper: columnHistogram(statistics, 'upper'),
    },
  };
}

/** Unites the shards of a run; the bytes are those of a run without shards. */
export function mergeLogProbsReports(
  parts: readonly { readonly report: Readonly<Record<string, unknown>>; readonly partial: unknown }[],
): ReportObject {
  const merged = mergeColumns(parts.map((part) => columnsFromJson(part.partial as ColumnStatisticsJson)));
  const { parameters, vocabulary_size } = parts[0].report as {
    parameters: { seed: number };
    vocabulary_size: number | null;
  };
  return reportObject(logProbsBody(merged, vocabulary_size, parameters.seed));
}
