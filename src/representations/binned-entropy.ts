import { InputError } from '../errors.js';
import { entropyBitsOfWeights } from './spectral-entropy.js';

/** What happens to a column whose values are all equal, which has no min-max scale. */
export type ConstantColumns = 'error' | 'drop';

/** Classic entropy by binning. */
export interface BinnedEntropy {
  readonly bits: number;
  /** Rows whose tuple of bins no other row has, over all tuples: near 1 means that the entropy is only log2 n. */
  readonly distinctRows: number;
  readonly droppedColumns: number;
}

/** Upper limit that keeps a bin in one UTF-16 unit of a row's key. */
const MOST_BINS = 65_535;

/** Smallest and largest value of every column of `x [n, d]`. */
export function columnRanges(x: Float64Array, n: number, d: number): { low: Float64Array; high: Float64Array } {
  const low = new Float64Array(d).fill(Number.POSITIVE_INFINITY);
  const high = new Float64Array(d).fill(Number.NEGATIVE_INFINITY);
  for (let r = 0; r < n; r++) {
    for (let j = 0; j < d; j++) {
      const value = x[r * d + j];
      if (value < low[j]) low[j] = value;
      if (value > high[j]) high[j] = value;
    }
  }
  return { low, high };
}

/** Columns whose values are all equal. */
export function constantColumns(x: Float64Array, n: number, d: number): number[] {
  const { low, high } = columnRanges(x, n, d);
  return Array.from({ length: d }, (_, j) => j).filter((j) => n > 0 && low[j] === high[j]);
}

/**
 * Bin of every value after min-max scaling to [0, 1]: b bins of equal width, open on the right, the maximum in the last.
 * Bins are counted from 1, as the number of left edges `k (1/b)` that the value has reached.
 * @throws InputError when all values are equal
 */
export function scalarBins(values: ArrayLike<number>, bins: number, name: string): Int32Array {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < values.length; i++) {
    low = Math.min(low, values[i]);
    high = Math.max(high, values[i]);
  }
  if (!(high > low))
    throw new InputError(`${name}: all ${values.length} values are ${low}; bins need values that differ`);
  return Int32Array.from(values, (value) => binOf((value - low) / (high - low), bins));
}

/** Number of the edges 0, 1/b, ..., (b-1)/b that do not exceed a value of [0, 1]. */
function binOf(scaled: number, bins: number): number {
  const width = 1 / bins;
  // The quotient may be off by one at an edge; the comparison with the edge as it is stored decides.
  let bin = Math.min(bins, Math.floor(scaled * bins) + 1);
  while (bin < bins && bin * width <= scaled) bin++;
  while (bin > 1 && (bin - 1) * width > scaled) bin--;
  return bin;
}

/**
 * Entropy, bits, of the rows of `x [n, d]` after every column is min-max scaled and cut into bins: rows with the same
 * tuple of bins are one symbol. In high dimension every row is a symbol of its own and the entropy is log2 n.
 * @param columnName names column j for errors
 * @throws InputError for a constant column under `error`, or when none is left under `drop`
 */
export function binnedEntropy(
  x: Float64Array,
  n: number,
  d: number,
  bins: number,
  onConstant: ConstantColumns,
  columnName: (column: number) => string = (column) => `column ${column}`,
): BinnedEntropy {
  if (!Number.isInteger(bins) || bins < 2 || bins > MOST_BINS) {
    throw new InputError(`${bins} bins: give a whole number from 2 to ${MOST_BINS}`);
  }
  if (n <= 1) return { bits: 0, distinctRows: n, droppedColumns: 0 };
  const { low, high } = columnRanges(x, n, d);
  const kept: number[] = [];
  for (let j = 0; j < d; j++) {
    if (high[j] > low[j]) kept.push(j);
    else if (onConstant === 'error') {
      const constant = constantColumns(x, n, d).length;
      throw new InputError(
        `${columnName(j)} is constant (${low[j]}), ${constant} of ${d} columns are; binning is undefined for them: ` +
          'drop them with --constant-columns drop',
      );
    }
  }
  if (kept.length === 0) throw new InputError(`all ${d} columns are constant: there is nothing to bin`);
  const counts = new Map<string, number>();
  const key = new Uint16Array(kept.length);
  for (let r = 0; r < n; r++) {
    kept.forEach((j, i) => {
      key[i] = binOf((x[r * d + j] - low[j]) / (high[j] - low[j]), bins);
    });
    const text = keyText(key);
    counts.set(text, (counts.get(text) ?? 0) + 1);
  }
  return {
    bits: entropyBitsOfWeights(counts.values()),
    distinctRows: counts.size,
    droppedColumns: d - kept.length,
  };
}

/** Most arguments that are given to one call. */
const CHUNK = 4096;

function keyText(key: Uint16Array): string {
  let text = '';
  for (let i = 0; i < key.length; i += CHUNK) text += String.fromCharCode(...key.subarray(i, i + CHUNK));
  return text;
}
