import { encodeLogProbs } from '../formats/log-prob-codes.js';
import {
  codedKlNats,
  compareRows,
  createRowComparison,
  type LogitRows,
  type RowComparison,
} from '../kernels/compare-rows.js';
import { type BootstrapInterval, bootstrapDocuments } from '../linalg/bootstrap.js';
import {
  addToSketch,
  createQuantileSketch,
  mergeSketch,
  QUANTILE_RELATIVE_ERROR,
  type QuantileSketch,
  type QuantileSketchJson,
  quantilesOf,
  sketchFromJson,
  sketchToJson,
} from '../linalg/quantile-sketch.js';

/** Comparison of the predictions at some tokens; see `RowComparison` for the shared fields. */
export interface TokenComparison extends RowComparison {
  /** p_candidate(target) - p_base(target). */
  readonly deltaProbability: Float64Array;
  /** KL with the base coded in 16 bits as llama.cpp stores it; absent where the base was never coded. */
  readonly codedKlNats?: Float64Array;
}

/** A comparison whose base was coded in 16 bits. */
export type CodedComparison = TokenComparison & { readonly codedKlNats: Float64Array };

/**
 * Compares two blocks of logits `[rows, vocabulary]` at their targets `[rows]`. Direction: KL(base || candidate) is
 * `klNats`. The coded divergence is what llama.cpp reports from a stored base.
 * @throws InputError for NaN, plus infinity or rows without support
 */
export function compareLogits(
  base: LogitRows,
  candidate: LogitRows,
  vocabulary: number,
  targets: Int32Array,
  names?: { readonly base: string; readonly candidate: string },
): CodedComparison {
  const rows = targets.length;
  const result = createRowComparison(rows);
  compareRows(base, candidate, vocabulary, targets, result, names);
  const coded = new Float64Array(rows);
  const codes = new Uint16Array(vocabulary);
  for (let row = 0; row < rows; row++) {
    const start = row * vocabulary;
    const header = encodeLogProbs(base, start, vocabulary, codes, 0);
    coded[row] = codedKlNats(
      codes,
      0,
      header.scale,
      header.minLogProb,
      candidate,
      start,
      vocabulary,
      result.candidateLogSumExp[row],
    );
  }
  return { ...withDeltas(result), codedKlNats: coded };
}

/** As `compareLogits`, without the divergence from a coded base: against itself every figure is exactly zero. */
export function compareExactLogits(
  base: LogitRows,
  candidate: LogitRows,
  vocabulary: number,
  targets: Int32Array,
  names?: { readonly base: string; readonly candidate: string },
): TokenComparison {
  const result = createRowComparison(targets.length);
  compareRows(base, candidate, vocabulary, targets, result, names);
  return withDeltas(result);
}

/** Adds what follows from the surprisals. */
export function withDeltas(result: RowComparison): TokenComparison {
  const delta = new Float64Array(result.rows);
  for (let row = 0; row < result.rows; row++) {
    delta[row] = Math.exp(-result.candidateSurprisalNats[row]) - Math.exp(-result.baseSurprisalNats[row]);
  }
  return { ...result, deltaProbability: delta };
}

/** Per-document sums, by column. Sums leave infinite values out; their counts stand beside. */
const COLUMNS = [
  'tokens',
  'sameTop',
  'pairedNll',
  'infiniteBaseNll',
  'infiniteCandidateNll',
  'baseNll',
  'baseNllSquare',
  'candidateNll',
  'candidateNllSquare',
  'nllProduct',
  'nllDifference',
  'nllDifferenceSquare',
  'infiniteKl',
  'kl',
  'klSquare',
  'infiniteReverseKl',
  'reverseKl',
  'reverseKlSquare',
  'js',
  'jsSquare',
  'deltaP',
  'deltaPSquare',
  'deltaPFourth',
  'baseEntropy',
  'candidateEntropy',
  'deltaEntropy',
  'deltaEntropySquare',
  'codedTokens',
  'infiniteCodedKl',
  'codedKl',
  'codedKlSquare',
] as const;
type Column = (typeof COLUMNS)[number];
const COLUMN = Object.fromEntries(COLUMNS.map((name, i) => [name, i])) as Record<Column, number>;

/** Mergeable statistics of a comparison. */
export interface ComparisonStatistics {
  /** Sums by document index, columns in a fixed order. */
  readonly documents: Map<number, Float64Array>;
  readonly kl: QuantileSketch;
  readonly deltaProbability: QuantileSketch;
  readonly deltaEntropy: QuantileSketch;
}

