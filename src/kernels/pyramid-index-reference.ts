import { InputError } from '../errors.js';
import {
  checkShape,
  type EncodedRows,
  type PyramidShape,
  pyramidCount,
  rowCodeBytes,
  rowGroups,
  rowIndexBytes,
  wordBits,
} from './pyramid.js';

const KEPT_TABLES = 8;
const tables = new Map<string, bigint[][]>();

/**
 * U(n, k) for n <= D, k <= K + 1: the number of points of P(n, k) whose first coordinate is positive.
 * U(n, k) = U(n-1, k) + U(n, k-1) + U(n-1, k-1), U(0, 0) = 1, U(n, 0) = U(0, k) = 0, and N(n, k) = U(n, k) + U(n, k+1).
 * The tables used last are kept.
 */
function positiveCounts(D: number, K: number): bigint[][] {
  const key = `${D},${K}`;
  let table = tables.get(key);
  if (table === undefined) {
    table = [[1n, ...new Array<bigint>(K + 1).fill(0n)]];
    for (let n = 1; n <= D; n++) {
      const above = table[n - 1];
      const row = [0n];
      for (let k = 1; k <= K + 1; k++) row.push(above[k] + row[k - 1] + above[k - 1]);
      table.push(row);
    }
    const oldest = tables.keys().next();
    if (tables.size >= KEPT_TABLES && oldest.done !== true) tables.delete(oldest.value);
  }
  tables.delete(key);
  tables.set(key, table);
  return table;
}

/** What is wrong with an index that names no point of P(D, K). */
export function outsideMessage(index: bigint, D: number, K: number): string {
  return `index ${index} is outside the pyramid P(${D},${K}) with ${pyramidCount(D, K)} codewords`;
}

/**
 * Index of a point of P(D, K), D = `pulses.length`, in the order of libopus (CWRS): by coordinates from the left, each
 * in the order +k, ..., +1, 0, -k, ..., -1 with k the pulses that are left.
 * @throws InputError when the absolute values do not sum to K
 */
export function encodeIndex(pulses: ArrayLike<number>, K: number): bigint {
  const D = pulses.length;
  let sum = 0;
  for (let i = 0; i < D; i++) sum += Math.abs(pulses[i]);
  if (sum !== K) throw new InputError(`the absolute values of the pulses sum to ${sum}, not to K = ${K}`);
  const counts = positiveCounts(D, K);
  let index = 0n;
  let left = K;
  for (let i = 0; i < D; i++) {
    const row = counts[D - i];
    if (pulses[i] < 0) index += row[left + 1];
    left -= Math.abs(pulses[i]);
    index += row[left];
  }
  return index;
}

/**
 * The point [D] of P(D, K) with this index, see {@link encodeIndex}.
 * @throws InputError when there is none
 */
export function decodeIndex(index: bigint, D: number, K: number): Int32Array {
  const pulses = new Int32Array(D);
  decodeInto(index, K, pulses);
  return pulses;
}

function decodeInto(index: bigint, K: number, pulses: Int32Array | Int16Array): void {
  const D = pulses.length;
  if (index < 0n || index >= pyramidCount(D, K)) throw new InputError(outsideMessage(index, D, K));
  const counts = positiveCounts(D, K);
  let rest = index;
  let left = K;
  for (let i = 0; i < D; i++) {
    const row = counts[D - i];
    const negative = rest >= row[left + 1];
    if (negative) rest -= row[left + 1];
    let after = left;
    while (row[after] > rest) after--;
    rest -= row[after];
    pulses[i] = negative ? after - left : left - after;
    left = after;
  }
}

/** Writes the `bits` lowest bits of a number at a bit of `target`, whose bits there are zero. */
function writeBits(target: Uint8Array, at: number, value: bigint, bits: number): void {
  let rest = value;
  for (let done = 0; done < bits; ) {
    const inside = (at + done) & 7;
    const take = Math.min(8 - inside, bits - done);
    target[(at + done) >>> 3] |= Number(rest & ((1n << BigInt(take)) - 1n)) << inside;
    rest >>= BigInt(take);
    done += take;
  }
}

/** The number in `bits` bits from a bit of `source` on. */
export function readBits(source: Uint8Array, at: number, bits: number): bigint {
  if (bits === 0) return 0n;
  const first = at >>> 3;
  const last = (at + bits - 1) >>> 3;
  let digits = '';
  for (let i = last; i >= first; i--) digits += source[i].toString(16).padStart(2, '0');
  return (BigInt(`0x${digits}`) >> BigInt(at & 7)) & ((1n << BigInt(bits)) - 1n);
}

