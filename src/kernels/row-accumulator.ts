import { InputError } from '../errors.js';

/** Element types of logits that are read as they are stored, in the order of their numbers in the addon. */
export const LOGIT_FORMATS = ['F64', 'F32', 'F16', 'BF16'] as const;
export type LogitFormat = (typeof LOGIT_FORMATS)[number];

/** A block of logits: `rows` rows of `columns` values, rows `rowStride` elements apart (default `columns`). */
export interface LogitBlock {
  /** Float64Array for F64, Float32Array for F32, Uint16Array of bit patterns for F16 and BF16. */
  readonly data: Float64Array | Float32Array | Uint16Array;
  readonly dtype: LogitFormat;
  readonly rows: number;
  readonly columns: number;
  readonly rowStride?: number;
}

export interface RowAccumulatorOptions {
  /**
   * `entropy`: log-sum-exp, entropy and surprisal, the cheapest. `full` (default): also varentropy, Renyi and Tsallis
   * orders, self-certainty, Fisher-Rao, support and rank of the target.
   */
  readonly measures?: 'entropy' | 'full';
  /** How many of the largest logits to keep, 0 to 64. Default 10 for `full`, 0 for `entropy`. */
  readonly topK?: number;
  /** Orders of Renyi and Tsallis entropies, each >= 0 or Infinity, at most 14. Default [0.5, 2, Infinity] for `full`. */
  readonly renyiOrders?: readonly number[];
  /** What error messages call the tensor. Default `logits`. */
  readonly name?: string;
}

/** Positions of the fields in {@link RowAccumulator.fields}; the addon knows the same. */
export const FIELD = {
  max: 0,
  z: 1,
  a: 2,
  q: 3,
  half: 4,
  square: 5,
  finiteSum: 6,
  finiteCount: 7,
  support: 8,
  supportLeast: 9,
  columns: 10,
  targetLogit: 11,
  targetSeen: 12,
  greater: 13,
  rankedColumns: 14,
  powers: 15,
} as const;

/**
 * Running statistics of `rows` rows over the vocabulary columns seen so far. With m the largest logit of a row so far:
 * z, a, q = sum of e^(x-m) (x-m)^k for k = 0, 1, 2; half, square and powers = sum of e^(alpha (x-m)); support = number
 * of logits with e^(x-m) > 0 in f64, supportLeast the smallest of them.
 */
export interface RowAccumulator {
  readonly rows: number;
  readonly name: string;
  readonly full: boolean;
  readonly topK: number;
  readonly renyiOrders: readonly number[];
  /** Orders whose power sums are kept one by one: those of renyiOrders other than 0, 0.5, 1, 2 and Infinity. */
  readonly powerOrders: Float64Array;
  /** [FIELD.powers + powerOrders.length, rows]. */
  readonly fields: Float64Array;
  /** [rows, topK], falling. */
  readonly topValues: Float64Array;
  /** [rows, topK]; -1 where fewer than topK finite logits were seen. Of equal values the lower column comes first. */
  readonly topColumns: Int32Array;
}

/** The addon's limit on kept power sums. */
const MOST_POWER_ORDERS = 16;

/** log(2^-1075): e^d is above 0 in f64 where d is above this. */
export const SUPPORT_DEPTH = -745.1332191019412;

/** Orders within this of 1 are Shannon's. */
export const SHANNON_WIDTH = 1e-9;

function hasOwnSum(order: number): boolean {
  return order !== 0 && order !== 0.5 && order !== 2 && order !== Number.POSITIVE_INFINITY && !isShannon(order);
}

/** Whether `order` stands for the Shannon entropy. */
export function isShannon(order: number): boolean {
  return Math.abs(order - 1) < SHANNON_WIDTH;
}

/**
 * An empty accumulator of `rows` rows.
 * @throws InputError for an order below 0 or NaN, too many orders, or a topK outside 0..64.
 */
export function createRowAccumulator(rows: number, options: RowAccumulatorOptions = {}): RowAccumulator {
  const full = (options.measures ?? 'full') === 'full';
  const topK = options.topK ?? (full ? 10 : 0);
  if (!Number.isInteger(topK) || topK < 0 || topK > 64) {
    throw new InputError(`the number of largest logits to keep is ${topK}; give 0 to 64`);
  }
  const renyiOrders = options.renyiOrders ?? (full ? [0.5, 2, Number.POSITIVE_INFINITY] : []);
  for (const order of renyiOrders) {
    if (!(order >= 0)) throw new InputError(`the order ${order} of an entropy is not a number >= 0`);
  }
  if (!full && renyiOrders.length > 0) {
    throw new InputError('orders of entropies need the measures "full"');
  }
  const powerOrders = Float64Array.from(new Set(renyiOrders.filter(hasOwnSum)));
  if (powerOrders.length > MOST_POWER_ORDERS) {
    throw new InputError(`${powerOrders.length} orders of entropies are too many; give at most ${MOST_POWER_ORDERS}`);
  }
  const fields = new Float64Array((FIELD.powers + powerOrders.length) * rows);
  fields.fill(Number.NEGATIVE_INFINITY, FIELD.max * rows, (FIELD.max + 1) * rows);
  fields.fill(Number.POSITIVE_INFINITY, FIELD.supportLeast * rows, (FIELD.supportLeast + 1) * rows);
  fields.fill(Number.NaN, FIELD.targetLogit * rows, (FIELD.targetLogit + 1) * rows);
  return {
    rows,
    name: options.name ?? 'logits',
    full,
    topK,
    renyiOrders: [...renyiOrders],
    powerOrders,
    fields,
    topValues: new Float64Array(rows * topK).fill(Number.NEGATIVE_INFINITY),
    topColumns: new Int32Array(rows * topK).fill(-1),
  };
}

