import type { RowStatistics } from '../kernels/row-statistics.js';
import { topMass } from '../kernels/row-statistics.js';
import type { Cell } from '../report/csv.js';
import { type ReportObject, type ReportValue, reportObject } from '../report/values.js';
import {
  addColumnDocument,
  addColumnRow,
  type ColumnDocument,
  type ColumnStatistics,
  type ColumnStatisticsJson,
  columnHistogram,
  columnIntervals,
  columnsByContext,
  columnsFromJson,
  columnsToJson,
  countColumns,
  createColumns,
  mergeColumns,
  summarizeColumn,
} from './column-statistics.js';
import {
  addDocument,
  addScoredTokens,
  type CorpusJson,
  type CorpusStatistics,
  corpusFromJson,
  corpusToJson,
  createCorpus,
  type DocumentStatistics,
  HISTOGRAM_WIDTH_NATS,
  mergeCorpus,
} from './corpus.js';
import { summarizeCorpus } from './corpus-summary.js';
import type { LogitDocument, ScoredLogits } from './logits-scoring.js';
import type { TokensBody } from './token-report.js';

export const LOGITS_SCHEMA = 'logits';

/** What is measured of every row; see `RowAccumulatorOptions`. */
export const LOGIT_STATISTICS = { topK: 10, renyiOrders: [0.5, 2] } as const;

/** Columns of the table of rows. */
export const LOGIT_COLUMNS = [
  'document',
  'document_id',
  'position',
  'row',
  'target_id',
  'surprisal_nats',
  'entropy_nats',
  'varentropy_nats2',
  'rank',
  'top1_prob',
  'top1_id',
  'margin',
  'top5_mass',
  'top10_mass',
  'renyi_half_nats',
  'renyi_2_nats',
  'min_entropy_nats',
  'normalized_entropy',
  'excess_surprisal_nats',
  'self_certainty_nats',
  'fisher_rao',
  'support',
  'surprisal_bits',
  'entropy_bits',
] as const;

/** A cell that is empty where there is no value. */
const known = (value: number): Cell => (Number.isNaN(value) ? undefined : value);

/** Rows of the table, for pieces of one block of logits. */
export function* logitRows(pieces: readonly ScoredLogits[]): Generator<Cell[]> {
  const { statistics: s } = pieces[0];
  const five = topMass(s, 5);
  const ten = topMass(s, 10);
  for (const { document, position, first, count, targets } of pieces) {
    for (let i = 0; i < count; i++) {
      const r = first + i;
      const surprisal = s.surprisalNats[r];
      const entropy = s.entropyNats[r];
      const target = targets?.[i] ?? -1;
      yield [
        document.index,
        document.id,
        position + i,
        document.rowStart + position + i,
        target < 0 ? undefined : target,
        known(surprisal),
        entropy,
        s.varentropyNats2[r],
        known(s.rank[r]),
        Math.exp(-s.minEntropyNats[r]),
        s.topColumns[r * s.topK],
        s.margin[r],
        five[r],
        ten[r],
        s.renyiNats[0][r],
        s.renyiNats[1][r],
        s.minEntropyNats[r],
        s.normalizedEntropy[r],
        known(surprisal - entropy),
        s.selfCertaintyNats[r],
        s.fisherRao[r],
        s.supportSize[r],
        known(surprisal / Math.LN2),
        entropy / Math.LN2,
      ];
    }
  }
}

/**
 * Mergeable statistics of a run over stored logits: with targets those of scored tokens over the rows that have one,
 * without targets those of the distributions alone.
 */
export interface LogitsStatistics {
  readonly corpus?: CorpusStatistics;
  readonly columns?: ColumnStatistics;
  rows: number;
  rowsWithoutTarget: number;
}

const COLUMNS = ['entropy', 'varentropy', 'min_entropy', 'normalized_entropy'] as const;

export function createLogitsStatistics(withTargets: boolean, top: number): LogitsStatistics {
  return {
    ...(withTargets ? { corpus: createCorpus({ top }) } : { columns: createColumns(COLUMNS, HISTOGRAM_WIDTH_NATS) }),
    rows: 0,
    rowsWithoutTarget: 0,
  };
}