/** Calls `body(first, count, at, bits)` for every word of a row: its groups, its place and length in bits. */
function eachWord(
  shape: PyramidShape,
  groups: number,
  body: (first: number, count: number, at: number, bits: number) => void,
): void {
  const whole = wordBits(shape);
  for (let first = 0, at = 0; first < groups; first += shape.superGroup, at += whole) {
    const count = Math.min(shape.superGroup, groups - first);
    body(first, count, at, count === shape.superGroup ? whole : wordBits(shape, count));
  }
}

/** `packPulses` in big integers: pulses [rows, groups, D] into rows of `rowIndexBytes(shape, groups)` bytes. */
export function packPulsesReference(
  pulses: Int16Array,
  rows: number,
  groups: number,
  shape: PyramidShape,
  target: Uint8Array,
): void {
  const { groupLength: D, pulses: K } = shape;
  const count = pyramidCount(D, K);
  const rowBytes = rowIndexBytes(shape, groups);
  target.fill(0, 0, rows * rowBytes);
  for (let r = 0; r < rows; r++) {
    const bytes = target.subarray(r * rowBytes, (r + 1) * rowBytes);
    eachWord(shape, groups, (first, inWord, at, bits) => {
      let word = 0n;
      for (let g = first + inWord - 1; g >= first; g--) {
        const place = (r * groups + g) * D;
        word = word * count + encodeIndex(pulses.subarray(place, place + D), K);
      }
      writeBits(bytes, at, word, bits);
    });
  }
}

/** The stored indices of a row of `groups` groups, without regard to whether they name a point. */
export function readIndices(row: Uint8Array, groups: number, shape: PyramidShape): bigint[] {
  const count = pyramidCount(shape.groupLength, shape.pulses);
  const indices: bigint[] = [];
  eachWord(shape, groups, (_, inWord, at, bits) => {
    let word = readBits(row, at, bits);
    // What exceeds the last digit stays with it, so that it shows as an index that is too large.
    for (let j = 0; j < inWord - 1; j++, word /= count) indices.push(word % count);
    indices.push(word);
  });
  return indices;
}

/** Decodes rows; `decoded(row, group, pulses [D])` may not keep the pulses. Row numbers count from `firstRow`. */
function eachGroup(
  index: Uint8Array,
  firstRow: number,
  rows: number,
  groups: number,
  shape: PyramidShape,
  decoded: (row: number, group: number, pulses: Int16Array) => void,
): void {
  checkShape(shape);
  const rowBytes = rowIndexBytes(shape, groups);
  const pulses = new Int16Array(shape.groupLength);
  for (let r = firstRow; r < firstRow + rows; r++) {
    const indices = readIndices(index.subarray(r * rowBytes, (r + 1) * rowBytes), groups, shape);
    for (let g = 0; g < groups; g++) {
      try {
        decodeInto(indices[g], shape.pulses, pulses);
      } catch (error) {
        throw error instanceof InputError ? new InputError(`row ${r}, group ${g}: ${error.message}`) : error;
      }
      decoded(r, g, pulses);
    }
  }
}

/** `unpackPulses` in big integers. */
export function unpackPulsesReference(
  index: Uint8Array,
  rows: number,
  groups: number,
  shape: PyramidShape,
  target: Int16Array,
): void {
  const D = shape.groupLength;
  eachGroup(index, 0, rows, groups, shape, (r, g, pulses) => target.set(pulses, (r * groups + g) * D));
}

/** What the pulses of a group are multiplied by: scale * level / ||y||, in f64, then rounded to f32. */
export function groupFactor(scale: number, level: number, pulses: ArrayLike<number>): number {
  let squares = 0;
  for (let i = 0; i < pulses.length; i++) squares += pulses[i] * pulses[i];
  return Math.fround(scale * level * (1 / Math.sqrt(squares)));
}

/** `dequantizeRows` in big integers. */
export function dequantizeRowsReference(
  encoded: EncodedRows,
  target: Float32Array,
  firstRow: number,
  rowCount: number,
): void {
  const { columns, code, gain, scales, levels, zeroGroups } = encoded;
  const D = code.groupLength;
  const groups = rowGroups(columns, D);
  const gainBytes = rowCodeBytes(code.gainBits, groups);
  const zeroBytes = rowCodeBytes(1, groups);
  eachGroup(encoded.index, firstRow, rowCount, groups, code, (r, g, pulses) => {
    const start = (r - firstRow) * columns + g * D;
    const width = Math.min(D, columns - g * D);
    const zero = zeroGroups !== undefined && ((zeroGroups[r * zeroBytes + (g >> 3)] >> (g & 7)) & 1) === 1;
    if (zero) {
      target.fill(0, start, start + width);
      return;
    }
    const level = levels[Number(readBits(gain, 8 * r * gainBytes + g * code.gainBits, code.gainBits))];
    const factor = groupFactor(scales[r], level, pulses);
    for (let i = 0; i < width; i++) target[start + i] = pulses[i] * factor;
  });
}
