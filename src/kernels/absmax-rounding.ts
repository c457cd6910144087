import { halfBits, halfValue } from './dtypes-reference.js';
import { kernelThreads, nativeKernels } from './native.js';

/** 4-bit codes of rows of weights. */
export interface RoundedRows {
  /** f16 patterns of the scales, [rows, groups]. */
  readonly scales: Uint16Array;
  /** Code + 8 in 1..15, two a byte, the lower nibble first, [rows, ceil(columns / 2)]. */
  readonly codes: Uint8Array;
}

/** Codes of one row. */
function roundRow(x: Float32Array, group: number, scales: Uint16Array, codes: Uint8Array): void {
  codes.fill(0);
  // Of an odd width the last half byte is the code of zero.
  if (x.length % 2 === 1) codes[codes.length - 1] = 0x80;
  for (let g = 0; g < scales.length; g++) {
    const own = x.subarray(g * group, (g + 1) * group);
    let most = 0;
    for (const value of own) most = Math.max(most, Math.abs(value));
    scales[g] = halfBits(Math.fround(most / 7));
    const scale = halfValue(scales[g]);
    for (let i = 0; i < own.length; i++) {
      const place = scale > 0 ? Math.fround(Math.fround(own[i] / scale) + 8.5) : 8;
      const at = g * group + i;
      codes[at >> 1] |= Math.trunc(Math.min(15, Math.max(1, place))) << (4 * (at & 1));
    }
  }
}

/**
 * Rounds x [rows, columns] to nearest on symmetric 4-bit grids, one f16 scale max |x| / 7 for every `group` columns: what
 * encoding costs where nothing is searched, the other side of the encoder's benchmark. Weights are finite.
 * @throws RangeError when sizes do not fit
 */
export function roundToAbsmax(
  x: Float32Array,
  rows: number,
  columns: number,
  group: number,
  threads?: number,
): RoundedRows {
  if (x.length !== rows * columns || !(Number.isInteger(group) && group >= 1 && columns >= 1)) {
    throw new RangeError(`${x.length} weights are not ${rows} rows of ${columns} in groups of ${group}`);
  }
  const groups = Math.ceil(columns / group);
  const rowBytes = Math.ceil(columns / 2);
  const scales = new Uint16Array(rows * groups);
  const codes = new Uint8Array(rows * rowBytes);
  const native = nativeKernels();
  if (native !== undefined) native.roundToAbsmax(x, rows, columns, group, scales, codes, kernelThreads(threads));
  else {
    for (let r = 0; r < rows; r++) {
      const own = scales.subarray(r * groups, (r + 1) * groups);
      const row = x.subarray(r * columns, (r + 1) * columns);
      roundRow(row, group, own, codes.subarray(r * rowBytes, (r + 1) * rowBytes));
    }
  }
  return { scales, codes };
}
