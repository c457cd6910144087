import { InputError } from '../errors.js';
import { kernelThreads, nativeKernels } from './native.js';
import {
  checkShape,
  type EncodedRows,
  LARGEST_GAIN_BITS,
  type PyramidShape,
  rowCodeBytes,
  rowGroups,
  rowIndexBytes,
  wordBits,
} from './pyramid.js';
import {
  dequantizeRowsReference,
  outsideMessage,
  packPulsesReference,
  readIndices,
  unpackPulsesReference,
} from './pyramid-index-reference.js';

export { decodeIndex, encodeIndex, groupFactor } from './pyramid-index-reference.js';

/** The native table of a pyramid holds (D + 1) (K + 2) indices; above this it is refused. */
const MOST_TABLE_BYTES = 2 ** 29;

/** kMostIndexLimbs of native/src/pyramid_index_decode.hpp, in bits. */
const MOST_INDEX_BITS = 64 * 64;

function checkTable(shape: PyramidShape): void {
  checkShape(shape);
  const { groupLength: D, pulses: K } = shape;
  // A bound before the count itself, which takes long for such pyramids.
  const bits = D * K * 8 > MOST_TABLE_BYTES ? Number.POSITIVE_INFINITY : wordBits(shape, 1);
  if (bits >= MOST_INDEX_BITS || D * K * 8 * Math.ceil(bits / 64) > MOST_TABLE_BYTES) {
    throw new InputError(
      `P(${D},${K}) is too large to be indexed: its table would exceed ${MOST_TABLE_BYTES >> 20} MiB or an index ${MOST_INDEX_BITS - 1} bits; take shorter groups or fewer pulses`,
    );
  }
}

function checkLength(actual: number, expected: number, what: string): void {
  if (actual < expected) throw new InputError(`${what} has ${actual} entries and needs ${expected}`);
}

/**
 * Packs points of a pyramid: every index, or super-group of indices in mixed radix, as a little-endian word of
 * `wordBits` bits, group 0 in the lowest bits, each row padded to a byte.
 * @param pulses `[rows, groups, D]`
 * @param target `[rows, rowIndexBytes(shape, groups)]`
 * @throws InputError when the absolute values of a group do not sum to K, with its row and group
 */
export function packPulses(
  pulses: Int16Array,
  rows: number,
  groups: number,
  shape: PyramidShape,
  target: Uint8Array,
  threads?: number,
): void {
  checkTable(shape);
  const { groupLength: D, pulses: K, superGroup } = shape;
  checkLength(pulses.length, rows * groups * D, 'the array of pulses');
  checkLength(target.length, rows * rowIndexBytes(shape, groups), 'the array of packed indices');
  const native = nativeKernels();
  const bad =
    native?.packPulses(pulses, rows, groups, D, K, superGroup, target, kernelThreads(threads)) ??
    firstOffPyramid(pulses, rows * groups, D, K);
  if (bad >= 0) {
    const sum = pulses.subarray(bad * D, (bad + 1) * D).reduce((total, value) => total + Math.abs(value), 0);
    throw new InputError(
      `row ${Math.floor(bad / groups)}, group ${bad % groups}: the absolute values of the pulses sum to ${sum}, not to K = ${K}`,
    );
  }
  if (native === undefined) packPulsesReference(pulses, rows, groups, shape, target);
}

/** The first of `count` groups whose absolute values do not sum to K, or -1. */
function firstOffPyramid(pulses: Int16Array, count: number, D: number, K: number): number {
  for (let g = 0; g < count; g++) {
    let sum = 0;
    for (let i = g * D; i < (g + 1) * D; i++) sum += Math.abs(pulses[i]);
    if (sum !== K) return g;
  }
  return -1;
}

function throwOutside(index: Uint8Array, place: number, groups: number, shape: PyramidShape): never {
  const row = Math.floor(place / groups);
  const group = place % groups;
  const rowBytes = rowIndexBytes(shape, groups);
  const indices = readIndices(index.subarray(row * rowBytes, (row + 1) * rowBytes), groups, shape);
  throw new InputError(
    `row ${row}, group ${group}: ${outsideMessage(indices[group], shape.groupLength, shape.pulses)}`,
  );
}

/**
 * The points that {@link packPulses} packed.
 * @param index `[rows, rowIndexBytes(shape, groups)]`
 * @param target `[rows, groups, D]`
 * @throws InputError when an index is N or more, with its row and group
 */
export function unpackPulses(
  index: Uint8Array,
  rows: number,
  groups: number,
  shape: PyramidShape,
  target: Int16Array,
  threads?: number,
): void {
  checkTable(shape);
  const { groupLength: D, pulses: K, superGroup } = shape;
  checkLength(index.length, rows * rowIndexBytes(shape, groups), 'the array of packed indices');
  checkLength(target.length, rows * groups * D, 'the array of pulses');
  const native = nativeKernels();
  if (native === undefined) {
    unpackPulsesReference(index, rows, groups, shape, target);
    return;
  }
  const bad = native.unpackPulses(index, rows, groups, D, K, superGroup, target, kernelThreads(threads));
  if (bad >= 0) throwOutside(index, bad, groups, shape);
}

