import { bootstrapDocuments } from '../linalg/bootstrap.js';
import { QUANTILE_RELATIVE_ERROR, type QuantileSketch, quantilesOf } from '../linalg/quantile-sketch.js';
import { aggregateTokens, type TokenAggregate, type TokenSums } from './aggregate.js';
import { type BinTable, binError, binMean, countsToJson, positionBinRange, sortedBins } from './binning.js';
import {
  CALIBRATION_WIDTH_NATS,
  CONFIDENCE_BINS,
  type CorpusStatistics,
  type DocumentStatistics,
  documentsInOrder,
  HISTOGRAM_WIDTH_NATS,
  JOINT_COLUMNS,
} from './corpus.js';
import type { NotableToken, TopTokens } from './extremes.js';

/** Fractions whose quantiles a summary lists, with their keys. */
const QUANTILES: readonly (readonly [string, number])[] = [
  ['min', 0],
  ['p1', 0.01],
  ['p5', 0.05],
  ['p10', 0.1],
  ['p25', 0.25],
  ['p50', 0.5],
  ['p75', 0.75],
  ['p90', 0.9],
  ['p95', 0.95],
  ['p99', 0.99],
  ['max', 1],
];

export interface QuantileSummary {
  [key: string]: number;
  /** 0 when the quantiles are exact. */
  relative_error: number;
}

/** An interval of the document bootstrap. */
export interface IntervalSummary {
  low: number;
  high: number;
  bootstrap_se: number;
}

export interface NotableTokenSummary {
  document: number;
  id: string;
  position: number;
  token_id: number;
  token: string;
  context: string;
  surprisal_nats: number;
  entropy_nats: number;
  rank: number;
  top1_prob: number;
}

/** The body of a token report; a writer adds schema, parameters and input hashes. */
export interface CorpusSummary extends TokenAggregate {
  documents: number;
  tokens: number;
  bytes?: number;
  words?: number;
  top1_accuracy: number;
  /** Standard error of the mean surprisal with documents, not tokens, as independent units. */
  mean_nll_nats_document_se: number;
  macro_mean_nll_nats: number;
  macro_perplexity: number;
  intervals?: {
    level: number;
    resamples: number;
    units: number;
    seed: number;
    perplexity: IntervalSummary;
    mean_nll_nats: IntervalSummary;
    mean_entropy_nats: IntervalSummary;
    entropy_calibration_gap_nats: IntervalSummary;
    bits_per_byte?: IntervalSummary;
  };
  surprisal_quantiles_nats: QuantileSummary;
  entropy_quantiles_nats: QuantileSummary;
  varentropy_quantiles_nats2: QuantileSummary;
  by_context_length: {
    first: number;
    last: number;
    tokens: number;
    mean_nll_nats: number;
    mean_nll_nats_se: number;
    mean_entropy_nats: number;
    mean_entropy_nats_se: number;
  }[];
  calibration: {
    entropy_bin_width_nats: number;
    /** Token-weighted mean of |mean surprisal - mean entropy| over the entropy bins. */
    entropy_calibration_error_nats: number;
    entropy_bins: {
      low: number;
      high: number;
      tokens: number;
      mean_entropy_nats: number;
      mean_nll_nats: number;
      mean_nll_nats_se: number;
    }[];
    /** Token-weighted mean of |accuracy - mean p_max| over the confidence bins. */
    expected_calibration_error: number;
    confidence_bins: {
      low: number;
      high: number;
      tokens: number;
      mean_top_probability: number;
      accuracy: number;
      accuracy_se: number;
    }[];
  };
  histograms: {
    bin_width_nats: number;
    surprisal: [number, number][];
    entropy_by_source: { source: string; counts: [number, number][] }[];
    /** [entropy bin, surprisal bin, count]. */
    joint: [number, number, number][];
  };
  sources: {
    source: string;
    documents: number;
    scored_tokens: number;
    mean_nll_nats: number;
    perplexity: number;
    mean_entropy_nats: number;
    bits_per_byte?: number;
  }[];
  compat: {
    /** Every window's mean weighed by its unmasked labels less one, as Hugging Face's recipe does. */
    hf_label_weighted_perplexity: number;
    /** Unweighted mean of window means; NaN when a window scored nothing, as the older recipe gives. */
    hf_mean_of_window_means_perplexity: number;
  };
  most_surprising: NotableTokenSummary[];
  most_uncertain: NotableTokenSummary[];
}

export interface SummaryOptions {
  /** Seed of the document bootstrap. */
  readonly seed: number;
  readonly resamples?: number;
  readonly level?: number;
}

type MutableSums = { -readonly [K in keyof TokenSums]: TokenSums[K] };

/** Token sums of documents, added in the order given. */
export function sumDocuments(documents: readonly DocumentStatistics[]): TokenSums {
  const sums: MutableSums = {
    tokens: 0,
    infiniteTokens: 0,
    nllSum: 0,
    nllSquareSum: 0,
    entropySum: 0,
    entropySquareSum: 0,
    varentropySum: 0,
  };
  for (const document of documents) {
    sums.tokens += document.scoredTokens;
    sums.infiniteTokens += document.infiniteTokens;
    sums.nllSum += document.nllSum;
    sums.nllSquareSum += document.nllSquareSum;
    sums.entropySum += document.entropySum;
    sums.entropySquareSum += document.entropySquareSum;
    sums.varentropySum += document.varentropySum;
  }
  return sums;
}

