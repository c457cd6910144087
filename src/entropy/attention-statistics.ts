import { standardErrorOfMean } from './aggregate.js';
import { type AttentionRows, type AttentionShape, ROW_FULLY_MASKED, ROW_NAN, visibleKeys } from './attention.js';
import {
  type BinTable,
  type BinTableJson,
  binAt,
  binMean,
  binsFromJson,
  binsToJson,
  mergeBins,
  positionBin,
  positionBinRange,
  sortedBins,
} from './binning.js';
import { addExact, type ExactSum, mergeExact, totalOf } from './exact-sum.js';

/** Exact sums over the rows of one head. */
export interface HeadSums {
  rows: number;
  maskedRows: number;
  nanRows: number;
  readonly entropy: ExactSum;
  readonly entropySquare: ExactSum;
  /** Rows that see two keys or more, and the sum of entropy / log(visible keys) over them. */
  normalisedRows: number;
  readonly normalised: ExactSum;
  readonly firstKeyMass: ExactSum;
  withoutFirstRows: number;
  readonly withoutFirst: ExactSum;
  /** Entropy, and entropy / log(visible keys) (0 for the first query), by query position. */
  readonly byPosition: BinTable;
}

/** Mergeable attention statistics, heads in the order `[layers, heads]`. */
export interface AttentionStatistics {
  readonly layers: number;
  readonly heads: number;
  readonly sums: HeadSums[];
}

export function createAttentionStatistics(layers: number, heads: number): AttentionStatistics {
  return {
    layers,
    heads,
    sums: Array.from({ length: layers * heads }, () => ({
      rows: 0,
      maskedRows: 0,
      nanRows: 0,
      entropy: [],
      entropySquare: [],
      normalisedRows: 0,
      normalised: [],
      firstKeyMass: [],
      withoutFirstRows: 0,
      withoutFirst: [],
      byPosition: new Map(),
    })),
  };
}

/** Where the rows of a block lie. */
export interface AttentionPlacement {
  readonly layer: number;
  /** Position of the first query. */
  readonly queryStart: number;
  readonly slidingWindow?: number;
  /** False: every query sees all keys (encoders). */
  readonly causal?: boolean;
}

/** Adds the rows of one layer; `shape.heads` must be that of the statistics. */
export function addAttentionRows(
  statistics: AttentionStatistics,
  rows: AttentionRows,
  shape: AttentionShape,
  placement: AttentionPlacement,
): void {
  const { batch, heads, queries, keys } = shape;
  const { layer, queryStart, slidingWindow, causal = true } = placement;
  if (heads !== statistics.heads || layer < 0 || layer >= statistics.layers) {
    throw new RangeError(`layer ${layer} of ${heads} heads does not fit [${statistics.layers}, ${statistics.heads}]`);
  }
  for (let b = 0; b < batch; b++) {
    for (let head = 0; head < heads; head++) {
      const sums = statistics.sums[layer * heads + head];
      for (let q = 0; q < queries; q++) {
        const row = (b * heads + head) * queries + q;
        const state = rows.state[row];
        if (state === ROW_FULLY_MASKED) {
          sums.maskedRows++;
          continue;
        }
        if (state === ROW_NAN) {
          sums.nanRows++;
          continue;
        }
        const entropy = rows.entropyNats[row];
        const visible = causal ? visibleKeys(queryStart + q, slidingWindow) : keys;
        const bin = binAt(sums.byPosition, positionBin(queryStart + q), 2);
        sums.rows++;
        bin.count++;
        addExact(sums.entropy, entropy);
        addExact(sums.entropySquare, entropy * entropy);
        addExact(sums.firstKeyMass, rows.firstKeyMass[row]);
        addExact(bin.sums[0], entropy);
        if (visible > 1) {
          const normalised = entropy / Math.log(visible);
          sums.normalisedRows++;
          addExact(sums.normalised, normalised);
          addExact(bin.sums[1], normalised);
        }
        const without = rows.withoutFirstKeyNats[row];
        if (!Number.isNaN(without)) {
          sums.withoutFirstRows++;
          addExact(sums.withoutFirst, without);
        }
      }
    }
  }
}

