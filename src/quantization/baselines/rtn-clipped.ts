import type { Baseline } from './baseline.js';
import { forEachGroup, groupLength, groupsOf, largestMagnitude, settingsGrid, storeScales } from './group-scales.js';
import { symmetricBits, symmetricQuantizer } from './symmetric-codes.js';

/** Fractions of the absmax scale that are tried, from `lowest` to 1. */
const CANDIDATES = 32;
const REFITS = 2;

/**
 * The scale with the smallest squared error of a group: fractions of max|w| / (2^(bits-1) - 1) propose codes, and for
 * each of them the scale is that of least squares.
 * @param lowest smallest fraction
 */
export function clippedScale(weights: Float32Array, from: number, to: number, bits: number, lowest = 0.25): number {
  const low = -(2 ** (bits - 1));
  const high = -low - 1;
  const full = largestMagnitude(weights, from, to) / high;
  if (full === 0) return 0;
  let best = full;
  let most = 0;
  const propose = (scale: number): void => {
    const inverse = 1 / scale;
    let products = 0;
    let squares = 0;
    for (let i = from; i < to; i++) {
      const nearest = Math.floor(weights[i] * inverse + 0.5);
      const code = nearest < low ? low : Math.min(nearest, high);
      products += code * weights[i];
      squares += code * code;
    }
    // The error of the least-squares scale is that of zeros less this gain.
    if (products * products > most * squares) {
      most = (products * products) / squares;
      best = products / squares;
    }
  };
  for (let c = 0; c < CANDIDATES; c++) propose(full * (1 - ((1 - lowest) * c) / (CANDIDATES - 1)));
  for (let pass = 0; pass < REFITS; pass++) propose(best);
  return best;
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
