import { InputError } from '../errors.js';
import { type BootstrapInterval, bootstrapDocuments } from '../linalg/bootstrap.js';
import { type AdditiveSums, BOOTSTRAPPED, type RoutingMeasure, type RoutingTotals } from './routing-measures.js';
import { ENTROPY_BINS, type RouterRule } from './types.js';

/** A router that is measured. */
export interface RouterHead {
  /** 0-based decoder layer. */
  readonly layer: number;
  readonly experts: number;
  readonly topK: number;
  readonly score: RouterRule['score'];
  /** See `RoutingTotals.expertMap`. */
  readonly expertMap?: readonly number[];
}

/** One layer: what adds up exactly (integers), and the sums of each document, in the order in which they came. */
interface LayerRun {
  readonly head: RouterHead;
  tiedTokens: number;
  readonly histogram: Float64Array;
  readonly coActivation: Float64Array;
  /** One row a document, [SCALARS + 3 E]. */
  readonly rows: Float64Array[];
}

/** Mergeable statistics of the routers of a model over documents. */
export interface RoutingRun {
  readonly layers: readonly LayerRun[];
  /** Index of the document of each row, the same in all layers. */
  readonly documents: number[];
  documentsRead: number;
}

/** First entries of a document's row: tokens, sum and squared deviations of entropies, the two other sums. */
const SCALARS = 5;
/** More documents than this are drawn in runs of neighbours by the bootstrap. */
const MOST_BLOCKS = 1000;

export function createRoutingRun(heads: readonly RouterHead[]): RoutingRun {
  const layers = heads.map(
    (head): LayerRun => ({
      head,
      tiedTokens: 0,
      histogram: new Float64Array(ENTROPY_BINS),
      coActivation: new Float64Array(head.experts * head.experts),
      rows: [],
    }),
  );
  return { layers, documents: [], documentsRead: 0 };
}

function addInto(sum: Float64Array, values: ArrayLike<number>): void {
  for (let i = 0; i < sum.length; i++) sum[i] += values[i];
}

/** Adds co-activation [E, E] of every layer that the statistics of the documents do not hold. */
export function addCoActivation(run: RoutingRun, coActivation: readonly Float64Array[]): void {
  run.layers.forEach((layer, place) => {
    addInto(layer.coActivation, coActivation[place]);
  });
}

/**
 * Adds a document with its statistics in every layer. A document without tokens leaves no row. Co-activation may be empty
 * there and come by {@link addCoActivation}.
 */
export function addRoutedDocument(run: RoutingRun, index: number, statistics: readonly RoutingTotals[]): void {
  if (statistics.every(({ tokens }) => tokens === 0)) return;
  run.documents.push(index);
  run.layers.forEach((layer, place) => {
    const own = statistics[place];
    const { experts } = layer.head;
    const row = new Float64Array(SCALARS + 3 * experts);
    row.set([own.tokens, own.entropySum, own.entropyDeviationSum, own.chosenEntropySum, own.squaredLogNormalizerSum]);
    row.set(own.counts, SCALARS);
    row.set(own.probabilitySum, SCALARS + experts);
    row.set(own.gateMass, SCALARS + 2 * experts);
    layer.rows.push(row);
    layer.tiedTokens += own.tiedTokens;
    addInto(layer.histogram, own.entropyHistogram);
    if (own.coActivation.length > 0) addInto(layer.coActivation, own.coActivation);
  });
}

/** Unites runs over disjoint documents. */
export function mergeRoutingRuns(parts: readonly RoutingRun[]): RoutingRun {
  const merged = createRoutingRun(parts[0].layers.map(({ head }) => head));
  for (const part of parts) {
    merged.documents.push(...part.documents);
    merged.documentsRead += part.documentsRead;
    merged.layers.forEach((layer, place) => {
      const own = part.layers[place];
      layer.tiedTokens += own.tiedTokens;
      addInto(layer.histogram, own.histogram);
      addInto(layer.coActivation, own.coActivation);
      layer.rows.push(...own.rows);
    });
  }
  return merged;
}

/** Places of the rows in document order. */
function documentOrder({ documents }: RoutingRun): number[] {
  return documents.map((_, i) => i).sort((a, b) => documents[a] - documents[b]);
}

/** The rows as named sums. */
function sumsOf(row: Float64Array, experts: number): AdditiveSums & { readonly entropyDeviationSum: number } {
  return {
    tokens: row[0],
    entropySum: row[1],
    entropyDeviationSum: row[2],
    chosenEntropySum: row[3],
    squaredLogNormalizerSum: row[4],
    counts: row.subarray(SCALARS, SCALARS + experts),
    probabilitySum: row.subarray(SCALARS + experts, SCALARS + 2 * experts),
    gateMass: row.subarray(SCALARS + 2 * experts, SCALARS + 3 * experts),
  };
}

