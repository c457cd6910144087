import { InputError } from '../../errors.js';

/** Levels nearer than this are one level: 0.1 + 0.2 and 0.3. */
const SAME_LEVEL = 1e-9;

export const sameLevel = (a: number, b: number): boolean => Math.abs(a - b) < SAME_LEVEL;

/** Levels in ascending order, each once, and where every given one went. */
export interface SortedLevels {
  readonly levels: Float64Array;
  /** For each given level its place among the sorted ones. */
  readonly places: Int32Array;
  readonly wasSorted: boolean;
  /** Given levels that another one repeats. */
  readonly duplicates: number;
}

/**
 * Quantile levels, sorted, duplicates joined.
 * @throws InputError for a level that is not strictly between 0 and 1
 */
export function sortLevels(given: ArrayLike<number>, where: string): SortedLevels {
  const order = Array.from(given, (_, i) => i).sort((a, b) => given[a] - given[b]);
  const levels: number[] = [];
  const places = new Int32Array(given.length);
  for (const i of order) {
    const level = given[i];
    if (!(level > 0 && level < 1)) {
      throw new InputError(`${where}: quantile level ${level}; levels must lie strictly between 0 and 1`);
    }
    if (levels.length === 0 || !sameLevel(level, levels[levels.length - 1])) levels.push(level);
    places[i] = levels.length - 1;
  }
  return {
    levels: Float64Array.from(levels),
    places,
    wasSorted: places.every((place, i) => i === 0 || places[i - 1] <= place),
    duplicates: given.length - levels.length,
  };
}

/** A central interval between the levels `lower` and `upper` (places), which together make 1. */
export interface CentralInterval {
  readonly lower: number;
  readonly upper: number;
  /** 1 - (tau_upper - tau_lower): twice the lower level. */
  readonly miscoverage: number;
}

/** The central intervals among ascending levels, widest first, and the place of the median (-1 without one). */
export function centralIntervals(levels: ArrayLike<number>): {
  readonly intervals: readonly CentralInterval[];
  readonly median: number;
  /** Whether every level has its mirror image and 0.5 is there: what the weighted interval score needs. */
  readonly symmetric: boolean;
} {
  const intervals: CentralInterval[] = [];
  let median = -1;
  for (let lower = 0, upper = levels.length - 1; lower <= upper; ) {
    const sum = levels[lower] + levels[upper];
    if (sameLevel(sum, 1)) {
      if (lower === upper) median = lower;
      else intervals.push({ lower, upper, miscoverage: 2 * levels[lower] });
      lower++;
      upper--;
    } else if (sum < 1) lower++;
    else upper--;
  }
  return { intervals, median, symmetric: median >= 0 && 2 * intervals.length + 1 === levels.length };
}