/** Sum of a count that every document must have; undefined when one lacks it. */
function totalCount(documents: readonly DocumentStatistics[], key: 'bytes' | 'words'): number | undefined {
  let total = 0;
  for (const document of documents) {
    const value = document[key];
    if (value === undefined) return undefined;
    total += value;
  }
  return total;
}

function textCounts(documents: readonly DocumentStatistics[]): { bytes?: number; words?: number } {
  const bytes = totalCount(documents, 'bytes');
  const words = totalCount(documents, 'words');
  return { ...(bytes === undefined ? {} : { bytes }), ...(words === undefined ? {} : { words }) };
}

/** Figures of one document, as a row of a table of documents. */
export function documentAggregate(document: DocumentStatistics): TokenAggregate {
  return aggregateTokens(sumDocuments([document]), textCounts([document]));
}

function summarizeQuantiles(sketch: QuantileSketch): QuantileSummary {
  const values = quantilesOf(
    sketch,
    QUANTILES.map(([, fraction]) => fraction),
  );
  const summary: QuantileSummary = { relative_error: sketch.exact === null ? QUANTILE_RELATIVE_ERROR : 0 };
  QUANTILES.forEach(([key], i) => {
    summary[key] = values[i];
  });
  return summary;
}

/** Token-weighted mean of |difference of the two means| over the bins. */
function weightedGap(table: BinTable): number {
  let tokens = 0;
  let gap = 0;
  for (const [, bin] of sortedBins(table)) {
    tokens += bin.count;
    gap += bin.count * Math.abs(binMean(bin, 0) - binMean(bin, 1));
  }
  return gap / tokens;
}

function notable(top: TopTokens, corpus: CorpusStatistics): NotableTokenSummary[] {
  return top.tokens.map((token: NotableToken) => ({
    document: token.document,
    id: corpus.documents.get(token.document)?.id ?? '',
    position: token.position,
    token_id: token.tokenId,
    token: token.token,
    context: token.context,
    surprisal_nats: token.surprisalNats,
    entropy_nats: token.entropyNats,
    rank: token.rank,
    top1_prob: token.topProbability,
  }));
}

/** Linearised (ratio-estimator) standard error with documents as units: sqrt(D/(D-1) * sum (S_d - mean * n_d)^2) / N. */
function documentStandardError(scored: readonly DocumentStatistics[], mean: number, tokens: number): number {
  let squares = 0;
  for (const document of scored) squares += (document.nllSum - mean * document.scoredTokens) ** 2;
  return Math.sqrt((scored.length / (scored.length - 1)) * squares) / tokens;
}

function bootstrapIntervals(
  scored: readonly DocumentStatistics[],
  options: SummaryOptions,
  hasBytes: boolean,
): CorpusSummary['intervals'] {
  const { seed, level = 0.95 } = options;
  const width = 4;
  const sums = new Float64Array(scored.length * width);
  scored.forEach((document, i) => {
    sums[i * width] = document.infiniteTokens > 0 ? Number.POSITIVE_INFINITY : document.nllSum;
    sums[i * width + 1] = document.entropySum;
    sums[i * width + 2] = document.scoredTokens;
    sums[i * width + 3] = document.bytes ?? 0;
  });
  const statistics = [
    (t: Float64Array) => Math.exp(t[0] / t[2]),
    (t: Float64Array) => t[0] / t[2],
    (t: Float64Array) => t[1] / t[2],
    (t: Float64Array) => (t[1] - t[0]) / t[2],
    ...(hasBytes ? [(t: Float64Array) => t[0] / (Math.LN2 * t[3])] : []),
  ];
  const { intervals, units, resamples } = bootstrapDocuments(sums, width, statistics, options);
  if (intervals === undefined) return undefined;
  const [perplexity, meanNll, meanEntropy, gap, bitsPerByte] = intervals.map(
    ({ low, high, se }): IntervalSummary => ({ low, high, bootstrap_se: se }),
  );
  return {
    level,
    resamples,
    units,
    seed,
    perplexity,
    mean_nll_nats: meanNll,
    mean_entropy_nats: meanEntropy,
    entropy_calibration_gap_nats: gap,
    ...(bitsPerByte === undefined ? {} : { bits_per_byte: bitsPerByte }),
  };
}

function summarizeSources(documents: readonly DocumentStatistics[]): CorpusSummary['sources'] {
  const groups = new Map<string, DocumentStatistics[]>();
  for (const document of documents) {
    const group = groups.get(document.source);
    if (group === undefined) groups.set(document.source, [document]);
    else group.push(document);
  }
  return [...groups].map(([source, group]) => {
    const figures = aggregateTokens(sumDocuments(group), textCounts(group));
    return {
      source,
      documents: group.length,
      scored_tokens: figures.scored_tokens,
      mean_nll_nats: figures.mean_nll_nats,
      perplexity: figures.perplexity,
      mean_entropy_nats: figures.mean_entropy_nats,
      ...(figures.bits_per_byte === undefined ? {} : { bits_per_byte: figures.bits_per_byte }),
    };
  });
}

