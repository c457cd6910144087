/**
 * Quantiles of a stream, mergeable. Up to `exactLimit` values are kept and quantiles are exact; beyond, values are counted
 * in logarithmic bins and a quantile is within `QUANTILE_RELATIVE_ERROR` of the value at its rank (DDSketch: Masson, Rim,
 * Lee 2019). The state is a function of the set of values alone, so parts merge to what one pass would have given.
 */
export interface QuantileSketch {
  readonly exactLimit: number;
  /** All finite values while there are few enough, else null. */
  exact: number[] | null;
  readonly positive: Map<number, number>;
  readonly negative: Map<number, number>;
  /** Values whose magnitude is below `SMALLEST_MAGNITUDE`. */
  zeros: number;
  finite: number;
  positiveInfinite: number;
  negativeInfinite: number;
  min: number;
  max: number;
}

/** Bound on the relative error of a quantile taken from bins. */
export const QUANTILE_RELATIVE_ERROR = 1e-3;
const SMALLEST_MAGNITUDE = 1e-12;
const BIN_RATIO = (1 + QUANTILE_RELATIVE_ERROR) / (1 - QUANTILE_RELATIVE_ERROR);
const LOG_BIN_RATIO = Math.log(BIN_RATIO);

export function createQuantileSketch(exactLimit = 20_000): QuantileSketch {
  return {
    exactLimit,
    exact: [],
    positive: new Map(),
    negative: new Map(),
    zeros: 0,
    finite: 0,
    positiveInfinite: 0,
    negativeInfinite: 0,
    min: Number.POSITIVE_INFINITY,
    max: Number.NEGATIVE_INFINITY,
  };
}

function countInBin(sketch: QuantileSketch, value: number, times: number): void {
  const magnitude = Math.abs(value);
  if (magnitude < SMALLEST_MAGNITUDE) {
    sketch.zeros += times;
    return;
  }
  const bins = value > 0 ? sketch.positive : sketch.negative;
  const index = Math.ceil(Math.log(magnitude) / LOG_BIN_RATIO);
  bins.set(index, (bins.get(index) ?? 0) + times);
}

function abandonExact(sketch: QuantileSketch): void {
  if (sketch.exact === null) return;
  for (const value of sketch.exact) countInBin(sketch, value, 1);
  sketch.exact = null;
}

/** Counts one value; infinite values are counted apart and take part in the ranks. NaN is refused. */
export function addToSketch(sketch: QuantileSketch, value: number): void {
  if (Number.isNaN(value)) throw new RangeError('a quantile sketch takes no NaN');
  if (value === Number.POSITIVE_INFINITY) {
    sketch.positiveInfinite++;
    return;
  }
  if (value === Number.NEGATIVE_INFINITY) {
    sketch.negativeInfinite++;
    return;
  }
  sketch.finite++;
  if (value < sketch.min) sketch.min = value;
  if (value > sketch.max) sketch.max = value;
  if (sketch.exact !== null && sketch.finite > sketch.exactLimit) abandonExact(sketch);
  if (sketch.exact === null) countInBin(sketch, value, 1);
  else sketch.exact.push(value);
}

/** Adds `other` into `sketch`. */
export function mergeSketch(sketch: QuantileSketch, other: QuantileSketch): void {
  const finite = sketch.finite + other.finite;
  if (sketch.exact !== null && (other.exact === null || finite > sketch.exactLimit)) abandonExact(sketch);
  if (sketch.exact !== null && other.exact !== null) {
    for (const value of other.exact) sketch.exact.push(value);
  } else if (other.exact !== null) {
    for (const value of other.exact) countInBin(sketch, value, 1);
  } else {
    for (const [index, count] of other.positive) sketch.positive.set(index, (sketch.positive.get(index) ?? 0) + count);
    for (const [index, count] of other.negative) sketch.negative.set(index, (sketch.negative.get(index) ?? 0) + count);
    sketch.zeros += other.zeros;
  }
  sketch.finite = finite;
  sketch.positiveInfinite += other.positiveInfinite;
  sketch.negativeInfinite += other.negativeInfinite;
  sketch.min = Math.min(sketch.min, other.min);
  sketch.max = Math.max(sketch.max, other.max);
}

/**
 * Quantile of sorted values by linear interpolation at `fraction * (n - 1)`, llama.cpp's and NumPy's default rule. NaN
 * when there are none.
 */
