import { normalLloydMax } from '../../linalg/lloyd-max.js';
import { type Baseline, paddedBits } from './baseline.js';
import { storeScales } from './group-scales.js';
import { midpoints, nearestLevel } from './level-search.js';

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
    const { levels } = normalLloydMax(2 ** bits);
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