function compatFigures(documents: readonly DocumentStatistics[], infinite: boolean): CorpusSummary['compat'] {
  let weighted = 0;
  let weight = 0;
  let means = 0;
  let windows = 0;
  let empty = 0;
  for (const document of documents) {
    weighted += document.labelWeightedSum;
    weight += document.labelWeight;
    means += document.windowMeanSum;
    windows += document.windows;
    empty += document.emptyWindows;
  }
  const spelled = (value: number): number => (infinite ? Number.POSITIVE_INFINITY : value);
  return {
    hf_label_weighted_perplexity: spelled(Math.exp(weighted / weight)),
    hf_mean_of_window_means_perplexity: empty > 0 ? Number.NaN : spelled(Math.exp(means / windows)),
  };
}

/**
 * The figures of a corpus. Sums over documents are added in document order, everything else is independent of order, so
 * that united shards give the same bytes as one pass.
 */
export function summarizeCorpus(corpus: CorpusStatistics, options: SummaryOptions): CorpusSummary {
  const documents = documentsInOrder(corpus);
  const scored = documents.filter((document) => document.scoredTokens > 0);
  const counts = textCounts(documents);
  const sums = sumDocuments(documents);
  const figures = aggregateTokens(sums, counts);
  const infinite = sums.infiniteTokens > 0;
  let correct = 0;
  let macro = 0;
  for (const document of scored) {
    correct += document.correctTokens;
    macro += document.infiniteTokens > 0 ? Number.POSITIVE_INFINITY : document.nllSum / document.scoredTokens;
  }
  macro /= scored.length;
  const intervals = bootstrapIntervals(scored, options, counts.bytes !== undefined);
  const sources = summarizeSources(documents);
  return {
    documents: documents.length,
    tokens: documents.reduce((total, document) => total + document.tokens, 0),
    ...counts,
    ...figures,
    top1_accuracy: correct / sums.tokens,
    mean_nll_nats_document_se: infinite
      ? Number.NaN
      : documentStandardError(scored, figures.mean_nll_nats, figures.scored_tokens),
    macro_mean_nll_nats: macro,
    macro_perplexity: Math.exp(macro),
    ...(intervals === undefined ? {} : { intervals }),
    surprisal_quantiles_nats: summarizeQuantiles(corpus.surprisal),
    entropy_quantiles_nats: summarizeQuantiles(corpus.entropy),
    varentropy_quantiles_nats2: summarizeQuantiles(corpus.varentropy),
    by_context_length: sortedBins(corpus.byContext).map(([index, bin]) => ({
      ...positionBinRange(index),
      tokens: bin.count,
      mean_nll_nats: binMean(bin, 0),
      mean_nll_nats_se: binError(bin, 0),
      mean_entropy_nats: binMean(bin, 1),
      mean_entropy_nats_se: binError(bin, 1),
    })),
    calibration: {
      entropy_bin_width_nats: CALIBRATION_WIDTH_NATS,
      entropy_calibration_error_nats: weightedGap(corpus.byEntropy),
      entropy_bins: sortedBins(corpus.byEntropy).map(([index, bin]) => ({
        low: index * CALIBRATION_WIDTH_NATS,
        high: (index + 1) * CALIBRATION_WIDTH_NATS,
        tokens: bin.count,
        mean_entropy_nats: binMean(bin, 1),
        mean_nll_nats: binMean(bin, 0),
        mean_nll_nats_se: binError(bin, 0),
      })),
      expected_calibration_error: weightedGap(corpus.byConfidence),
      confidence_bins: sortedBins(corpus.byConfidence).map(([index, bin]) => ({
        low: index / CONFIDENCE_BINS,
        high: (index + 1) / CONFIDENCE_BINS,
        tokens: bin.count,
        mean_top_probability: binMean(bin, 0),
        accuracy: binMean(bin, 1),
        accuracy_se: binError(bin, 1),
      })),
    },
    histograms: {
      bin_width_nats: HISTOGRAM_WIDTH_NATS,
      surprisal: countsToJson(corpus.surprisalHistogram),
      entropy_by_source: sources.flatMap(({ source }) => {
        const histogram = corpus.entropyHistograms.get(source);
        return histogram === undefined ? [] : [{ source, counts: countsToJson(histogram) }];
      }),
      joint: countsToJson(corpus.joint).map(([cell, count]) => [
        Math.floor(cell / JOINT_COLUMNS),
        cell % JOINT_COLUMNS,
        count,
      ]),
    },
    sources,
    compat: compatFigures(documents, infinite),
    most_surprising: notable(corpus.mostSurprising, corpus),
    most_uncertain: notable(corpus.mostUncertain, corpus),
  };
}