/** Adds the pieces of one block, in order. */
export function addLogits(
  statistics: LogitsStatistics,
  entered: Map<number, DocumentStatistics | ColumnDocument>,
  pieces: readonly ScoredLogits[],
): void {
  for (const piece of pieces) {
    statistics.rows += piece.count;
    if (statistics.corpus) addTargeted(statistics, statistics.corpus, entered, piece);
    else if (statistics.columns) addUntargeted(statistics.columns, entered, piece);
  }
}

function documentOf<D>(entered: Map<number, D>, document: LogitDocument, create: () => D): D {
  const found = entered.get(document.index);
  if (found !== undefined) return found;
  const made = create();
  entered.set(document.index, made);
  return made;
}

function addTargeted(
  statistics: LogitsStatistics,
  corpus: CorpusStatistics,
  entered: Map<number, DocumentStatistics | ColumnDocument>,
  { document, position, statistics: s, first, count, targets }: ScoredLogits,
): void {
  const held = documentOf(entered, document, () =>
    addDocument(corpus, { index: document.index, id: document.id, source: document.source, tokens: document.rows }),
  ) as DocumentStatistics;
  const chosen: number[] = [];
  for (let i = 0; i < count; i++) if ((targets as Int32Array)[i] >= 0) chosen.push(i);
  statistics.rowsWithoutTarget += count - chosen.length;
  if (chosen.length === 0) return;
  const pick = (values: ArrayLike<number>): Float64Array => Float64Array.from(chosen, (i) => values[first + i]);
  addScoredTokens(
    corpus,
    held,
    {
      positions: Int32Array.from(chosen, (i) => position + i),
      tokenIds: Int32Array.from(chosen, (i) => (targets as Int32Array)[i]),
      contextLengths: Int32Array.from(chosen, (i) => position + i + 1),
      surprisalNats: pick(s.surprisalNats),
      entropyNats: pick(s.entropyNats),
      varentropyNats2: pick(s.varentropyNats2),
      topProbability: pick(s.minEntropyNats).map((nats) => Math.exp(-nats)),
      rank: pick(s.rank),
      validLabels: chosen.length,
    },
    () => ({ token: '', context: '' }),
  );
}

function addUntargeted(
  columns: ColumnStatistics,
  entered: Map<number, DocumentStatistics | ColumnDocument>,
  { document, position, statistics: s, first, count }: ScoredLogits,
): void {
  const held = documentOf(entered, document, () => addColumnDocument(columns, document)) as ColumnDocument;
  for (let i = 0; i < count; i++) addColumnRow(columns, held, position + i + 1, valuesOf(s, first + i));
}

function valuesOf(s: RowStatistics, r: number): number[] {
  return [s.entropyNats[r], s.varentropyNats2[r], s.minEntropyNats[r], s.normalizedEntropy[r]];
}

/** What is known of the dumps before they are read. */
export interface DumpDescription {
  readonly dumps: readonly { path: string; tensor: string; dtype: string; shape: readonly number[] }[];
  readonly vocabulary_size: number;
}

/** The figures of distributions without targets, named as the report of tokens names them. */
export interface DistributionSummary {
  documents: number;
  mean_entropy_nats: number;
  mean_entropy_bits: number;
  mean_entropy_nats_se: number;
  mean_varentropy_nats2: number;
  mean_min_entropy_nats: number;
  mean_normalized_entropy: number;
  intervals?: ReportObject;
  entropy_quantiles_nats: Record<string, number>;
  varentropy_quantiles_nats2: Record<string, number>;
  by_context_length: {
    first: number;
    last: number;
    tokens: number;
    mean_entropy_nats: number;
    mean_entropy_nats_se: number;
  }[];
  histograms: { bin_width_nats: number; entropy: [number, number][] };
}

