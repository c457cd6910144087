import { normalCdf, normalQuantile } from '../../linalg/special-functions.js';
import { type Baseline, paddedBits } from './baseline.js';
import { storeScales } from './group-scales.js';
import { midpoints, nearestLevel } from './level-search.js';

const density = (x: number): number => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
const CONVERGED = 1e-11;
const MOST_SWEEPS = 100_000;

/**
 * The `count` levels of smallest mean squared error for N(0, 1), ascending (Lloyd 1957, Max 1960): each level is the
 * mean of its cell, cells meet halfway between levels. Starts at the levels of high resolution, quantiles of N(0, 3).
 */
export function lloydMaxLevels(count: number): Float64Array {
  const levels = Float64Array.from({ length: count }, (_, i) => Math.sqrt(3) * normalQuantile((i + 0.5) / count));
  for (let sweep = 0; sweep < MOST_SWEEPS; sweep++) {
    let moved = 0;
    let lower = Number.NEGATIVE_INFINITY;
    for (let i = 0; i < count; i++) {
      const upper = i + 1 < count ? (levels[i] + levels[i + 1]) / 2 : Number.POSITIVE_INFINITY;
      const first = (Number.isFinite(lower) ? density(lower) : 0) - (Number.isFinite(upper) ? density(upper) : 0);
      // By symmetry the smaller tail is used, where differences of the distribution function keep their digits.
      const mass = lower > 0 ? normalCdf(-lower) - normalCdf(-upper) : normalCdf(upper) - normalCdf(lower);
      const level = first / mass;
      moved = Math.max(moved, Math.abs(level - levels[i]));
      levels[i] = level;
      lower = upper;
    }
    if (moved < CONVERGED) break;
  }
  // Exact symmetry, which rounding broke.
  return levels.map((level, i) => (level - levels[count - 1 - i]) / 2);
}

const cache = new Map<number, Float64Array>();

function levelsOf(bits: number): Float64Array {
  let levels = cache.get(bits);
  if (!levels) {
    levels = lloydMaxLevels(2 ** bits);
    cache.set(bits, levels);
  }
  return levels;
}

const REFITS = 2;

/** Scale of a row: its root mean square, then least squares on the codes it gives. */
function rowScale(row: Float32Array, levels: Float64Array, between: Float64Array): number {
  let squares = 0;
  for (const value of row) squares += value * value;
  let scale = Math.sqrt(squares / row.length);
  for (let pass = 0; pass < REFITS && scale > 0; pass++) {
    let products = 0;
    let norms = 0;
    for (const value of row) {
      const level = levels[nearestLevel(value / scale, between)];
      products += level * value;
      norms += level * level;
    }
    scale = products / norms;
  }
  return scale;
}

/** The best scalar quantiser of Gaussian weights: fixed-length codes, one f16 scale a row. */
export const LLOYD_MAX: Baseline = {
  name: 'lloyd-max',
  title: 'Lloyd-Max scalar',
  settings: [2, 3, 4, 5, 6].map((bits) => ({ bits })),
  storedBits: ({ bits }, rows, columns) => rows * (paddedBits(bits, columns) + 16),
  fit({ weights, rows, columns }, { bits }) {
    const levels = levelsOf(bits);
    const between = midpoints(levels);
    const fitted = new Float64Array(rows);
    for (let row = 0; row < rows; row++) {
      fitted[row] = rowScale(weights.subarray(row * columns, (row + 1) * columns), levels, between);
    }
    const scales = storeScales(fitted);
    return {
      blockColumns: 1,
      storedBits: rows * (paddedBits(bits, columns) + scales.bits),
      quantize(target, count, _column0, width, out) {
        for (let row = 0; row < count; row++) {
          const scale = scales.values[row];
          for (let at = row * width; at < (row + 1) * width; at++) {
            out[at] = scale === 0 ? 0 : levels[nearestLevel(target[at] / scale, between)] * scale;
          }
        }
      },
    };
  },
};