/** The `rows` values of one field. */
export function fieldOf(accumulator: RowAccumulator, field: number): Float64Array {
  return accumulator.fields.subarray(field * accumulator.rows, (field + 1) * accumulator.rows);
}

/** Sums of one row relative to its largest logit `max`; `powers` in the order of powerOrders. */
export interface RowSums {
  max: number;
  z: number;
  a: number;
  q: number;
  half: number;
  square: number;
  finiteSum: number;
  finiteCount: number;
  support: number;
  supportLeast: number;
  readonly powers: Float64Array;
}

/** e^(order (from - to)), also where both are infinite. */
function rescale(from: number, to: number, order: number): number {
  return from === to ? 1 : Math.exp(order * (from - to));
}

/** Folds the sums of further columns into row `row`: the larger maximum becomes the reference of both. */
export function mergeSums(into: RowAccumulator, row: number, sums: RowSums): void {
  const f = into.fields;
  const rows = into.rows;
  const { max, z, a, q, half, square } = FIELD;
  f[FIELD.finiteSum * rows + row] += sums.finiteSum;
  f[FIELD.finiteCount * rows + row] += sums.finiteCount;
  if (sums.max === Number.NEGATIVE_INFINITY) return;
  const oldMax = f[max * rows + row];
  const newMax = Math.max(oldMax, sums.max);
  const zAt = z * rows + row;
  const aAt = a * rows + row;
  const qAt = q * rows + row;
  const halfAt = half * rows + row;
  const squareAt = square * rows + row;
  if (f[zAt] > 0) {
    const s = oldMax - newMax;
    const scale = rescale(oldMax, newMax, 1);
    // A scale of 0 stands for a difference that may be infinite: 0 times infinity is none of a sum's business.
    f[qAt] = scale === 0 ? 0 : scale * (f[qAt] + s * (2 * f[aAt] + s * f[zAt]));
    f[aAt] = scale === 0 ? 0 : scale * (f[aAt] + s * f[zAt]);
    f[zAt] *= scale;
    f[halfAt] *= rescale(oldMax, newMax, 0.5);
    f[squareAt] *= rescale(oldMax, newMax, 2);
    for (let k = 0; k < into.powerOrders.length; k++) {
      f[(FIELD.powers + k) * rows + row] *= rescale(oldMax, newMax, into.powerOrders[k]);
    }
  }
  const s = sums.max - newMax;
  const scale = rescale(sums.max, newMax, 1);
  if (scale > 0) {
    f[qAt] += scale * (sums.q + s * (2 * sums.a + s * sums.z));
    f[aAt] += scale * (sums.a + s * sums.z);
    f[zAt] += scale * sums.z;
  }
  f[halfAt] += rescale(sums.max, newMax, 0.5) * sums.half;
  f[squareAt] += rescale(sums.max, newMax, 2) * sums.square;
  for (let k = 0; k < into.powerOrders.length; k++) {
    f[(FIELD.powers + k) * rows + row] += rescale(sums.max, newMax, into.powerOrders[k]) * sums.powers[k];
  }
  const supportAt = FIELD.support * rows + row;
  const leastAt = FIELD.supportLeast * rows + row;
  // What lies so far below the new maximum that all of it has lost its probability counts no more.
  if (!(oldMax - newMax > SUPPORT_DEPTH)) {
    f[supportAt] = 0;
    f[leastAt] = Number.POSITIVE_INFINITY;
  }
  if (sums.max - newMax > SUPPORT_DEPTH) {
    f[supportAt] += sums.support;
    f[leastAt] = Math.min(f[leastAt], sums.supportLeast);
  }
  f[max * rows + row] = newMax;
}

/** Puts a finite logit into the row's largest, if it belongs there. */
export function insertTop(into: RowAccumulator, row: number, value: number, column: number): void {
  const first = row * into.topK;
  const last = first + into.topK - 1;
  const { topValues, topColumns } = into;
  if (last < first) return;
  if (topColumns[last] >= 0 && (value < topValues[last] || (value === topValues[last] && column > topColumns[last]))) {
    return;
  }
  let at = last;
  for (; at > first; at--) {
    const before = topColumns[at - 1];
    if (before >= 0 && (topValues[at - 1] > value || (topValues[at - 1] === value && before < column))) break;
    topValues[at] = topValues[at - 1];
    topColumns[at] = before;
  }
  topValues[at] = value;
  topColumns[at] = column;
}
