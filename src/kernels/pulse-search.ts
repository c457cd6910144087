import { kernelThreads, nativeKernels } from './native.js';
import { type MetricMode, searchInMetricReference } from './pulse-metric-reference.js';
import { type SearchMode, searchPulsesReference } from './pulse-search-reference.js';
import { MOST_PULSES } from './pyramid.js';

export type { MetricMode, SearchMode };

/** In the order of `SearchMode` of native/src/pulse_search.hpp. */
export const SEARCH_MODES: readonly SearchMode[] = ['greedy', 'fixed-point', 'best', 'exact'];

const NOT_FINITE = 'weights to be searched must be finite';

export interface PulseSearchOptions {
  /** Weights of a group and pulses of a point. */
  readonly D: number;
  readonly K: number;
  /**
   * `exact`: the point of greatest cosine. `greedy`: pulse by pulse from floor(K |x| / ||x||_1), as codecs do.
   * `fixed-point`: L2-nearest points to a scale that settles. `best`: the better of greedy and fixed point, both polished.
   */
  readonly mode: SearchMode;
  /** Most pulses of a coordinate; `negativeCap` where the weight is negative, the same by default. */
  readonly cap?: number;
  readonly negativeCap?: number;
  /** Importance of every column, [columns], at least 0; finite. Weights the search, not the pulses' count. */
  readonly importance?: Float32Array | Float64Array;
  /** Polishes `greedy` and `fixed-point` by moving single pulses while the cosine grows. */
  readonly exchange?: boolean;
  readonly threads?: number;
}

export interface MetricSearchOptions {
  readonly D: number;
  readonly K: number;
  /** `greedy`: pulse by pulse; `best` (default): that and the exact point of the diagonal, polished, the better one. */
  readonly mode?: MetricMode;
  readonly cap?: number;
  readonly negativeCap?: number;
  readonly threads?: number;
}

interface Caps {
  readonly cap?: number;
  readonly negativeCap?: number;
}

/** @throws RangeError when D, K or the caps do not make a pyramid that can be searched */
export function checkPyramid(D: number, K: number, { cap, negativeCap }: Caps): void {
  if (!(Number.isInteger(D) && D >= 1)) throw new RangeError(`a group of ${D} weights`);
  if (!(Number.isInteger(K) && K >= 1 && K <= MOST_PULSES)) {
    throw new RangeError(`${K} pulses; there may be 1 to ${MOST_PULSES}`);
  }
  if (cap === undefined && negativeCap === undefined) return;
  if (cap === undefined) throw new RangeError('a cap of negative pulses needs a cap of the others');
  const least = Math.min(cap, negativeCap ?? cap);
  if (!(Number.isInteger(cap) && Number.isInteger(negativeCap ?? cap) && least >= 1)) {
    throw new RangeError(`caps of ${cap} and ${negativeCap ?? cap} pulses`);
  }
  if (least * D < K) throw new RangeError(`${K} pulses do not fit ${D} coordinates of at most ${least}`);
}

/**
 * Finds for every group of D columns of x [rows, columns] the point of P(D, K) with the largest cosine to it, as far as
 * the mode looks, and writes its pulses [rows, groups, D], groups = ceil(columns / D); the last group of a row is
 * padded with zeros. A group of zeros gets all its pulses at its first coordinate (at the first ones, under a cap).
 *
 * The arithmetic has the precision of x: f64 is the reference of the method, f32 gives the same bytes with and without
 * native kernels, at any vector width and number of threads. The two differ where candidates are equal to some 1e-6.
 * @throws RangeError when sizes or options do not fit, or a weight is NaN or infinite
 */
export function searchPulses(
  x: Float32Array | Float64Array,
  rows: number,
  columns: number,
  options: PulseSearchOptions,
  pulses: Int16Array,
): void {
  const { D, K, importance } = options;
  checkPyramid(D, K, options);
  if (x.length !== rows * columns) throw new RangeError(`${x.length} weights are not ${rows} rows of ${columns}`);
  if (pulses.length !== rows * Math.ceil(columns / D) * D) throw new RangeError(`${pulses.length} pulses do not fit`);
  if (importance !== undefined && importance.length !== columns) {
    throw new RangeError(`${importance.length} importances for ${columns} columns`);
  }
  const native = nativeKernels();
  if (native === undefined || !(x instanceof Float32Array)) {
    if (!x.every(Number.isFinite)) throw new RangeError(NOT_FINITE);
    searchPulsesReference(x, rows, columns, options, pulses);
    return;
  }
  const { mode, cap = 0 } = options;
  const single = importance === undefined ? null : Float32Array.from(importance);
  const finite = native.searchPulses(
    x,
    rows,
    columns,
    D,
    K,
    SEARCH_MODES.indexOf(mode),
    cap,
    options.negativeCap ?? cap,
    options.exchange ? 1 : 0,
    single,
    pulses,
    kernelThreads(options.threads),
  );
  if (!finite) throw new RangeError(NOT_FINITE);
}

/**
 * Finds for every row x [D] of [rows, D] signed pulses y [rows, D], sum |y| = K, with a large
 * <y, x>_M / ||y||_M in the metric <a, b>_M = a M b^T; M [D, D] symmetric, positive definite. f64 throughout.
 * @throws RangeError when sizes or options do not fit
 */
export function searchInMetric(
  x: Float32Array | Float64Array,
  rows: number,
  metric: Float64Array,
  options: MetricSearchOptions,
  pulses: Int16Array,
): void {
  const { D, K } = options;
  checkPyramid(D, K, options);
  if (x.length !== rows * D || pulses.length !== x.length || metric.length !== D * D) {
    throw new RangeError(
      `${x.length} weights, ${pulses.length} pulses, a metric of ${metric.length} for ${rows} x ${D}`,
    );
  }
  searchInMetricReference(x, rows, metric, { ...options, mode: options.mode ?? 'best' }, pulses);
}
