import { bootstrapDocuments } from '../linalg/bootstrap.js';
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
import { standardErrorOfMean } from './aggregate.js';
import {
  addToBin,
  type BinTable,
  type BinTableJson,
  binAt,
  binError,
  binMean,
  binsFromJson,
  binsToJson,
  type CountTable,
  countInto,
  countsToJson,
  mergeBins,
  mergeCounts,
  PAIR_WIDTH,
  positionBin,
  positionBinRange,
  sortedBins,
  uniformBin,
} from './binning.js';

/** Sums of one document, added in the order of its rows. Arrays have one entry a column. */
export interface ColumnDocument {
  readonly index: number;
  readonly id: string;
  readonly source: string;
  rows: number;
  /** Rows that have a finite value; the sums are over these. */
  readonly finite: number[];
  readonly infinite: number[];
  readonly sum: number[];
  readonly squareSum: number[];
}

/** Mergeable statistics of some quantities of rows that belong to documents. NaN stands for a value that is not there. */
export interface ColumnStatistics {
  readonly columns: readonly string[];
  readonly documents: Map<number, ColumnDocument>;
  readonly sketches: readonly QuantileSketch[];
  /** Histogram of each column in bins of `binWidth`. */
  readonly histograms: readonly CountTable[];
  /** Sums of the first two columns by context length, where both are finite. */
  readonly byContext: BinTable;
  readonly binWidth: number;
}

export function createColumns(columns: readonly string[], binWidth: number): ColumnStatistics {
  return {
    columns,
    documents: new Map(),
    sketches: columns.map(() => createQuantileSketch()),
    histograms: columns.map(() => new Map()),
    byContext: new Map(),
    binWidth,
  };
}

/** Enters a document. @throws RangeError when it was entered before */
export function addColumnDocument(
  statistics: ColumnStatistics,
  description: { readonly index: number; readonly id: string; readonly source: string },
): ColumnDocument {
  const { index, id, source } = description;
  if (statistics.documents.has(index)) throw new RangeError(`document ${index} was already entered`);
  const zeros = (): number[] => statistics.columns.map(() => 0);
  const document = {
    index,
    id,
    source,
    rows: 0,
    finite: zeros(),
    infinite: zeros(),
    sum: zeros(),
    squareSum: zeros(),
  };
  statistics.documents.set(index, document);
  return document;
}

/** Adds one row of a document; rows come in order. `values` has one entry a column. */
export function addColumnRow(
  statistics: ColumnStatistics,
  document: ColumnDocument,
  contextLength: number,
  values: ArrayLike<number>,
): void {
  document.rows++;
  for (let k = 0; k < statistics.columns.length; k++) {
    const value = values[k];
    if (Number.isNaN(value)) continue;
    addToSketch(statistics.sketches[k], value);
    if (!Number.isFinite(value)) {
      document.infinite[k]++;
      continue;
    }
    document.finite[k]++;
    document.sum[k] += value;
    document.squareSum[k] += value * value;
    countInto(statistics.histograms[k], uniformBin(value, statistics.binWidth));
  }
  const second = statistics.columns.length > 1 ? values[1] : 0;
  if (Number.isFinite(values[0]) && Number.isFinite(second)) {
    addToBin(binAt(statistics.byContext, positionBin(contextLength), PAIR_WIDTH), values[0], second);
  }
}

function documentsInOrder(statistics: ColumnStatistics): ColumnDocument[] {
  return [...statistics.documents.values()].sort((a, b) => a.index - b.index);
}

/** Unites statistics of disjoint sets of documents. @throws RangeError when a document is in two parts */
export function mergeColumns(parts: readonly ColumnStatistics[]): ColumnStatistics {
  const merged = createColumns(parts[0].columns, parts[0].binWidth);
  for (const part of parts) {
    for (const [index, document] of part.documents) {
      if (merged.documents.has(index)) throw new RangeError(`document ${index} (${document.id}) is in two parts`);
      merged.documents.set(index, document);
    }
    part.sketches.forEach((sketch, k) => {
      mergeSketch(merged.sketches[k], sketch);
    });
    part.histograms.forEach((histogram, k) => {
      mergeCounts(merged.histograms[k], histogram);
    });
    mergeBins(merged.byContext, part.byContext);
  }
  return merged;
}

/** Lossless plain form, for partial reports. */
export interface ColumnStatisticsJson {
  columns: readonly string[];
  bin_width: number;
  documents: ColumnDocument[];
  sketches: QuantileSketchJson[];
  histograms: [number, number][][];
  by_context: BinTableJson;
}