export function createComparison(exactQuantiles = 20_000): ComparisonStatistics {
  return {
    documents: new Map(),
    kl: createQuantileSketch(exactQuantiles),
    deltaProbability: createQuantileSketch(exactQuantiles),
    deltaEntropy: createQuantileSketch(exactQuantiles),
  };
}

/** Adds tokens of a document, in order. Tokens without a target (NaN surprisals) count in the divergences alone. */
export function addComparison(statistics: ComparisonStatistics, document: number, tokens: TokenComparison): void {
  let sums = statistics.documents.get(document);
  if (sums === undefined) {
    sums = new Float64Array(COLUMNS.length);
    statistics.documents.set(document, sums);
  }
  for (let i = 0; i < tokens.rows; i++) {
    const kl = tokens.klNats[i];
    const reverse = tokens.reverseKlNats[i];
    const baseNll = tokens.baseSurprisalNats[i];
    const candidateNll = tokens.candidateSurprisalNats[i];
    const delta = tokens.candidateEntropyNats[i] - tokens.baseEntropyNats[i];
    const js = tokens.jensenShannonNats[i];
    sums[COLUMN.tokens]++;
    if (tokens.baseTop[i] === tokens.candidateTop[i]) sums[COLUMN.sameTop]++;
    addFinite(sums, kl, COLUMN.infiniteKl);
    addFinite(sums, reverse, COLUMN.infiniteReverseKl);
    if (tokens.codedKlNats !== undefined) {
      sums[COLUMN.codedTokens]++;
      addFinite(sums, tokens.codedKlNats[i], COLUMN.infiniteCodedKl);
    }
    sums[COLUMN.js] += js;
    sums[COLUMN.jsSquare] += js * js;
    sums[COLUMN.baseEntropy] += tokens.baseEntropyNats[i];
    sums[COLUMN.candidateEntropy] += tokens.candidateEntropyNats[i];
    sums[COLUMN.deltaEntropy] += delta;
    sums[COLUMN.deltaEntropySquare] += delta * delta;
    addToSketch(statistics.kl, kl);
    addToSketch(statistics.deltaEntropy, delta);
    if (Number.isNaN(baseNll) || Number.isNaN(candidateNll)) continue;
    if (baseNll === Number.POSITIVE_INFINITY) sums[COLUMN.infiniteBaseNll]++;
    if (candidateNll === Number.POSITIVE_INFINITY) sums[COLUMN.infiniteCandidateNll]++;
    if (Number.isFinite(baseNll) && Number.isFinite(candidateNll)) {
      sums[COLUMN.pairedNll]++;
      sums[COLUMN.baseNll] += baseNll;
      sums[COLUMN.baseNllSquare] += baseNll * baseNll;
      sums[COLUMN.candidateNll] += candidateNll;
      sums[COLUMN.candidateNllSquare] += candidateNll * candidateNll;
      sums[COLUMN.nllProduct] += baseNll * candidateNll;
      sums[COLUMN.nllDifference] += candidateNll - baseNll;
      sums[COLUMN.nllDifferenceSquare] += (candidateNll - baseNll) ** 2;
    }
    const deltaP = tokens.deltaProbability[i];
    const squared = deltaP * deltaP;
    sums[COLUMN.deltaP] += deltaP;
    sums[COLUMN.deltaPSquare] += squared;
    sums[COLUMN.deltaPFourth] += squared * squared;
    addToSketch(statistics.deltaProbability, deltaP);
  }
}

/** The columns of a quantity that may be infinite lie together: count of infinite ones, sum, sum of squares. */
function addFinite(sums: Float64Array, value: number, column: number): void {
  if (value === Number.POSITIVE_INFINITY) {
    sums[column]++;
  } else {
    sums[column + 1] += value;
    sums[column + 2] += value * value;
  }
}

/** Unites statistics of disjoint sets of documents. */
export function mergeComparisons(parts: readonly ComparisonStatistics[]): ComparisonStatistics {
  const merged = createComparison(parts[0]?.kl.exactLimit);
  for (const part of parts) {
    for (const [index, sums] of part.documents) {
      if (merged.documents.has(index)) throw new RangeError(`document ${index} is in two parts`);
      merged.documents.set(index, sums.slice());
    }
    mergeSketch(merged.kl, part.kl);
    mergeSketch(merged.deltaProbability, part.deltaProbability);
    mergeSketch(merged.deltaEntropy, part.deltaEntropy);
  }
  return merged;
}

