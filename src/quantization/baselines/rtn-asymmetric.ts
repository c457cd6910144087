import { type Baseline, type FittedQuantizer, paddedBits } from './baseline.js';
import { forEachGroup, groupLength, groupsOf, type StoredScales, settingsGrid, storeScales } from './group-scales.js';

function asymmetricBits(bits: number, group: number, rows: number, columns: number, scaleBits = 16): number {
  const groups = groupsOf(columns, group);
  return rows * (paddedBits(bits, columns) + groups * scaleBits + paddedBits(bits, groups));
}

/** Codes 0 .. 2^bits - 1 less the zero point of the group, times its scale. */
function asymmetricQuantizer(
  { bits, length }: { readonly bits: number; readonly length: number },
  rows: number,
  columns: number,
  scales: StoredScales,
  zeros: Float64Array,
): FittedQuantizer {
  const high = 2 ** bits - 1;
  const groups = groupsOf(columns, length);
  return {
    blockColumns: 1,
    storedBits: asymmetricBits(bits, length, rows, columns, scales.bits),
    quantize(target, count, column0, width, out) {
      for (let row = 0; row < count; row++) {
        for (let j = 0; j < width; j++) {
          const group = row * groups + Math.floor((column0 + j) / length);
          const scale = scales.values[group];
          const zero = zeros[group];
          const at = row * width + j;
          const code = scale === 0 ? zero : Math.round(target[at] / scale) + zero;
          out[at] = (Math.min(high, Math.max(0, code)) - zero) * scale;
        }
      }
    },
  };
}

/** Round to nearest between the smallest and the largest weight of each group, zero included: f16 scale, integer zero. */
export const RTN_ASYMMETRIC: Baseline = {
  name: 'rtn-asymmetric',
  title: 'RTN, asymmetric',
  settings: settingsGrid([2, 3, 4, 5, 6, 8], [32, 64, 128]),
  storedBits: ({ bits, group }, rows, columns) => asymmetricBits(bits, groupLength(group, columns), rows, columns),
  groupColumns: ({ group }, columns) => (group > 0 && group < columns ? group : undefined),
  fit({ weights, rows, columns }, { bits, group }) {
    const length = groupLength(group, columns);
    const count = rows * groupsOf(columns, length);
    const scales = new Float64Array(count);
    const lowest = new Float64Array(count);
    forEachGroup(rows, columns, length, (index, from, to) => {
      let low = 0;
      let high = 0;
      for (let i = from; i < to; i++) {
        low = Math.min(low, weights[i]);
        high = Math.max(high, weights[i]);
      }
      scales[index] = (high - low) / (2 ** bits - 1);
      lowest[index] = low;
    });
    const stored = storeScales(scales);
    const zeros = lowest.map((low, i) => {
      const scale = stored.values[i];
      return scale === 0 ? 0 : Math.min(2 ** bits - 1, Math.max(0, Math.round(-low / scale)));
    });
    return asymmetricQuantizer({ bits, length }, rows, columns, stored, zeros);
  },
};
