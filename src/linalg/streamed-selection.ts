import { InputError } from '../errors.js';
import { countDigits, DIGIT_BINS, DIGITS, gatherPrefixes, selectRanks } from '../kernels/rank-selection.js';

/** Values that are produced again on every pass. */
export interface ValueStream {
  /** How many values count, over all blocks. */
  readonly count: number;
  /** All of them, where they are in memory already and hold neither NaN nor -0. */
  readonly held?: Float64Array;
  /**
   * Calls `take` with one block after the other: the same values in the same order every time. Where a mask is given, values
   * under a 0 are not looked at. Blocks may be reused for the next one.
   */
  each(take: (values: Float64Array, mask?: Uint8Array) => void): void;
}

export interface StreamedSelectionOptions {
  /** Values that may be held in memory. Default 2e7. */
  readonly exactLimit?: number;
  readonly threads?: number;
  /** What the values are, for errors. Default `values`. */
  readonly name?: string;
}

/** Whether all values were held, or counted in histograms and those of the bins that matter held. Both are exact. */
export type SelectionPath = 'memory' | 'histogram';

/** One order statistic. */
export interface OrderStatistic {
  readonly value: number;
  /** Values that are smaller, and those that are equal to it (itself included). */
  readonly below: number;
  readonly equal: number;
}

export interface SelectedRanks {
  /** In the order of the ranks that were asked for. */
  readonly statistics: readonly OrderStatistic[];
  readonly path: SelectionPath;
  /** How often the values were produced. */
  readonly passes: number;
}

const DEFAULT_EXACT_LIMIT = 2e7;

/** The ranks that lie in one bin of a histogram. */
interface Bin {
  /** Digits so far as one number. */
  readonly prefix: number;
  /** Values smaller than those of the bin, and values in it. */
  readonly below: number;
  readonly inside: number;
  readonly ranks: readonly number[];
}

function hostile(name: string): never {
  throw new InputError(`${name}: a value that counts is not a number`);
}

/** Splits a bin by the counts of its next digit; only bins that hold a rank are kept. */
function refine(bin: Bin, counts: Float64Array): Bin[] {
  const bins: Bin[] = [];
  let below = bin.below;
  let next = 0;
  for (let b = 0; b < DIGIT_BINS && next < bin.ranks.length; b++) {
    const inside = counts[b];
    const first = next;
    while (next < bin.ranks.length && bin.ranks[next] < below + inside) next++;
    if (next > first) {
      bins.push({ prefix: bin.prefix * DIGIT_BINS + b, below, inside, ranks: bin.ranks.slice(first, next) });
    }
    below += inside;
  }
  return bins;
}

function gather(stream: ValueStream, prefixes: Float64Array, digits: number, into: Float64Array, name: string): void {
  let at = 0;
  stream.each((values, mask) => {
    at = gatherPrefixes(values, mask, prefixes, digits, into, at);
    if (at < 0) hostile(name);
  });
  if (at !== into.length) throw new InputError(`${name}: ${at} values in this pass, ${into.length} were announced`);
}

/** The value whose key has these four digits. */
function valueOfKey(prefix: Bin['prefix'], last: number): number {
  // Three digits are exact in a number (48 bits); the fourth comes beside them.
  const high = Math.floor(prefix / DIGIT_BINS);
  const low = (((prefix % DIGIT_BINS) << 16) | last) >>> 0;
  const negative = high < 0x80000000;
  const one = new Float64Array(1);
  const halves = new Uint32Array(one.buffer);
  halves[1] = negative ? ~high : high ^ 0x80000000;
  halves[0] = negative ? ~low : low;
  return one[0];
}

/** Order statistics of the last digit: the bins are single values. */
function lastDigit(bins: readonly Bin[], counts: Float64Array, found: Map<number, OrderStatistic>): void {
  for (const [b, bin] of bins.entries()) {
    for (const leaf of refine({ ...bin, prefix: 0 }, counts.subarray(b * DIGIT_BINS, (b + 1) * DIGIT_BINS))) {
      const statistic = { value: valueOfKey(bin.prefix, leaf.prefix), below: leaf.below, equal: leaf.inside };
      for (const rank of leaf.ranks) found.set(rank, statistic);
    }
  }
}

function countPass(stream: ValueStream, bins: readonly Bin[], digit: number, name: string): Float64Array {
  const prefixes = Float64Array.from(bins, (bin) => bin.prefix);
  const counts = new Float64Array(bins.length * DIGIT_BINS);
  stream.each((values, mask) => {
    if (countDigits(values, mask, prefixes, digit, counts) >= 0) hostile(name);
  });
  return counts;
}

/** Selects in the values of some bins, which are held. */
function selectInside(
  bins: readonly Bin[],
  held: Float64Array,
  threads: number | undefined,
): Map<number, OrderStatistic> {
  const found = new Map<number, OrderStatistic>();
  // Bins stand in rising order, so a rank among the held values is its rank less what lies outside the bins before it.
  let before = 0;
  const ranks: number[] = [];
  const inside: number[] = [];
  const shifts: number[] = [];
  for (const bin of bins) {
    for (const rank of bin.ranks) {
      ranks.push(rank);
      inside.push(rank - bin.below + before);
      shifts.push(bin.below - before);
    }
    before += bin.inside;
  }
  const statistics = selectRanks(held, Float64Array.from(inside), threads);
  for (const [i, rank] of ranks.entries()) {
    const [value, below, equal] = statistics.subarray(3 * i, 3 * i + 3);
    found.set(rank, { value, below: below + shifts[i], equal });
  }
  return found;
}