/** Lossless plain form, for partial reports. */
export interface ComparisonJson {
  columns: readonly string[];
  documents: [number, number[]][];
  kl: QuantileSketchJson;
  delta_probability: QuantileSketchJson;
  delta_entropy: QuantileSketchJson;
}

function documentsInOrder(statistics: ComparisonStatistics): [number, Float64Array][] {
  return [...statistics.documents].sort((a, b) => a[0] - b[0]);
}

export function comparisonToJson(statistics: ComparisonStatistics): ComparisonJson {
  return {
    columns: COLUMNS,
    documents: documentsInOrder(statistics).map(([index, sums]) => [index, [...sums]]),
    kl: sketchToJson(statistics.kl),
    delta_probability: sketchToJson(statistics.deltaProbability),
    delta_entropy: sketchToJson(statistics.deltaEntropy),
  };
}

export function comparisonFromJson(json: ComparisonJson): ComparisonStatistics {
  return {
    documents: new Map(json.documents.map(([index, sums]) => [index, Float64Array.from(sums)])),
    kl: sketchFromJson(json.kl),
    deltaProbability: sketchFromJson(json.delta_probability),
    deltaEntropy: sketchFromJson(json.delta_entropy),
  };
}

const FRACTIONS: readonly (readonly [string, number])[] = [
  ['max', 1],
  ['p99.9', 0.999],
  ['p99', 0.99],
  ['p95', 0.95],
  ['p90', 0.9],
  ['p75', 0.75],
  ['median', 0.5],
  ['p25', 0.25],
  ['p10', 0.1],
  ['p5', 0.05],
  ['p1', 0.01],
  ['p0.1', 0.001],
  ['min', 0],
];

/** Figures of a comparison. `_se` are llama.cpp's uncertainties: sqrt(variance/(n-1)), 0 for n <= 10. */
export interface ComparisonSummary {
  tokens: number;
  /** llama.cpp prints no statistics for fewer than 100 tokens; the figures are given, and flagged. */
  fewer_than_100_tokens: boolean;
  base_perplexity: number;
  base_perplexity_se: number;
  candidate_perplexity: number;
  candidate_perplexity_se: number;
  ln_perplexity_correlation: number;
  ln_perplexity_ratio: number;
  ln_perplexity_ratio_se: number;
  perplexity_ratio: number;
  perplexity_ratio_se: number;
  perplexity_difference: number;
  perplexity_difference_se: number;
  mean_kl_nats: number;
  mean_kl_nats_se: number;
  finite_mean_kl_nats: number;
  infinite_kl_tokens: number;
  mean_reverse_kl_nats: number;
  mean_reverse_kl_nats_se: number;
  infinite_reverse_kl_tokens: number;
  mean_js_nats: number;
  mean_js_nats_se: number;
  /** llama.cpp's figure, where the base was stored in 16 bits. */
  mean_kl_16bit_base_nats?: number;
  mean_kl_16bit_base_nats_se?: number;
  mean_delta_p: number;
  mean_delta_p_se: number;
  rms_delta_p: number;
  rms_delta_p_se: number;
  top1_agreement: number;
  top1_agreement_se: number;
  base_mean_entropy_nats: number;
  candidate_mean_entropy_nats: number;
  mean_delta_entropy_nats: number;
  mean_delta_entropy_nats_se: number;
  kl_quantiles_nats: Record<string, number>;
  delta_p_quantiles: Record<string, number>;
  delta_entropy_quantiles_nats: Record<string, number>;
  quantile_relative_error: number;
  intervals?: {
    level: number;
    resamples: number;
    units: number;
    seed: number;
    mean_kl_nats: BootstrapInterval;
    ln_perplexity_ratio: BootstrapInterval;
    mean_delta_entropy_nats: BootstrapInterval;
    top1_agreement: BootstrapInterval;
  };
}

/** Mean and its uncertainty as llama.cpp prints them. */
function meanAndError(sum: number, squareSum: number, count: number): [number, number] {
  const mean = sum / count;
  const variance = squareSum / count - mean * mean;
  return [mean, count > 10 && variance > 0 ? Math.sqrt(variance / (count - 1)) : 0];
}

function meanMaybeInfinite(totals: Float64Array, column: number, tokens: number): [number, number] {
  if (totals[column] > 0) return [Number.POSITIVE_INFINITY, Number.NaN];
  return meanAndError(totals[column + 1], totals[column + 2], tokens);
}

