import {
  addToSketch,
  createQuantileSketch,
  mergeSketch,
  type QuantileSketch,
  type QuantileSketchJson,
  sketchFromJson,
  sketchToJson,
} from '../linalg/quantile-sketch.js';
import {
  addToBin,
  type BinTable,
  type BinTableJson,
  binAt,
  binsFromJson,
  binsToJson,
  type CountTable,
  countInto,
  countsToJson,
  mergeBins,
  mergeCounts,
  PAIR_WIDTH,
  positionBin,
  uniformBin,
} from './binning.js';
import { createTopTokens, enter, mergeTop, type NotableToken, type TopTokens, wouldEnter } from './extremes.js';

/** Width of the bins of the surprisal and entropy histograms, in nats. */
export const HISTOGRAM_WIDTH_NATS = 0.25;
/** Width of the bins by entropy of the calibration curve, in nats. */
export const CALIBRATION_WIDTH_NATS = 0.5;
/** Bins of p_max against accuracy, over [0, 1]. */
export const CONFIDENCE_BINS = 20;
/** Columns of the joint histogram of entropy (row) and surprisal (column); the last column holds all above. */
export const JOINT_COLUMNS = 256;

/** What a document is before its tokens are scored. */
export interface DocumentDescription {
  /** Place in the input, counted over all shards: it orders the sums. */
  readonly index: number;
  readonly id: string;
  /** File or group the document belongs to. */
  readonly source: string;
  readonly tokens: number;
  /** UTF-8 bytes and words of the original text; undefined when only tokens are known. */
  readonly bytes?: number;
  readonly words?: number;
}

/** Sums over the scored tokens of one document, added in token order. Sums of surprisals are over finite ones. */
export interface DocumentStatistics extends DocumentDescription {
  scoredTokens: number;
  infiniteTokens: number;
  nllSum: number;
  nllSquareSum: number;
  entropySum: number;
  entropySquareSum: number;
  varentropySum: number;
  correctTokens: number;
  /** Windows that scored something; windows that scored nothing; sum of window mean surprisals over the former. */
  windows: number;
  emptyWindows: number;
  windowMeanSum: number;
  /** Hugging Face's weighting: sum of window mean * (labels - 1), and of the weights. */
  labelWeightedSum: number;
  labelWeight: number;
}

/** Measures of the scored tokens of one window, in order. All arrays have the length of `positions`. */
export interface ScoredTokens {
  /** Position of the predicted token in its document. */
  readonly positions: Int32Array;
  readonly tokenIds: Int32Array;
  /** Tokens that the model saw before it, the prefix counted. */
  readonly contextLengths: Int32Array;
  readonly surprisalNats: Float64Array;
  readonly entropyNats: Float64Array;
  readonly varentropyNats2: Float64Array;
  /** Probability of the likeliest token. */
  readonly topProbability: Float64Array;
  /** 1 + number of likelier tokens. */
  readonly rank: ArrayLike<number>;
  /** See `ScoringWindow.validLabels`. */
  readonly validLabels: number;
}

/** Renders a token that enters a list of extremes. */
export type DescribeToken = (position: number) => { token: string; context: string };

/** Mergeable statistics of a corpus, or of one shard of it. */
export interface CorpusStatistics {
  /** By document index. */
  readonly documents: Map<number, DocumentStatistics>;
  readonly surprisal: QuantileSketch;
  readonly entropy: QuantileSketch;
  readonly varentropy: QuantileSketch;
  /** Sums of finite surprisal and of entropy by context length; see `positionBin`. Infinite surprisals are left out. */
  readonly byContext: BinTable;
  /** Sums of surprisal and of entropy by entropy, bins of `CALIBRATION_WIDTH_NATS`. */
  readonly byEntropy: BinTable;
  /** Sums of p_max and of correctness by p_max. */
  readonly byConfidence: BinTable;
  readonly surprisalHistogram: CountTable;
  /** Entropy histogram of each source. */
  readonly entropyHistograms: Map<string, CountTable>;
  /** Counts by (entropy bin * JOINT_COLUMNS + surprisal bin), bins of `HISTOGRAM_WIDTH_NATS`. */
  readonly joint: CountTable;
  readonly mostSurprising: TopTokens;
  readonly mostUncertain: TopTokens;
}