/** Adds `other` into `statistics`; exact, so the order of parts leaves no trace. */
export function mergeAttention(statistics: AttentionStatistics, other: AttentionStatistics): void {
  if (statistics.layers !== other.layers || statistics.heads !== other.heads) {
    throw new RangeError(
      `attention statistics of [${other.layers}, ${other.heads}] do not fit [${statistics.layers}, ${statistics.heads}]`,
    );
  }
  for (let i = 0; i < statistics.sums.length; i++) {
    const into = statistics.sums[i];
    const from = other.sums[i];
    into.rows += from.rows;
    into.maskedRows += from.maskedRows;
    into.nanRows += from.nanRows;
    into.normalisedRows += from.normalisedRows;
    into.withoutFirstRows += from.withoutFirstRows;
    mergeExact(into.entropy, from.entropy);
    mergeExact(into.entropySquare, from.entropySquare);
    mergeExact(into.normalised, from.normalised);
    mergeExact(into.firstKeyMass, from.firstKeyMass);
    mergeExact(into.withoutFirst, from.withoutFirst);
    mergeBins(into.byPosition, from.byPosition);
  }
}

/** Figures of one head. NaN where no row was proper. */
export interface HeadFigures {
  layer: number;
  head: number;
  rows: number;
  masked_rows: number;
  nan_rows: number;
  entropy_nats: number;
  entropy_nats_se: number;
  /** Standard deviation over rows. */
  entropy_nats_std: number;
  /** Mean of entropy / log(visible keys), over rows that see two keys or more. */
  normalized_entropy: number;
  /** Mean entropy as a share of log(context). */
  share_of_log_context: number;
  entropy_without_first_key_nats: number;
  first_key_mass: number;
}

/** Figures of every head in the order `[layers, heads]`. */
export function headFigures(statistics: AttentionStatistics, contextSize: number): HeadFigures[] {
  return statistics.sums.map((sums, i) => {
    const sum = totalOf(sums.entropy);
    const squares = totalOf(sums.entropySquare);
    const error = standardErrorOfMean(sum, squares, sums.rows);
    return {
      layer: Math.floor(i / statistics.heads),
      head: i % statistics.heads,
      rows: sums.rows,
      masked_rows: sums.maskedRows,
      nan_rows: sums.nanRows,
      entropy_nats: sum / sums.rows,
      entropy_nats_se: error,
      entropy_nats_std: error * Math.sqrt(sums.rows - 1),
      normalized_entropy: totalOf(sums.normalised) / sums.normalisedRows,
      share_of_log_context: sum / sums.rows / Math.log(contextSize),
      entropy_without_first_key_nats: totalOf(sums.withoutFirst) / sums.withoutFirstRows,
      first_key_mass: totalOf(sums.firstKeyMass) / sums.rows,
    };
  });
}

/** Mean entropy of one head by query position. */
export function headByPosition(
  statistics: AttentionStatistics,
  layer: number,
  head: number,
): { first: number; last: number; rows: number; entropy_nats: number; normalized_entropy: number }[] {
  return sortedBins(statistics.sums[layer * statistics.heads + head].byPosition).map(([index, bin]) => ({
    ...positionBinRange(index),
    rows: bin.count,
    entropy_nats: binMean(bin, 0),
    normalized_entropy: index === 0 ? Number.NaN : binMean(bin, 1),
  }));
}

type HeadSumsJson = Omit<HeadSums, 'byPosition'> & { by_position: BinTableJson };

/** Lossless plain form, for partial reports. */
export interface AttentionJson {
  layers: number;
  heads: number;
  sums: HeadSumsJson[];
}

export function attentionToJson(statistics: AttentionStatistics): AttentionJson {
  return {
    layers: statistics.layers,
    heads: statistics.heads,
    sums: statistics.sums.map(({ byPosition, ...rest }) => ({ ...rest, by_position: binsToJson(byPosition) })),
  };
}

export function attentionFromJson(json: AttentionJson): AttentionStatistics {
  return {
    layers: json.layers,
    heads: json.heads,
    sums: json.sums.map(({ by_position: byPosition, ...rest }) => ({ ...rest, byPosition: binsFromJson(byPosition) })),
  };
}