function quantileTable(sketch: QuantileSketch): Record<string, number> {
  const values = quantilesOf(
    sketch,
    FRACTIONS.map(([, fraction]) => fraction),
  );
  return Object.fromEntries(FRACTIONS.map(([key], i) => [key, values[i]]));
}

/**
 * Figures of a comparison as llama.cpp's `--kl-divergence` defines them, and reverse KL, Jensen-Shannon and change of
 * entropy beside. Sums are added in document order.
 */
export function summarizeComparison(
  statistics: ComparisonStatistics,
  options: { readonly seed: number; readonly resamples?: number; readonly level?: number },
): ComparisonSummary {
  const documents = documentsInOrder(statistics);
  const width = COLUMNS.length;
  const all = new Float64Array(documents.length * width);
  const totals = new Float64Array(width);
  documents.forEach(([, sums], d) => {
    all.set(sums, d * width);
    for (let k = 0; k < width; k++) totals[k] += sums[k];
  });
  const tokens = totals[COLUMN.tokens];
  const paired = totals[COLUMN.pairedNll];
  const infiniteBase = totals[COLUMN.infiniteBaseNll] > 0;
  const infiniteCandidate = totals[COLUMN.infiniteCandidateNll] > 0;
  const infinite = Number.POSITIVE_INFINITY;
  const [baseMean, baseError] = infiniteBase
    ? [infinite, Number.NaN]
    : meanAndError(totals[COLUMN.baseNll], totals[COLUMN.baseNllSquare], paired);
  const [candidateMean, candidateError] = infiniteCandidate
    ? [infinite, Number.NaN]
    : meanAndError(totals[COLUMN.candidateNll], totals[COLUMN.candidateNllSquare], paired);
  const covariance =
    paired < 10
      ? 0
      : (totals[COLUMN.nllProduct] / paired -
          (totals[COLUMN.baseNll] / paired) * (totals[COLUMN.candidateNll] / paired)) /
        (paired - 1);
  const ratio = candidateMean - baseMean;
  // sqrt(candidateError^2 + baseError^2 - 2 covariance), from the differences: nothing cancels between like models.
  const [, differenceError] = meanAndError(totals[COLUMN.nllDifference], totals[COLUMN.nllDifferenceSquare], paired);
  const ratioError = infiniteBase || infiniteCandidate ? Number.NaN : differenceError;
  const basePerplexity = Math.exp(baseMean);
  const candidatePerplexity = Math.exp(candidateMean);
  const [kl, klError] = meanMaybeInfinite(totals, COLUMN.infiniteKl, tokens);
  const [reverse, reverseError] = meanMaybeInfinite(totals, COLUMN.infiniteReverseKl, tokens);
  const [coded, codedError] = meanMaybeInfinite(totals, COLUMN.infiniteCodedKl, totals[COLUMN.codedTokens]);
  const [js, jsError] = meanAndError(totals[COLUMN.js], totals[COLUMN.jsSquare], tokens);
  const targeted = statistics.deltaProbability.finite;
  const [deltaP, deltaPError] = meanAndError(totals[COLUMN.deltaP], totals[COLUMN.deltaPSquare], targeted);
  const [square, squareError] = meanAndError(totals[COLUMN.deltaPSquare], totals[COLUMN.deltaPFourth], targeted);
  const rms = Math.sqrt(square);
  const [deltaEntropy, deltaEntropyError] = meanAndError(
    totals[COLUMN.deltaEntropy],
    totals[COLUMN.deltaEntropySquare],
    tokens,
  );
  const agreement = totals[COLUMN.sameTop] / tokens;
  const { intervals, units, resamples } = bootstrapDocuments(
    all,
    width,
    [
      (t) => (t[COLUMN.infiniteKl] > 0 ? infinite : t[COLUMN.kl] / t[COLUMN.tokens]),
      (t) => (t[COLUMN.candidateNll] - t[COLUMN.baseNll]) / t[COLUMN.pairedNll],
      (t) => t[COLUMN.deltaEntropy] / t[COLUMN.tokens],
      (t) => t[COLUMN.sameTop] / t[COLUMN.tokens],
    ],
    options,
  );
  return {
    tokens,
    fewer_than_100_tokens: tokens < 100,
    base_perplexity: basePerplexity,
    base_perplexity_se: basePerplexity * baseError,
    candidate_perplexity: candidatePerplexity,
    candidate_perplexity_se: candidatePerplexity * candidateError,
    ln_perplexity_correlation: covariance / (candidateError * baseError),
    ln_perplexity_ratio: ratio,
    ln_perplexity_ratio_se: ratioError,
    perplexity_ratio: Math.exp(ratio),
    perplexity_ratio_se: Math.exp(ratio) * ratioError,
    perplexity_difference: candidatePerplexity - basePerplexity,
    // (c sc)^2 + (b sb)^2 - 2 c b cov = c b var(c - b) + (c - b)(c sc^2 - b sb^2), which is 0 between equal models.
    perplexity_difference_se: Math.sqrt(
      Math.max(
        0,
        candidatePerplexity * basePerplexity * ratioError ** 2 +
          (candidatePerplexity - basePerplexity) *
            (candidatePerplexity * candidateError ** 2 - basePerplexity * baseError ** 2),
      ),
    ),
    mean_kl_nats: kl,
    mean_kl_nats_se: klError,
    finite_mean_kl_nats: totals[COLUMN.kl] / (tokens - totals[COLUMN.infiniteKl]),
    infinite_kl_tokens: totals[COLUMN.infiniteKl],
    mean_reverse_kl_nats: reverse,
    mean_reverse_kl_nats_se: reverseError,
    infinite_reverse_kl_tokens: totals[COLUMN.infiniteReverseKl],
    mean_js_nats: js,
    mean_js_nats_se: jsError,
    ...(totals[COLUMN.codedTokens] > 0 && {
      mean_kl_16bit_base_nats: coded,
      mean_kl_16bit_base_nats_se: codedError,
    }),
    mean_delta_p: deltaP,
    mean_delta_p_se: deltaPError,
    rms_delta_p: rms,
    rms_delta_p_se: rms > 0 ? (0.5 / rms) * squareError : 0,
    top1_agreement: agreement,
    top1_agreement_se: Math.sqrt((agreement * (1 - agreement)) / (tokens - 1)),
    base_mean_entropy_nats: totals[COLUMN.baseEntropy] / tokens,
    candidate_mean_entropy_nats: totals[COLUMN.candidateEntropy] / tokens,
    mean_delta_entropy_nats: deltaEntropy,
    mean_delta_entropy_nats_se: deltaEntropyError,
    kl_quantiles_nats: quantileTable(statistics.kl),
    delta_p_quantiles: quantileTable(statistics.deltaProbability),
    delta_entropy_quantiles_nats: quantileTable(statistics.deltaEntropy),
    quantile_relative_error: statistics.kl.exact === null ? QUANTILE_RELATIVE_ERROR : 0,
    ...(intervals === undefined
      ? {}
      : {
          intervals: {
            level: options.level ?? 0.95,
            resamples,
            units,
            seed: options.seed,
            mean_kl_nats: intervals[0],
            ln_perplexity_ratio: intervals[1],
            mean_delta_entropy_nats: intervals[2],
            top1_agreement: intervals[3],
          },
        }),
  };
}