export interface CorpusOptions {
  /** Length of the lists of extremes (default 20). */
  readonly top?: number;
  /** Values kept for exact quantiles before bins take over (default 20,000). */
  readonly exactQuantiles?: number;
}

export function createCorpus(options: CorpusOptions = {}): CorpusStatistics {
  const { top = 20, exactQuantiles = 20_000 } = options;
  return {
    documents: new Map(),
    surprisal: createQuantileSketch(exactQuantiles),
    entropy: createQuantileSketch(exactQuantiles),
    varentropy: createQuantileSketch(exactQuantiles),
    byContext: new Map(),
    byEntropy: new Map(),
    byConfidence: new Map(),
    surprisalHistogram: new Map(),
    entropyHistograms: new Map(),
    joint: new Map(),
    mostSurprising: createTopTokens('surprisalNats', top),
    mostUncertain: createTopTokens('entropyNats', top),
  };
}

/** Enters a document. A document with no scored token stays in the counts of documents, bytes and words. */
export function addDocument(corpus: CorpusStatistics, description: DocumentDescription): DocumentStatistics {
  if (corpus.documents.has(description.index)) {
    throw new RangeError(`document ${description.index} was already entered`);
  }
  const document: DocumentStatistics = {
    index: description.index,
    id: description.id,
    source: description.source,
    tokens: description.tokens,
    ...(description.bytes === undefined ? {} : { bytes: description.bytes }),
    ...(description.words === undefined ? {} : { words: description.words }),
    scoredTokens: 0,
    infiniteTokens: 0,
    nllSum: 0,
    nllSquareSum: 0,
    entropySum: 0,
    entropySquareSum: 0,
    varentropySum: 0,
    correctTokens: 0,
    windows: 0,
    emptyWindows: 0,
    windowMeanSum: 0,
    labelWeightedSum: 0,
    labelWeight: 0,
  };
  corpus.documents.set(document.index, document);
  return document;
}

/** Counts a window that scored nothing: Hugging Face's older recipe has no mean then. */
export function addEmptyWindow(document: DocumentStatistics): void {
  document.emptyWindows++;
}

/** Counts a window in the averages that weigh windows instead of tokens. */
function addWindow(document: DocumentStatistics, nllSum: number, scored: number, validLabels: number): void {
  if (scored === 0) {
    document.emptyWindows++;
    return;
  }
  document.windows++;
  document.windowMeanSum += nllSum / scored;
  const weight = validLabels - 1;
  if (weight > 0) {
    document.labelWeightedSum += (nllSum / scored) * weight;
    document.labelWeight += weight;
  }
}

/**
 * Adds the measures of one window. Windows of a document must come in order: its f64 sums are added in token order.
 */