export function quantileOfSorted(sorted: ArrayLike<number>, fraction: number): number {
  const n = sorted.length;
  if (n === 0) return Number.NaN;
  const position = Math.min(Math.max(fraction, 0), 1) * (n - 1);
  const below = Math.floor(position);
  const weight = position - below;
  const low = sorted[below];
  if (weight === 0 || low === sorted[below + 1]) return low;
  return (1 - weight) * low + weight * sorted[below + 1];
}

function binnedValueAt(sketch: QuantileSketch, rank: number): number {
  const total = sketch.negativeInfinite + sketch.finite + sketch.positiveInfinite;
  if (rank < sketch.negativeInfinite) return Number.NEGATIVE_INFINITY;
  if (rank >= total - sketch.positiveInfinite) return Number.POSITIVE_INFINITY;
  const centre = 2 / (1 + BIN_RATIO);
  const clamp = (value: number): number => Math.min(Math.max(value, sketch.min), sketch.max);
  let seen = sketch.negativeInfinite;
  for (const index of [...sketch.negative.keys()].sort((a, b) => b - a)) {
    seen += sketch.negative.get(index) as number;
    if (rank < seen) return clamp(-centre * BIN_RATIO ** index);
  }
  seen += sketch.zeros;
  if (rank < seen) return clamp(0);
  for (const index of [...sketch.positive.keys()].sort((a, b) => a - b)) {
    seen += sketch.positive.get(index) as number;
    if (rank < seen) return clamp(centre * BIN_RATIO ** index);
  }
  return sketch.max;
}

/** The quantiles at `fractions`, infinite values included. NaN when nothing was counted. */
export function quantilesOf(sketch: QuantileSketch, fractions: readonly number[]): number[] {
  const total = sketch.negativeInfinite + sketch.finite + sketch.positiveInfinite;
  if (total === 0) return fractions.map(() => Number.NaN);
  if (sketch.exact !== null) {
    const sorted = new Float64Array(total);
    sorted.fill(Number.NEGATIVE_INFINITY, 0, sketch.negativeInfinite);
    sorted.set(Float64Array.from(sketch.exact).sort(), sketch.negativeInfinite);
    sorted.fill(Number.POSITIVE_INFINITY, sketch.negativeInfinite + sketch.finite);
    return fractions.map((fraction) => quantileOfSorted(sorted, fraction));
  }
  return fractions.map((fraction) => {
    const position = Math.min(Math.max(fraction, 0), 1) * (total - 1);
    const below = Math.floor(position);
    const weight = position - below;
    const low = binnedValueAt(sketch, below);
    if (weight === 0) return low;
    const high = binnedValueAt(sketch, below + 1);
    return low === high ? low : (1 - weight) * low + weight * high;
  });
}

/** Lossless plain form of a sketch, for partial reports. */
export interface QuantileSketchJson {
  exact_limit: number;
  exact: number[] | null;
  positive: [number, number][];
  negative: [number, number][];
  zeros: number;
  finite: number;
  positive_infinite: number;
  negative_infinite: number;
  min: number | null;
  max: number | null;
}

const sortedEntries = (bins: Map<number, number>): [number, number][] => [...bins].sort((a, b) => a[0] - b[0]);

export function sketchToJson(sketch: QuantileSketch): QuantileSketchJson {
  return {
    exact_limit: sketch.exactLimit,
    exact: sketch.exact === null ? null : [...sketch.exact],
    positive: sortedEntries(sketch.positive),
    negative: sortedEntries(sketch.negative),
    zeros: sketch.zeros,
    finite: sketch.finite,
    positive_infinite: sketch.positiveInfinite,
    negative_infinite: sketch.negativeInfinite,
    min: sketch.finite === 0 ? null : sketch.min,
    max: sketch.finite === 0 ? null : sketch.max,
  };
}

export function sketchFromJson(json: QuantileSketchJson): QuantileSketch {
  return {
    exactLimit: json.exact_limit,
    exact: json.exact === null ? null : [...json.exact],
    positive: new Map(json.positive),
    negative: new Map(json.negative),
    zeros: json.zeros,
    finite: json.finite,
    positiveInfinite: json.positive_infinite,
    negativeInfinite: json.negative_infinite,
    min: json.min ?? Number.POSITIVE_INFINITY,
    max: json.max ?? Number.NEGATIVE_INFINITY,
  };
}