/**
 * Packs codes [rows, groups] of `bits` bits, group 0 in the lowest bits, each row padded to a byte.
 * @param target `[rows, rowCodeBytes(bits, groups)]`
 * @throws InputError when a code needs more bits
 */
export function packCodes(codes: Uint8Array, rows: number, groups: number, bits: number, target: Uint8Array): void {
  const rowBytes = rowCodeBytes(bits, groups);
  checkCodeBits(bits);
  checkLength(codes.length, rows * groups, 'the array of codes');
  checkLength(target.length, rows * rowBytes, 'the array of packed codes');
  for (let r = 0; r < rows; r++) {
    let held = 0;
    let count = 0;
    let at = r * rowBytes;
    for (let g = 0; g < groups; g++) {
      const code = codes[r * groups + g];
      if (code >>> bits !== 0) throw new InputError(`row ${r}, group ${g}: code ${code} needs more than ${bits} bits`);
      held |= code << count;
      count += bits;
      if (count >= 8) {
        target[at++] = held;
        held >>>= 8;
        count -= 8;
      }
    }
    if (count > 0) target[at] = held;
  }
}

/** The codes that {@link packCodes} packed, `[rows, groups]`. */
export function unpackCodes(packed: Uint8Array, rows: number, groups: number, bits: number, target: Uint8Array): void {
  const rowBytes = rowCodeBytes(bits, groups);
  checkCodeBits(bits);
  checkLength(packed.length, rows * rowBytes, 'the array of packed codes');
  checkLength(target.length, rows * groups, 'the array of codes');
  const mask = (1 << bits) - 1;
  for (let r = 0; r < rows; r++) {
    let held = 0;
    let count = 0;
    let at = r * rowBytes;
    for (let g = 0; g < groups; g++) {
      if (count < bits) {
        held |= packed[at++] << count;
        count += 8;
      }
      target[r * groups + g] = held & mask;
      held >>>= bits;
      count -= bits;
    }
  }
}

function checkCodeBits(bits: number): void {
  if (!Number.isInteger(bits) || bits < 0 || bits > LARGEST_GAIN_BITS) {
    throw new InputError(`codes have 0 to ${LARGEST_GAIN_BITS} bits, not ${bits}`);
  }
}

export interface RowRange {
  /** The first row that is wanted; 0 when absent. */
  readonly firstRow?: number;
  /** How many rows; all to the last when absent. */
  readonly rowCount?: number;
  readonly threads?: number;
}

function checkEncoded(encoded: EncodedRows, groups: number): void {
  const { rows, code, index, gain, scales, levels, zeroGroups } = encoded;
  checkTable(code);
  checkCodeBits(code.gainBits);
  checkLength(index.length, rows * rowIndexBytes(code, groups), 'the array of packed indices');
  checkLength(gain.length, rows * rowCodeBytes(code.gainBits, groups), 'the array of packed gain codes');
  checkLength(scales.length, rows, 'the array of row scales');
  checkLength(levels.length, 2 ** code.gainBits, 'the array of gain levels');
  if (zeroGroups !== undefined) {
    checkLength(zeroGroups.length, rows * rowCodeBytes(1, groups), 'the bitmap of zero groups');
  }
}

/**
 * Weights of stored rows: group g of row r is `f32(scale[r] * level[code] / ||y||) * y`, its factor formed in f64 and
 * rounded to f32, the product rounded to f32; zero where `zeroGroups` says so. Rotations are not undone.
 * @param target `[rowCount, columns]`
 * @throws InputError when an array is too short, or an index names no point: with its row and group
 */
export function dequantizeRows(encoded: EncodedRows, target: Float32Array, range: RowRange = {}): void {
  const { rows, columns, code, index, gain, scales, levels, zeroGroups } = encoded;
  const { firstRow = 0, rowCount = rows - firstRow, threads } = range;
  const { groupLength: D, pulses: K, superGroup, gainBits } = code;
  const groups = rowGroups(columns, D);
  checkEncoded(encoded, groups);
  if (firstRow < 0 || rowCount < 0 || firstRow + rowCount > rows) {
    throw new InputError(`rows ${firstRow} to ${firstRow + rowCount} are wanted of ${rows}`);
  }
  checkLength(target.length, rowCount * columns, 'the array of weights');
  const native = nativeKernels();
  if (native === undefined) {
    dequantizeRowsReference(encoded, target, firstRow, rowCount);
    return;
  }
  const bad = native.dequantizePyramid(
    index,
    gain,
    scales,
    levels,
    zeroGroups ?? null,
    columns,
    D,
    K,
    superGroup,
    gainBits,
    firstRow,
    rowCount,
    target,
    kernelThreads(threads),
  );
  if (bad >= 0) throwOutside(index, bad, groups, code);
}