function distributionSummary(columns: ColumnStatistics, seed: number): DistributionSummary {
  const entropy = summarizeColumn(columns, 'entropy');
  const varentropy = summarizeColumn(columns, 'varentropy');
  const found = columnIntervals(columns, ['entropy', 'varentropy'], seed);
  return {
    documents: countColumns(columns).documents,
    mean_entropy_nats: entropy.mean,
    mean_entropy_bits: entropy.mean / Math.LN2,
    mean_entropy_nats_se: entropy.standardError,
    mean_varentropy_nats2: varentropy.mean,
    mean_min_entropy_nats: summarizeColumn(columns, 'min_entropy').mean,
    mean_normalized_entropy: summarizeColumn(columns, 'normalized_entropy').mean,
    ...(found && {
      intervals: {
        level: found.level,
        resamples: found.resamples,
        units: found.units,
        seed: found.seed,
        mean_entropy_nats: found.means[0],
        mean_varentropy_nats2: found.means[1],
      },
    }),
    entropy_quantiles_nats: entropy.quantiles,
    varentropy_quantiles_nats2: varentropy.quantiles,
    by_context_length: columnsByContext(columns).map(({ first, last, rows, means, standardErrors }) => ({
      first,
      last,
      tokens: rows,
      mean_entropy_nats: means[0],
      mean_entropy_nats_se: standardErrors[0],
    })),
    histograms: { bin_width_nats: columns.binWidth, entropy: columnHistogram(columns, 'entropy') },
  };
}

/** Body of the report of `analyze-entropy logits` over dumps. */
export type LogitsBody = DumpDescription & { rows: number; rows_without_target: number } & (
    | ({ readonly targets: true } & Omit<TokensBody, 'convention' | 'bytes' | 'words' | 'compat'>)
    | ({ readonly targets: false } & DistributionSummary)
  );

/** Makes the body from the statistics of all documents, in one process or united from shards. */
export function logitsBody(statistics: LogitsStatistics, dumps: DumpDescription, seed: number): LogitsBody {
  const head = { ...dumps, rows: statistics.rows, rows_without_target: statistics.rowsWithoutTarget };
  if (statistics.columns) return { ...head, targets: false, ...distributionSummary(statistics.columns, seed) };
  // Averages over windows mean nothing for a dump, which has none.
  const { compat: _, ...summary } = summarizeCorpus(statistics.corpus as CorpusStatistics, { seed });
  return { ...head, targets: true, ...summary };
}

interface LogitsPartial {
  rows: number;
  rows_without_target: number;
  corpus?: CorpusJson;
  columns?: ColumnStatisticsJson;
}

/** The mergeable part of a shard's report. */
export function logitsPartial(statistics: LogitsStatistics): ReportValue {
  const { corpus, columns, rows, rowsWithoutTarget } = statistics;
  return reportObject({
    rows,
    rows_without_target: rowsWithoutTarget,
    ...(corpus && { corpus: corpusToJson(corpus) }),
    ...(columns && { columns: columnsToJson(columns) }),
  });
}

/** Unites the shards of a run; the bytes are those of a run without shards. */
export function mergeLogitsReports(
  parts: readonly { readonly report: Readonly<Record<string, unknown>>; readonly partial: unknown }[],
): ReportObject {
  const partials = parts.map((part) => part.partial as LogitsPartial);
  const statistics: LogitsStatistics = {
    ...(partials[0].corpus && {
      corpus: mergeCorpus(partials.map(({ corpus }) => corpusFromJson(corpus as CorpusJson))),
    }),
    ...(partials[0].columns && {
      columns: mergeColumns(partials.map(({ columns }) => columnsFromJson(columns as ColumnStatisticsJson))),
    }),
    rows: partials.reduce((sum, part) => sum + part.rows, 0),
    rowsWithoutTarget: partials.reduce((sum, part) => sum + part.rows_without_target, 0),
  };
  const { parameters, dumps, vocabulary_size } = parts[0].report as unknown as {
    parameters: { seed: number };
  } & DumpDescription;
  return reportObject(logitsBody(statistics, { dumps, vocabulary_size }, parameters.seed));
}
