import { narrowFromF32, widenToF32 } from '../../kernels/dtypes.js';

/** Groups of at most `group` columns along each row; the last one may be shorter. */
export function groupsOf(columns: number, group: number): number {
  return Math.ceil(columns / group);
}

/** Scales as they are stored, and how wide. */
export interface StoredScales {
  readonly values: Float32Array;
  readonly bits: 16 | 32;
}

/** Scales rounded to f16, or to f32 for all of a matrix when f16 would make one of them zero or infinite. */
export function storeScales(scales: Float64Array): StoredScales {
  const exact = Float32Array.from(scales);
  const bytes = new Uint8Array(2 * exact.length);
  narrowFromF32(exact, 'F16', bytes);
  const halves = new Float32Array(exact.length);
  widenToF32(bytes, 'F16', halves);
  const lost = halves.some((half, i) => !Number.isFinite(half) || (half === 0 && exact[i] !== 0));
  return lost ? { values: exact, bits: 32 } : { values: halves, bits: 16 };
}

/** Calls `visit` for every group with the first index and the end of its weights in row-major order. */
export function forEachGroup(
  rows: number,
  columns: number,
  group: number,
  visit: (index: number, from: number, to: number) => void,
): void {
  const groups = groupsOf(columns, group);
  for (let row = 0; row < rows; row++) {
    for (let g = 0; g < groups; g++) {
      const from = row * columns + g * group;
      visit(row * groups + g, from, Math.min(from + group, (row + 1) * columns));
    }
  }
}

/** Largest absolute value of `values[from..to)`. */
export function largestMagnitude(values: Float32Array, from: number, to: number): number {
  let largest = 0;
  for (let i = from; i < to; i++) largest = Math.max(largest, Math.abs(values[i]));
  return largest;
}

/** Groups that a setting `group` means for rows of `columns`; 0 stands for the whole row. */
export function groupLength(group: number, columns: number): number {
  return group === 0 ? columns : group;
}

/** Every pair of bits and group; group 0 is the whole row. */
export function settingsGrid(bits: readonly number[], groups: readonly number[]): Record<string, number>[] {
  return bits.flatMap((b) => groups.map((group) => ({ bits: b, group })));
}
