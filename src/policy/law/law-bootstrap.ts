import { quantileOfSorted } from '../../linalg/quantile-sketch.js';
import { straightLine } from '../../linalg/straight-line.js';
import { createRandom, type Random } from '../../random.js';
import { type LawPoints, lawOfLine, spreads } from './law-fit.js';

/** A percentile interval and the standard deviation of the draws. */
export interface LawInterval {
  readonly low: number;
  readonly high: number;
  readonly standardError: number;
}

/** Intervals of a law from resampled points. */
export interface LawIntervals {
  readonly a: LawInterval;
  readonly b: LawInterval;
  readonly ceiling: LawInterval;
  /** Neighbouring points that are drawn together; 1: points are drawn alone. */
  readonly block: number;
  readonly draws: number;
  /** Draws that held one entropy only and were drawn again. */
  readonly redrawn: number;
}

export interface LawBootstrapOptions {
  readonly seed: number;
  readonly draws: number;
  /** Coverage of the intervals. */
  readonly level: number;
  /** Length of the blocks of the moving-block bootstrap (Künsch 1989), at most the number of points. */
  readonly block: number;
}

/** Times a draw of one entropy is drawn again before the data are given up. */
const MOST_TRIES = 1000;

/** n^(1/3), rounded: the order of length that balances bias and variance of a block bootstrap of a mean (Künsch 1989). */
export const usualBlock = (points: number): number => Math.max(1, Math.round(Math.cbrt(points)));

/** Percentile interval of draws, NaN where there are none. */
export function percentileInterval(values: Float64Array, level: number): LawInterval {
  const sorted = values.slice().sort();
  const tail = 0.5 * (1 - level);
  const mean = sorted.reduce((sum, value) => sum + value, 0) / sorted.length;
  const squares = sorted.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return {
    low: quantileOfSorted(sorted, tail),
    high: quantileOfSorted(sorted, 1 - tail),
    standardError: Math.sqrt(squares / (sorted.length - 1)),
  };
}

/** Rows of one resample: blocks of neighbours from anywhere, the last one cut. */
function drawRows(random: Random, rows: Int32Array, block: number): void {
  const n = rows.length;
  for (let at = 0; at < n; at += block) {
    const start = random.integer(n - block + 1);
    for (let k = 0; k < block && at + k < n; k++) rows[at + k] = start + k;
  }
}

/**
 * Bootstrap of the points of the first `count` (spec 1.6): pairs (H, R) are drawn with replacement, alone or in blocks of
 * neighbours, and the law is fitted to each draw. Undefined where draws keep holding one entropy only.
 */
export function bootstrapLaw(
  { entropy, performance }: LawPoints,
  { seed, draws, level, block }: LawBootstrapOptions,
  count = entropy.length,
): LawIntervals | undefined {
  const x = spreads(entropy.subarray(0, count));
  const length = Math.min(block, count);
  const root = createRandom(seed).fork(length);
  const rows = new Int32Array(count);
  const [a, b, ceiling] = [new Float64Array(draws), new Float64Array(draws), new Float64Array(draws)];
  let redrawn = 0;
  for (let draw = 0; draw < draws; draw++) {
    const random = root.fork(draw);
    for (let tries = 0; ; tries++) {
      drawRows(random, rows, length);
      const line = straightLine(x, performance, rows);
      if (line !== undefined) {
        const law = lawOfLine(line);
        a[draw] = law.a;
        b[draw] = law.b;
        ceiling[draw] = law.ceiling;
        break;
      }
      redrawn++;
      if (tries === MOST_TRIES) return undefined;
    }
  }
  return {
    a: percentileInterval(a, level),
    b: percentileInterval(b, level),
    ceiling: percentileInterval(ceiling, level),
    block: length,
    draws,
    redrawn,
  };
}
