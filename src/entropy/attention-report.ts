import { type BootstrapInterval, bootstrapDocuments } from '../linalg/bootstrap.js';
import type { QuartileBins } from '../linalg/quartile-bins.js';
import { type ReportObject, reportObject } from '../report/values.js';
import { DEFAULT_DIAGNOSIS, diagnoseAttention } from './attention-diagnosis.js';
import {
  type FitReport,
  type RegulariserReport,
  regulariserReport,
  settingsOfReport,
} from './attention-regulariser-report.js';
import {
  type AttentionRun,
  type AttentionRunJson,
  attentionRunFromJson,
  DOCUMENT_WIDTH,
  documentErrors,
  documentsInOrder,
  mergeAttentionRuns,
} from './attention-run.js';
import type { RegulariserSettings } from './attention-settings.js';
import { headByPosition, headFigures } from './attention-statistics.js';

/** Name of the report's schema. */
export const ATTENTION_SCHEMA = 'attention';

/** What the figures are relative to, and how the text was cut. */
export interface AttentionSetting {
  readonly convention: ReportObject;
  readonly contextTokens: number;
  /** Sliding window of each layer in tokens, null where a query sees all keys before it. */
  readonly windows: readonly (number | null)[];
  readonly seed: number;
  readonly regulariser?: RegulariserSettings;
  readonly fit?: FitReport;
}

export interface HeadReport {
  layer: number;
  head: number;
  sliding_window_tokens: number | null;
  queries: number;
  masked_queries: number;
  nan_queries: number;
  entropy_nats: number;
  entropy_nats_se: number;
  entropy_nats_document_se: number;
  entropy_nats_std: number;
  normalized_entropy: number;
  share_of_log_context: number;
  entropy_without_first_key_nats: number;
  first_key_mass: number;
  /** Quarter 0..3 of the largest head entropy, and of log(context); -1 without an entropy. */
  bin: number;
  absolute_bin: number;
  flag: 'overload' | 'collapse' | '';
}

export interface PositionReport {
  first: number;
  last: number;
  queries: number;
  entropy_nats: number;
  normalized_entropy: number;
}

export interface AttentionBody {
  convention: ReportObject;
  context_tokens: number;
  log_context_nats: number;
  layers: number;
  heads: number;
  documents: number;
  queries: number;
  mean_entropy_nats: number;
  mean_normalized_entropy: number;
  mean_share_of_log_context: number;
  intervals?: {
    level: number;
    resamples: number;
    units: number;
    seed: number;
    mean_entropy_nats: BootstrapInterval;
    mean_normalized_entropy: BootstrapInterval;
  };
  largest_standard_error_nats: number;
  diagnosis: {
    overload: boolean;
    collapse: boolean;
    verdict: string;
    last_third_median_nats: number;
    overload_top_share: number;
    collapse_bottom_share: number;
    collapse_median_share: number;
    overloaded_heads: number;
    collapsed_heads: number;
  };
  bins: { relative: BinsReport; absolute: BinsReport };
  offending_heads: { layer: number; head: number; flag: string; entropy_nats: number; normalized_entropy: number }[];
  by_layer: {
    layer: number;
    sliding_window_tokens: number | null;
    mean_entropy_nats: number;
    mean_normalized_entropy: number;
    by_position: PositionReport[];
  }[];
  by_head: HeadReport[];
  /** At the temperatures of the run; before a fit. */
  regulariser?: RegulariserReport;
  fit?: FitReport;
}

interface BinsReport {
  of_nats: number;
  shares: [number, number, number, number];
  heads: [number, number, number, number];
}

function binsReport({ bins, fractions, maximum }: QuartileBins): BinsReport {
  const heads: BinsReport['heads'] = [0, 0, 0, 0];
  for (const bin of bins) if (bin >= 0) heads[bin]++;
  return { of_nats: maximum, shares: [...fractions] as BinsReport['shares'], heads };
}

/** Figures of one head by position of the query. */
export function positionsOfHead(run: AttentionRun, layer: number, head: number): PositionReport[] {
  return headByPosition(run.statistics, layer, head).map(({ first, last, rows, ...figures }) => ({
    first,
    last,
    queries: rows,
    ...figures,
  }));
}

/** Means over the heads of a layer, by position of the query. */
function layerPositions(run: AttentionRun, layer: number): PositionReport[] {
  const means = new Map<number, PositionReport & { heads: number }>();
  for (let head = 0; head < run.statistics.heads; head++) {
    for (const place of positionsOfHead(run, layer, head)) {
      const found = means.get(place.first);
      if (!found) {
        means.set(place.first, { ...place, heads: 1 });
        continue;
      }
      found.heads++;
      found.queries = Math.max(found.queries, place.queries);
      found.entropy_nats += place.entropy_nats;
      found.normalized_entropy += place.normalized_entropy;
    }
  }
  return [...means.values()]
    .sort((a, b) => a.first - b.first)
    .map(({ heads, ...place }) => ({
      ...place,
      entropy_nats: place.entropy_nats / heads,
      normalized_entropy: place.normalized_entropy / heads,
    }));
}

function meanOf(values: readonly number[]): number {
  const known = values.filter((value) => !Number.isNaN(value));
  return known.reduce((sum, value) => sum + value, 0) / known.length;
}

function verdictOf(overload: boolean, collapse: boolean, middle: number): string {
  if (overload && collapse) return 'overload and collapse';
  if (overload) return 'overload';
  if (collapse) return 'collapse';
  return middle >= 0.9 ? 'well-behaved' : 'neither overload nor collapse';
}