/** Figures of one document of a comparison. */
export interface DocumentComparison {
  readonly index: number;
  readonly tokens: number;
  readonly meanKlNats: number;
  readonly meanReverseKlNats: number;
  readonly meanJensenShannonNats: number;
  readonly baseMeanNllNats: number;
  readonly candidateMeanNllNats: number;
  readonly meanDeltaEntropyNats: number;
  readonly top1Agreement: number;
}

/** Figures by document, in order. */
export function documentComparisons(statistics: ComparisonStatistics): DocumentComparison[] {
  return documentsInOrder(statistics).map(([index, sums]) => {
    const tokens = sums[COLUMN.tokens];
    const paired = sums[COLUMN.pairedNll];
    const infinite = Number.POSITIVE_INFINITY;
    return {
      index,
      tokens,
      meanKlNats: sums[COLUMN.infiniteKl] > 0 ? infinite : sums[COLUMN.kl] / tokens,
      meanReverseKlNats: sums[COLUMN.infiniteReverseKl] > 0 ? infinite : sums[COLUMN.reverseKl] / tokens,
      meanJensenShannonNats: sums[COLUMN.js] / tokens,
      baseMeanNllNats: sums[COLUMN.infiniteBaseNll] > 0 ? infinite : sums[COLUMN.baseNll] / paired,
      candidateMeanNllNats: sums[COLUMN.infiniteCandidateNll] > 0 ? infinite : sums[COLUMN.candidateNll] / paired,
      meanDeltaEntropyNats: sums[COLUMN.deltaEntropy] / tokens,
      top1Agreement: sums[COLUMN.sameTop] / tokens,
    };
  });
}