export function columnsToJson(statistics: ColumnStatistics): ColumnStatisticsJson {
  return {
    columns: statistics.columns,
    bin_width: statistics.binWidth,
    documents: documentsInOrder(statistics),
    sketches: statistics.sketches.map(sketchToJson),
    histograms: statistics.histograms.map(countsToJson),
    by_context: binsToJson(statistics.byContext),
  };
}

export function columnsFromJson(json: ColumnStatisticsJson): ColumnStatistics {
  return {
    columns: json.columns,
    documents: new Map(json.documents.map((document) => [document.index, document])),
    sketches: json.sketches.map(sketchFromJson),
    histograms: json.histograms.map((counts) => new Map(counts)),
    byContext: binsFromJson(json.by_context),
    binWidth: json.bin_width,
  };
}

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

/** Figures of one column over all rows that have it. */
export interface ColumnSummary {
  /** Rows that have a value, infinite ones included. */
  readonly count: number;
  readonly infinite: number;
  /** Infinite when one value is; NaN without any. */
  readonly mean: number;
  readonly standardError: number;
  readonly finiteMean: number;
  readonly quantiles: Record<string, number>;
}

/** Sums are added in document order. */
export function summarizeColumn(statistics: ColumnStatistics, column: string): ColumnSummary {
  const k = columnIndex(statistics, column);
  let finite = 0;
  let infinite = 0;
  let sum = 0;
  let squareSum = 0;
  for (const document of documentsInOrder(statistics)) {
    finite += document.finite[k];
    infinite += document.infinite[k];
    sum += document.sum[k];
    squareSum += document.squareSum[k];
  }
  const sketch = statistics.sketches[k];
  const values = quantilesOf(
    sketch,
    QUANTILES.map(([, fraction]) => fraction),
  );
  return {
    count: finite + infinite,
    infinite,
    mean: infinite > 0 ? Number.POSITIVE_INFINITY : sum / finite,
    standardError: infinite > 0 ? Number.NaN : standardErrorOfMean(sum, squareSum, finite),
    finiteMean: sum / finite,
    quantiles: {
      relative_error: sketch.exact === null ? QUANTILE_RELATIVE_ERROR : 0,
      ...Object.fromEntries(QUANTILES.map(([key], i) => [key, values[i]])),
    },
  };
}

function columnIndex(statistics: ColumnStatistics, column: string): number {
  const k = statistics.columns.indexOf(column);
  if (k < 0) throw new RangeError(`no column ${column}`);
  return k;
}

/** Document-bootstrap intervals of the means of some columns; undefined for fewer than two documents. */
export function columnIntervals(
  statistics: ColumnStatistics,
  columns: readonly string[],
  seed: number,
):
  | {
      level: number;
      resamples: number;
      units: number;
      seed: number;
      means: { low: number; high: number; bootstrap_se: number }[];
    }
  | undefined {
  const documents = documentsInOrder(statistics);
  const indices = columns.map((column) => columnIndex(statistics, column));
  const width = 2 * indices.length;
  const sums = new Float64Array(documents.length * width);
  documents.forEach((document, d) => {
    indices.forEach((k, c) => {
      sums[d * width + 2 * c] = document.infinite[k] > 0 ? Number.POSITIVE_INFINITY : document.sum[k];
      sums[d * width + 2 * c + 1] = document.finite[k] + document.infinite[k];
    });
  });
  const means = indices.map((_, c) => (totals: Float64Array) => totals[2 * c] / totals[2 * c + 1]);
  const { intervals, units, resamples } = bootstrapDocuments(sums, width, means, { seed });
  if (intervals === undefined) return undefined;
  return {
    level: 0.95,
    resamples,
    units,
    seed,
    means: intervals.map(({ low, high, se }) => ({ low, high, bootstrap_se: se })),
  };
}

/** Means of the first two columns by context length. */
export function columnsByContext(
  statistics: ColumnStatistics,
): { first: number; last: number; rows: number; means: [number, number]; standardErrors: [number, number] }[] {
  return sortedBins(statistics.byContext).map(([index, bin]) => ({
    ...positionBinRange(index),
    rows: bin.count,
    means: [binMean(bin, 0), binMean(bin, 1)],
    standardErrors: [binError(bin, 0), binError(bin, 1)],
  }));
}

/** Histogram of one column as [bin, count]. */
export function columnHistogram(statistics: ColumnStatistics, column: string): [number, number][] {
  return countsToJson(statistics.histograms[columnIndex(statistics, column)]);
}

/** Rows and documents in all. */
export function countColumns(statistics: ColumnStatistics): { documents: number; rows: number } {
  let rows = 0;
  for (const document of statistics.documents.values()) rows += document.rows;
  return { documents: statistics.documents.size, rows };
}