/** Makes the body of the report from the statistics of all documents, in one process or united from shards. */
export function attentionBody(run: AttentionRun, setting: AttentionSetting): AttentionBody {
  const { statistics } = run;
  const { contextTokens, windows, seed } = setting;
  const figures = headFigures(statistics, contextTokens);
  const entropies = Float64Array.from(figures, (head) => head.entropy_nats);
  const found = diagnoseAttention(entropies, statistics.layers, contextTokens);
  const errors = documentErrors(run);
  const byHead = figures.map(
    ({ rows, masked_rows, nan_rows, ...head }, i): HeadReport => ({
      layer: head.layer,
      head: head.head,
      sliding_window_tokens: windows[head.layer] ?? null,
      queries: rows,
      masked_queries: masked_rows,
      nan_queries: nan_rows,
      entropy_nats: head.entropy_nats,
      entropy_nats_se: head.entropy_nats_se,
      entropy_nats_document_se: errors[i],
      entropy_nats_std: head.entropy_nats_std,
      normalized_entropy: head.normalized_entropy,
      share_of_log_context: head.share_of_log_context,
      entropy_without_first_key_nats: head.entropy_without_first_key_nats,
      first_key_mass: head.first_key_mass,
      bin: found.relative.bins[i],
      absolute_bin: found.absolute.bins[i],
      flag: found.flags[i],
    }),
  );
  const relative = binsReport(found.relative);
  const layerHeads = (layer: number): HeadReport[] =>
    byHead.slice(layer * statistics.heads, (layer + 1) * statistics.heads);
  const documents = documentsInOrder(run);
  const sums = new Float64Array(documents.length * DOCUMENT_WIDTH);
  documents.forEach(([, own], d) => {
    sums.set(own, d * DOCUMENT_WIDTH);
  });
  const { intervals, units, resamples } = bootstrapDocuments(
    sums,
    DOCUMENT_WIDTH,
    [(total) => total[0] / total[2], (total) => total[1] / total[3]],
    { seed },
  );
  return {
    convention: setting.convention,
    context_tokens: contextTokens,
    log_context_nats: Math.log(contextTokens),
    layers: statistics.layers,
    heads: statistics.heads,
    documents: run.documentsRead,
    queries: run.queries,
    mean_entropy_nats: meanOf(byHead.map((head) => head.entropy_nats)),
    mean_normalized_entropy: meanOf(byHead.map((head) => head.normalized_entropy)),
    mean_share_of_log_context: meanOf(byHead.map((head) => head.share_of_log_context)),
    ...(intervals && {
      intervals: {
        level: 0.95,
        resamples,
        units,
        seed,
        mean_entropy_nats: intervals[0],
        mean_normalized_entropy: intervals[1],
      },
    }),
    largest_standard_error_nats: byHead.reduce(
      (most, head) => Math.max(most, head.entropy_nats_se || 0, head.entropy_nats_document_se || 0),
      0,
    ),
    diagnosis: {
      overload: found.overload,
      collapse: found.collapse,
      verdict: verdictOf(found.overload, found.collapse, relative.shares[1] + relative.shares[2]),
      last_third_median_nats: found.lastThirdMedianNats,
      overload_top_share: DEFAULT_DIAGNOSIS.overloadTopShare,
      collapse_bottom_share: DEFAULT_DIAGNOSIS.collapseBottomShare,
      collapse_median_share: DEFAULT_DIAGNOSIS.collapseMedianShare,
      overloaded_heads: relative.heads[3],
      collapsed_heads: relative.heads[0],
    },
    bins: { relative, absolute: binsReport(found.absolute) },
    offending_heads: byHead
      .filter((head) => head.flag !== '')
      .map(({ layer, head, flag, entropy_nats, normalized_entropy }) => ({
        layer,
        head,
        flag,
        entropy_nats,
        normalized_entropy,
      })),
    by_layer: Array.from({ length: statistics.layers }, (_, layer) => ({
      layer,
      sliding_window_tokens: windows[layer] ?? null,
      mean_entropy_nats: meanOf(layerHeads(layer).map((head) => head.entropy_nats)),
      mean_normalized_entropy: meanOf(layerHeads(layer).map((head) => head.normalized_entropy)),
      by_position: layerPositions(run, layer),
    })),
    by_head: byHead,
    ...(setting.regulariser && { regulariser: regulariserReport(run, setting.regulariser) }),
    ...(setting.fit && { fit: setting.fit }),
  };
}

/** Unites the shards of a run; the bytes are those of a run without shards. */
export function mergeAttentionReports(
  parts: readonly { readonly report: Readonly<Record<string, unknown>>; readonly partial: unknown }[],
): ReportObject {
  const run = mergeAttentionRuns(parts.map((part) => attentionRunFromJson(part.partial as AttentionRunJson)));
  const { parameters, convention, context_tokens, by_layer, regulariser } = parts[0].report as {
    parameters: { seed: number };
    convention: ReportObject;
    context_tokens: number;
    by_layer: { sliding_window_tokens: number | null }[];
    regulariser?: RegulariserReport;
  };
  return reportObject(
    attentionBody(run, {
      convention,
      contextTokens: context_tokens,
      windows: by_layer.map((layer) => layer.sliding_window_tokens),
      seed: parameters.seed,
      ...(regulariser && { regulariser: settingsOfReport(regulariser) }),
    }),
  );
}
