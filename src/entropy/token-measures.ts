import { InputError } from '../errors.js';
import { bfloatValue, halfValue } from '../kernels/dtypes-reference.js';
import { type LogitBlock, type RowStatistics, rowStatistics, topMass } from '../kernels/row-statistics.js';
import { aggregateTokens, type TextCounts, type TokenAggregate, type TokenSums } from './aggregate.js';

/** Which families of measures to take besides those that need no parameter. */
export interface TokenMeasureOptions extends TextCounts {
  /** Sizes k of top-k masses (default 1, 5, 10). */
  readonly topK?: readonly number[];
  /** Orders of Renyi entropies, 0 to Infinity (default 0.5, 2, Infinity). */
  readonly renyiOrders?: readonly number[];
  /** Orders of Tsallis entropies (default 2). */
  readonly tsallisOrders?: readonly number[];
  readonly threads?: number;
}

/** Measures of every row of a block of logits, and their aggregate. Nats; arrays have one entry a row. */
export interface TokenMeasures {
  /** What needs no parameter: surprisal, entropy, varentropy, rank, margin, self-certainty, Fisher-Rao and the like. */
  readonly statistics: RowStatistics;
  /** Log of the number of tokens whose probability is above zero in f64: a logit 746 below the log-sum-exp has none. */
  readonly hartleyNats: Float64Array;
  /** Surprisal less entropy. */
  readonly excessSurprisalNats: Float64Array;
  readonly topMass: ReadonlyMap<number, Float64Array>;
  readonly renyiNats: ReadonlyMap<number, Float64Array>;
  readonly tsallis: ReadonlyMap<number, Float64Array>;
  readonly aggregate: TokenAggregate;
}

/** The kernel keeps at most so many of a row's largest logits. */
const KEPT_BY_KERNEL = 64;

/** Mass of the k largest of every row, for k beyond what the kernel keeps: sorts each row. f64 and f32 logits only. */
function sortedMass(block: LogitBlock, statistics: RowStatistics, k: number): Float64Array {
  if (block.dtype !== 'F64' && block.dtype !== 'F32') {
    throw new InputError(
      `the mass of the ${k} largest needs f32 or f64 logits; of half precision at most ${KEPT_BY_KERNEL}`,
    );
  }
  const stride = block.rowStride ?? block.columns;
  const row = new Float64Array(block.columns);
  const mass = new Float64Array(block.rows);
  for (let r = 0; r < block.rows; r++) {
    row.set(block.data.subarray(r * stride, r * stride + block.columns));
    row.sort();
    let sum = 0;
    for (let i = Math.max(0, row.length - k); i < row.length; i++) sum += Math.exp(row[i] - statistics.logSumExp[r]);
    mass[r] = Math.min(1, sum);
  }
  return mass;
}

/** Least log-probability whose exponential is above zero in f64. */
const LOG_SMALLEST = -745.1332191019411;

/** Tokens of every row whose probability is above zero in f64. */
function positiveSupport(block: LogitBlock, statistics: RowStatistics): Float64Array {
  const stride = block.rowStride ?? block.columns;
  const { data, dtype } = block;
  return statistics.logSumExp.map((logSumExp, r) => {
    const least = logSumExp + LOG_SMALLEST;
    let count = 0;
    for (let i = r * stride; i < r * stride + block.columns; i++) {
      const logit = dtype === 'F16' ? halfValue(data[i]) : dtype === 'BF16' ? bfloatValue(data[i]) : data[i];
      if (logit >= least) count++;
    }
    return count;
  });
}