export function addScoredTokens(
  corpus: CorpusStatistics,
  document: DocumentStatistics,
  tokens: ScoredTokens,
  describe: DescribeToken,
): void {
  const scored = tokens.positions.length;
  let histogram = corpus.entropyHistograms.get(document.source);
  if (histogram === undefined) {
    histogram = new Map();
    corpus.entropyHistograms.set(document.source, histogram);
  }
  let windowSum = 0;
  let windowFinite = 0;
  for (let i = 0; i < scored; i++) {
    const surprisal = tokens.surprisalNats[i];
    const entropy = tokens.entropyNats[i];
    const varentropy = tokens.varentropyNats2[i];
    const confidence = tokens.topProbability[i];
    const correct = tokens.rank[i] === 1 ? 1 : 0;
    const finite = surprisal !== Number.POSITIVE_INFINITY;
    document.scoredTokens++;
    document.correctTokens += correct;
    document.entropySum += entropy;
    document.entropySquareSum += entropy * entropy;
    document.varentropySum += varentropy;
    if (finite) {
      document.nllSum += surprisal;
      document.nllSquareSum += surprisal * surprisal;
      windowSum += surprisal;
      windowFinite++;
      addToBin(binAt(corpus.byContext, positionBin(tokens.contextLengths[i]), PAIR_WIDTH), surprisal, entropy);
      addToBin(binAt(corpus.byEntropy, uniformBin(entropy, CALIBRATION_WIDTH_NATS), PAIR_WIDTH), surprisal, entropy);
      countInto(corpus.surprisalHistogram, uniformBin(surprisal, HISTOGRAM_WIDTH_NATS));
    } else {
      document.infiniteTokens++;
    }
    const confidenceBin = Math.min(CONFIDENCE_BINS - 1, uniformBin(confidence, 1 / CONFIDENCE_BINS));
    addToBin(binAt(corpus.byConfidence, confidenceBin, PAIR_WIDTH), confidence, correct);
    const entropyBin = uniformBin(entropy, HISTOGRAM_WIDTH_NATS);
    countInto(histogram, entropyBin);
    const column = finite
      ? Math.min(JOINT_COLUMNS - 1, uniformBin(surprisal, HISTOGRAM_WIDTH_NATS))
      : JOINT_COLUMNS - 1;
    countInto(corpus.joint, entropyBin * JOINT_COLUMNS + column);
    addToSketch(corpus.surprisal, surprisal);
    addToSketch(corpus.entropy, entropy);
    addToSketch(corpus.varentropy, varentropy);
    const position = tokens.positions[i];
    const surprising = wouldEnter(corpus.mostSurprising, surprisal, document.index, position);
    const uncertain = wouldEnter(corpus.mostUncertain, entropy, document.index, position);
    if (surprising || uncertain) {
      const notable: NotableToken = {
        document: document.index,
        position,
        tokenId: tokens.tokenIds[i],
        surprisalNats: surprisal,
        entropyNats: entropy,
        rank: tokens.rank[i],
        topProbability: confidence,
        ...describe(position),
      };
      if (surprising) enter(corpus.mostSurprising, notable);
      if (uncertain) enter(corpus.mostUncertain, notable);
    }
  }
  addWindow(document, windowSum, scored === 0 ? 0 : windowFinite, tokens.validLabels);
}

/**
 * Unites statistics of disjoint sets of documents. What `summarizeCorpus` makes of the result is byte for byte what it
 * makes of one pass over all the documents.
 * @throws RangeError when two parts hold the same document
 */
export function mergeCorpus(parts: readonly CorpusStatistics[]): CorpusStatistics {
  const merged = createCorpus({
    top: parts[0]?.mostSurprising.limit,
    exactQuantiles: parts[0]?.surprisal.exactLimit,
  });
  for (const part of parts) {
    for (const [index, document] of part.documents) {
      if (merged.documents.has(index)) throw new RangeError(`document ${index} (${document.id}) is in two parts`);
      merged.documents.set(index, { ...document });
    }
    mergeSketch(merged.surprisal, part.surprisal);
    mergeSketch(merged.entropy, part.entropy);
    mergeSketch(merged.varentropy, part.varentropy);
    mergeBins(merged.byContext, part.byContext);
    mergeBins(merged.byEntropy, part.byEntropy);
    mergeBins(merged.byConfidence, part.byConfidence);
    mergeCounts(merged.surprisalHistogram, part.surprisalHistogram);
    for (const [source, counts] of part.entropyHistograms) {
      const held = merged.entropyHistograms.get(source) ?? new Map();
      merged.entropyHistograms.set(source, held);
      mergeCounts(held, counts);
    }
    mergeCounts(merged.joint, part.joint);
    mergeTop(merged.mostSurprising, part.mostSurprising);
    mergeTop(merged.mostUncertain, part.mostUncertain);
  }
  return merged;
}

