import type { Baseline } from './baseline.js';
import { forEachGroup, groupLength, groupsOf, largestMagnitude, settingsGrid, storeScales } from './group-scales.js';
import { symmetricBits, symmetricQuantizer } from './symmetric-codes.js';

/** Fractions of the absmax scale that are tried, from `lowest` to 1. */
const CANDIDATES = 32;

/**
 * The scale with the smallest squared error of a group, among fractions of max|w| / (2^(bits-1) - 1), refined by
 * least squares on the codes of the best.
 * @param lowest smallest fraction
 */
export function clippedScale(weights: Float32Array, from: number, to: number, bits: number, lowest = 0.25): number {
  const low = -(2 ** (bits - 1));
  const high = -low - 1;
  const full = largestMagnitude(weights, from, to) / high;
  if (full === 0) return 0;
  let best = full;
  let least = Number.POSITIVE_INFINITY;
  const squaredError = (scale: number): number => {
    let error = 0;
    for (let i = from; i < to; i++) {
      const d = weights[i] - Math.min(high, Math.max(low, Math.round(weights[i] / scale))) * scale;
      error += d * d;
    }
    return error;
  };
  for (let c = 0; c < CANDIDATES; c++) {
    const scale = full * (1 - ((1 - lowest) * c) / (CANDIDATES - 1));
    const error = squaredError(scale);
    if (error < least) {
      least = error;
      best = scale;
    }
  }
  let products = 0;
  let squares = 0;
  for (let i = from; i < to; i++) {
    const code = Math.min(high, Math.max(low, Math.round(weights[i] / best)));
    products += code * weights[i];
    squares += code * code;
  }
  const refined = squares > 0 ? products / squares : best;
  return squaredError(refined) < least ? refined : best;
}

/** Round to nearest with the scale of smallest squared error in each group, stored as f16. */
export const RTN_CLIPPED: Baseline = {
  name: 'rtn-clipped',
  title: 'RTN, clipped',
  settings: settingsGrid([2, 3, 4, 5, 6, 8], [32, 64, 128]),
  storedBits: ({ bits, group }, rows, columns) => symmetricBits(bits, groupLength(group, columns), rows, columns),
  groupColumns: ({ group }, columns) => (group > 0 && group < columns ? group : undefined),
  fit({ weights, rows, columns }, { bits, group }) {
    const length = groupLength(group, columns);
    const scales = new Float64Array(rows * groupsOf(columns, length));
    forEachGroup(rows, columns, length, (index, from, to) => {
      scales[index] = clippedScale(weights, from, to, bits);
    });
    return symmetricQuantizer(bits, length, rows, columns, storeScales(scales));
  },
};