/** Adds a row in place; deviations unite by Chan, Golub and LeVeque (1979). */
function addRow(total: Float64Array, row: Float64Array): void {
  const apart = total[0] > 0 && row[0] > 0 ? total[1] / total[0] - row[1] / row[0] : 0;
  const between = apart * apart * ((total[0] * row[0]) / Math.max(1, total[0] + row[0]));
  addInto(total, row);
  total[2] += between;
}

/** Statistics of every layer over all documents, added in document order: shards unite to the same bits. */
export function routingTotals(run: RoutingRun): RoutingTotals[] {
  const order = documentOrder(run);
  return run.layers.map(({ head, tiedTokens, histogram, coActivation, rows }) => {
    const total = new Float64Array(SCALARS + 3 * head.experts);
    for (const place of order) addRow(total, rows[place]);
    const sums = sumsOf(total, head.experts);
    return {
      ...head,
      ...sums,
      tiedTokens,
      entropyHistogram: histogram,
      coActivation,
      counts: Float64Array.from(sums.counts),
      probabilitySum: Float64Array.from(sums.probabilitySum),
      gateMass: Float64Array.from(sums.gateMass),
    };
  });
}

/** Intervals of the measures of a layer over documents. */
export type RoutingIntervals = Readonly<Partial<Record<RoutingMeasure, BootstrapInterval>>>;

/** The document bootstrap of all layers; undefined for fewer than two documents. */
export function routingIntervals(
  run: RoutingRun,
  seed: number,
): { readonly layers: RoutingIntervals[]; readonly units: number; readonly resamples: number } | undefined {
  const order = documentOrder(run);
  const names = Object.keys(BOOTSTRAPPED) as RoutingMeasure[];
  let drawn: { units: number; resamples: number } | undefined;
  const layers: RoutingIntervals[] = [];
  for (const { head, rows } of run.layers) {
    const width = SCALARS + 3 * head.experts;
    const sums = new Float64Array(rows.length * width);
    order.forEach((place, i) => {
      sums.set(rows[place], i * width);
    });
    const measures = Object.values(BOOTSTRAPPED).map(
      (measure) => (totals: Float64Array) => measure(sumsOf(totals, head.experts)),
    );
    const found = bootstrapDocuments(sums, width, measures, { seed, maximumBlocks: MOST_BLOCKS });
    const { intervals } = found;
    if (intervals === undefined) return undefined;
    drawn = found;
    layers.push(Object.fromEntries(names.map((name, i) => [name, intervals[i]])));
  }
  return drawn && { layers, units: drawn.units, resamples: drawn.resamples };
}

/** Lossless plain form for partial reports; arrays of doubles little-endian in base64. */
export interface RoutingRunJson {
  readonly layers: readonly {
    readonly head: RouterHead;
    readonly tied_tokens: number;
    readonly histogram: string;
    readonly co_activation: string;
    readonly rows: string;
  }[];
  readonly documents: readonly number[];
  readonly documents_read: number;
}

const encode = (values: Float64Array): string =>
  Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('base64');

function decode(text: string, length: number): Float64Array {
  const bytes = Buffer.from(text, 'base64');
  if (bytes.length !== 8 * length)
    throw new InputError(`partial report: ${bytes.length} bytes of routing statistics, not ${8 * length}`);
  const values = new Float64Array(length);
  new Uint8Array(values.buffer).set(bytes);
  return values;
}

export function routingRunToJson(run: RoutingRun): RoutingRunJson {
  return {
    layers: run.layers.map(({ head, tiedTokens, histogram, coActivation, rows }) => {
      const width = SCALARS + 3 * head.experts;
      const all = new Float64Array(rows.length * width);
      rows.forEach((row, i) => {
        all.set(row, i * width);
      });
      return {
        head,
        tied_tokens: tiedTokens,
        histogram: encode(histogram),
        co_activation: encode(coActivation),
        rows: encode(all),
      };
    }),
    documents: run.documents,
    documents_read: run.documentsRead,
  };
}

export function routingRunFromJson(json: RoutingRunJson): RoutingRun {
  const run = createRoutingRun(json.layers.map(({ head }) => head));
  run.documents.push(...json.documents);
  run.documentsRead = json.documents_read;
  run.layers.forEach((layer, place) => {
    const own = json.layers[place];
    const { experts } = layer.head;
    const width = SCALARS + 3 * experts;
    layer.tiedTokens = own.tied_tokens;
    layer.histogram.set(decode(own.histogram, ENTROPY_BINS));
    layer.coActivation.set(decode(own.co_activation, experts * experts));
    const rows = decode(own.rows, json.documents.length * width);
    for (let i = 0; i < json.documents.length; i++) layer.rows.push(rows.slice(i * width, (i + 1) * width));
  });
  return run;
}