interface Found {
  readonly statistics: ReadonlyMap<number, OrderStatistic>;
  readonly path: SelectionPath;
  readonly passes: number;
}

function selectSorted(stream: ValueStream, ranks: readonly number[], options: StreamedSelectionOptions): Found {
  const { exactLimit = DEFAULT_EXACT_LIMIT, threads, name = 'values' } = options;
  let bins: Bin[] = [{ prefix: 0, below: 0, inside: stream.count, ranks }];
  const path: SelectionPath = stream.count <= exactLimit ? 'memory' : 'histogram';
  if (path === 'memory' && stream.held) {
    return { statistics: selectInside(bins, stream.held, threads), path, passes: 1 };
  }
  for (let digits = 0; ; digits++) {
    const held = bins.reduce((sum, bin) => sum + bin.inside, 0);
    if (held <= exactLimit) {
      const values = new Float64Array(held);
      gather(
        stream,
        Float64Array.from(bins, (bin) => bin.prefix),
        digits,
        values,
        name,
      );
      return { statistics: selectInside(bins, values, threads), path, passes: digits + 1 };
    }
    const counts = countPass(stream, bins, digits, name);
    if (digits === DIGITS - 1) {
      const statistics = new Map<number, OrderStatistic>();
      lastDigit(bins, counts, statistics);
      return { statistics, path, passes: digits + 1 };
    }
    bins = bins.flatMap((bin, b) => refine(bin, counts.subarray(b * DIGIT_BINS, (b + 1) * DIGIT_BINS)));
  }
}

/**
 * Order statistics of a stream, exact, in bounded memory (spec 0.1 'Scale'): values are held where they are at most
 * `exactLimit`; otherwise passes count the digits of their keys until what lies in the bins of the wanted ranks fits, and select
 * there. At most four passes.
 * @param ranks positions from 0 in rising order of the values; any order, repeated or not.
 * @throws InputError for a NaN that counts or a stream that changes; RangeError for a rank that is not there.
 */
export function selectStreamedRanks(
  stream: ValueStream,
  ranks: readonly number[],
  options: StreamedSelectionOptions = {},
): SelectedRanks {
  for (const rank of ranks) {
    if (!(Number.isInteger(rank) && rank >= 0 && rank < stream.count)) {
      throw new RangeError(`rank ${rank} of ${stream.count} values`);
    }
  }
  if (ranks.length === 0) return { statistics: [], path: 'memory', passes: 0 };
  const sorted = [...new Set(ranks)].sort((a, b) => a - b);
  const found = selectSorted(stream, sorted, options);
  const statistics = ranks.map((rank) => {
    const statistic = found.statistics.get(rank);
    if (statistic === undefined) throw new InputError(`${options.name ?? 'values'}: the passes did not agree`);
    return statistic;
  });
  return { statistics, path: found.path, passes: found.passes };
}

/** The `k` largest of a stream: those above `threshold`, and the first `ties` of those equal to it. */
export interface LargestValues {
  readonly k: number;
  readonly threshold: number;
  /** Values strictly above the threshold. */
  readonly above: number;
  /** k - above: so many of the values equal to the threshold belong to the k largest, in the order of the stream. */
  readonly ties: number;
  readonly path: SelectionPath;
}

/** The largest `k` of a stream for each of several k, from the same passes. Every k is in [1, count]. */
export function selectLargest(
  stream: ValueStream,
  counts: readonly number[],
  options: StreamedSelectionOptions = {},
): LargestValues[] {
  const { statistics, path } = selectStreamedRanks(
    stream,
    counts.map((k) => stream.count - k),
    options,
  );
  return counts.map((k, i) => {
    const { value, below, equal } = statistics[i];
    const above = stream.count - below - equal;
    return { k, threshold: value, above, ties: k - above, path };
  });
}

/** max(1, floor(fraction * count)): how many a top fraction takes (spec 1.2). */
export function topCount(fraction: number, count: number): number {
  return Math.max(1, Math.floor(fraction * count));
}

export interface StreamedQuantiles {
  readonly values: Float64Array;
  readonly path: SelectionPath;
}

/** The ranks whose values a quantile lies between, and where between: position p (count - 1) of the sorted values. */
function quantilePlace(probability: number, count: number): { low: number; high: number; weight: number } {
  const position = probability * (count - 1);
  const low = Math.floor(position);
  return { low, high: Math.min(count - 1, low + 1), weight: position - low };
}

/** Quantiles of a stream with linear interpolation between order statistics (type 7, NumPy's default). */
export function streamedQuantiles(
  stream: ValueStream,
  probabilities: readonly number[],
  options: StreamedSelectionOptions = {},
): StreamedQuantiles {
  const places = probabilities.map((p) => quantilePlace(p, stream.count));
  const { statistics, path } = selectStreamedRanks(
    stream,
    places.flatMap(({ low, high }) => [low, high]),
    options,
  );
  const values = Float64Array.from(places, ({ weight }, i) => {
    const low = statistics[2 * i].value;
    const high = statistics[2 * i + 1].value;
    return weight === 0 ? low : low + (high - low) * weight;
  });
  return { values, path };
}
