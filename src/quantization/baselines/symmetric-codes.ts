import { type FittedQuantizer, paddedBits } from './baseline.js';
import { groupsOf, type StoredScales } from './group-scales.js';

/** Exact bits of rows with `bits` a weight and one scale a group. */
export function symmetricBits(bits: number, group: number, rows: number, columns: number, scaleBits = 16): number {
  return rows * (paddedBits(bits, columns) + groupsOf(columns, group) * scaleBits);
}

/**
 * Codes -2^(bits-1) .. 2^(bits-1)-1 times the scale of the group.
 * @param scales one a group, [rows, groups]
 */
export function symmetricQuantizer(
  bits: number,
  group: number,
  rows: number,
  columns: number,
  scales: StoredScales,
): FittedQuantizer {
  const low = -(2 ** (bits - 1));
  const high = -low - 1;
  const groups = groupsOf(columns, group);
  return {
    blockColumns: 1,
    storedBits: symmetricBits(bits, group, rows, columns, scales.bits),
    quantize(target, count, column0, width, out) {
      for (let row = 0; row < count; row++) {
        for (let j = 0; j < width; j++) {
          const scale = scales.values[row * groups + Math.floor((column0 + j) / group)];
          const at = row * width + j;
          const code = scale === 0 ? 0 : Math.round(target[at] / scale);
          out[at] = Math.min(high, Math.max(low, code)) * scale;
        }
      }
    },
  };
}