/** Sums over the rows of statistics that have a target, in row order. */
export function sumTokens(statistics: RowStatistics): TokenSums {
  const sums = {
    tokens: 0,
    infiniteTokens: 0,
    nllSum: 0,
    nllSquareSum: 0,
    entropySum: 0,
    entropySquareSum: 0,
    varentropySum: 0,
  };
  for (let r = 0; r < statistics.rows; r++) {
    const surprisal = statistics.surprisalNats[r];
    if (Number.isNaN(surprisal)) continue;
    const entropy = statistics.entropyNats[r];
    sums.tokens++;
    sums.entropySum += entropy;
    sums.entropySquareSum += entropy * entropy;
    sums.varentropySum += statistics.varentropyNats2[r];
    if (surprisal === Number.POSITIVE_INFINITY) {
      sums.infiniteTokens++;
    } else {
      sums.nllSum += surprisal;
      sums.nllSquareSum += surprisal * surprisal;
    }
  }
  return sums;
}

/**
 * Measures of a block of whole rows of logits `[rows, vocabulary]` at `targets` `[rows]` (-1 for a row without a target).
 * @throws InputError for NaN, plus infinity, an empty row (named by row and column), or a target outside the vocabulary
 */
export function measureTokens(
  block: LogitBlock,
  targets: Int32Array,
  options: TokenMeasureOptions = {},
): TokenMeasures {
  const {
    topK = [1, 5, 10],
    renyiOrders = [0.5, 2, Number.POSITIVE_INFINITY],
    tsallisOrders = [2],
    threads,
    ...text
  } = options;
  targets.forEach((target, row) => {
    if (target >= block.columns) {
      throw new InputError(`row ${row}: target ${target} is outside the vocabulary of ${block.columns}`);
    }
  });
  const orders = [...new Set([...renyiOrders, ...tsallisOrders])];
  const kept = Math.min(KEPT_BY_KERNEL, Math.max(2, ...topK));
  const statistics = rowStatistics(block, { topK: kept, renyiOrders: orders, targets, threads });
  const support = positiveSupport(block, statistics);
  const hartleyNats = support.map(Math.log);
  const byOrder = (
    from: readonly Float64Array[],
    wanted: readonly number[],
    zero: Float64Array,
  ): Map<number, Float64Array> =>
    new Map(wanted.map((order) => [order, order === 0 ? zero : from[orders.indexOf(order)]]));
  return {
    statistics,
    hartleyNats,
    excessSurprisalNats: statistics.surprisalNats.map((surprisal, r) => surprisal - statistics.entropyNats[r]),
    topMass: new Map(
      topK.map((k) => [
        k,
        k <= kept || block.columns <= kept ? topMass(statistics, k) : sortedMass(block, statistics, k),
      ]),
    ),
    renyiNats: byOrder(statistics.renyiNats, renyiOrders, hartleyNats),
    tsallis: byOrder(
      statistics.tsallis,
      tsallisOrders,
      support.map((count) => count - 1),
    ),
    aggregate: aggregateTokens(sumTokens(statistics), text),
  };
}

/** Renyi divergence from uniform over the vocabulary, `log V - H_alpha`. */
export function renyiDivergenceFromUniformNats(renyiNats: number, vocabulary: number): number {
  return Math.max(0, Math.log(vocabulary) - renyiNats);
}

/**
 * lm-polygraph's readings, which divide the logits by a temperature of 2 first: Fisher-Rao distance to uniform, and its
 * RenyiNeg `(log sum p^alpha - (alpha-1) log V)/(alpha-1) = -H_alpha - log V` (alpha 0.5), which is not the divergence from
 * uniform.
 */
export function lmPolygraphMeasures(
  logits: Float32Array | Float64Array,
  vocabulary: number,
): { readonly fisherRao: Float64Array; readonly renyinegCompat: Float64Array } {
  const temperature = 2;
  const data = Float64Array.from(logits, (logit) => logit / temperature);
  const block: LogitBlock = { data, dtype: 'F64', rows: logits.length / vocabulary, columns: vocabulary };
  const statistics = rowStatistics(block, { topK: 0, renyiOrders: [0.5] });
  return {
    fisherRao: statistics.fisherRao,
    renyinegCompat: statistics.renyiNats[0].map((renyi) => -renyi - Math.log(vocabulary)),
  };
}