/** Documents in the order of their indices, the order in which sums over documents are added. */
export function documentsInOrder(corpus: CorpusStatistics): DocumentStatistics[] {
  return [...corpus.documents.values()].sort((a, b) => a.index - b.index);
}

type NotableTokenJson = Omit<NotableToken, 'surprisalNats' | 'rank'> & {
  surprisalNats: number | 'inf';
  rank: number | null;
};

/** Lossless plain form of corpus statistics, for partial reports of shards. */
export interface CorpusJson {
  documents: DocumentStatistics[];
  surprisal: QuantileSketchJson;
  entropy: QuantileSketchJson;
  varentropy: QuantileSketchJson;
  by_context: BinTableJson;
  by_entropy: BinTableJson;
  by_confidence: BinTableJson;
  surprisal_histogram: [number, number][];
  entropy_histograms: [string, [number, number][]][];
  joint: [number, number][];
  top_limit: number;
  most_surprising: NotableTokenJson[];
  most_uncertain: NotableTokenJson[];
}

function notableToJson(top: TopTokens): NotableTokenJson[] {
  return top.tokens.map((token) => ({
    ...token,
    surprisalNats: token.surprisalNats === Number.POSITIVE_INFINITY ? 'inf' : token.surprisalNats,
    rank: Number.isNaN(token.rank) ? null : token.rank,
  }));
}

function notableFromJson(top: TopTokens, json: readonly NotableTokenJson[]): void {
  for (const token of json) {
    enter(top, {
      ...token,
      surprisalNats: token.surprisalNats === 'inf' ? Number.POSITIVE_INFINITY : token.surprisalNats,
      rank: token.rank ?? Number.NaN,
    });
  }
}

export function corpusToJson(corpus: CorpusStatistics): CorpusJson {
  return {
    documents: documentsInOrder(corpus),
    surprisal: sketchToJson(corpus.surprisal),
    entropy: sketchToJson(corpus.entropy),
    varentropy: sketchToJson(corpus.varentropy),
    by_context: binsToJson(corpus.byContext),
    by_entropy: binsToJson(corpus.byEntropy),
    by_confidence: binsToJson(corpus.byConfidence),
    surprisal_histogram: countsToJson(corpus.surprisalHistogram),
    entropy_histograms: [...corpus.entropyHistograms].map(([source, counts]) => [source, countsToJson(counts)]),
    joint: countsToJson(corpus.joint),
    top_limit: corpus.mostSurprising.limit,
    most_surprising: notableToJson(corpus.mostSurprising),
    most_uncertain: notableToJson(corpus.mostUncertain),
  };
}

export function corpusFromJson(json: CorpusJson): CorpusStatistics {
  const mostSurprising = createTopTokens('surprisalNats', json.top_limit);
  const mostUncertain = createTopTokens('entropyNats', json.top_limit);
  notableFromJson(mostSurprising, json.most_surprising);
  notableFromJson(mostUncertain, json.most_uncertain);
  return {
    documents: new Map(json.documents.map((document) => [document.index, { ...document }])),
    surprisal: sketchFromJson(json.surprisal),
    entropy: sketchFromJson(json.entropy),
    varentropy: sketchFromJson(json.varentropy),
    byContext: binsFromJson(json.by_context),
    byEntropy: binsFromJson(json.by_entropy),
    byConfidence: binsFromJson(json.by_confidence),
    surprisalHistogram: new Map(json.surprisal_histogram),
    entropyHistograms: new Map(json.entropy_histograms.map(([source, counts]) => [source, new Map(counts)])),
    joint: new Map(json.joint),
    mostSurprising,
    mostUncertain,
  };
}
