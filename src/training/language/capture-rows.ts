/**
 * How one row of a teacher's top k is stored: k ids of as many bits as the vocabulary needs, then the log-probabilities, then
 * the probability of all other classes as f32. Ids are in descending order of probability.
 */
import { InputError } from '../../errors.js';
import { narrowFromF32, widenToF32 } from '../../kernels/dtypes.js';
import type { TopTeacher } from '../types.js';

/**
 * `f32`: log-probabilities as they are; `f16`: rounded, and shifted to the mass of the list when they are read; `q8`: the drop from each to the next in 8 bits of growing steps; the level
 * follows from the probability outside the list.
 */
export const CAPTURE_DTYPES = ['q8', 'f16', 'f32'] as const;
export type CaptureDType = (typeof CAPTURE_DTYPES)[number];

/** Shape of stored rows. */
export interface CaptureRowLayout {
  readonly vocabulary: number;
  readonly k: number;
  readonly dtype: CaptureDType;
}

/** Bits of an id; the largest number of so many bits marks the end of a short list. */
function idBits(vocabulary: number): number {
  return 32 - Math.clz32(vocabulary);
}

const endMark = (vocabulary: number): number => 2 ** idBits(vocabulary) - 1;

const idBytes = ({ vocabulary, k }: CaptureRowLayout): number => Math.ceil((k * idBits(vocabulary)) / 8);

function valueBytes({ k, dtype }: CaptureRowLayout): number {
  return dtype === 'q8' ? k - 1 : dtype === 'f16' ? 2 * k : 4 * k;
}

/** Bytes of one stored row. */
export function captureRowBytes(layout: CaptureRowLayout): number {
  return idBytes(layout) + valueBytes(layout) + 4;
}

/** Drop of code c: FINEST (e^(c GROWTH) - 1), up to 40 nats; steps grow from 0.0003 nats by 3.3 percent each. */
const FINEST = 0.01;
const LARGEST_DROP = 40;
const LARGEST_CODE = 255;
const GROWTH = Math.log1p(LARGEST_DROP / FINEST) / LARGEST_CODE;
const DROPS = Float64Array.from({ length: LARGEST_CODE + 1 }, (_, c) => FINEST * Math.expm1(c * GROWTH));

function dropCode(drop: number): number {
  if (drop <= 0) return 0;
  const below = Math.min(LARGEST_CODE - 1, Math.floor(Math.log1p(drop / FINEST) / GROWTH));
  return drop - DROPS[below] > DROPS[below + 1] - drop ? below + 1 : below;
}

function packIds(ids: Int32Array, bits: number, mark: number, out: Uint8Array): void {
  let held = 0;
  let count = 0;
  let at = 0;
  // Up to 31 + 7 bits are held: sums of powers of two, since shifts end at 32.
  for (const id of ids) {
    held += (id < 0 ? mark : id) * 2 ** count;
    count += bits;
    while (count >= 8) {
      out[at++] = held % 256;
      held = Math.floor(held / 256);
      count -= 8;
    }
  }
  if (count > 0) out[at] = held;
}

function unpackIds(bytes: Uint8Array, bits: number, mark: number, ids: Int32Array): void {
  let held = 0;
  let count = 0;
  let at = 0;
  for (let i = 0; i < ids.length; i++) {
    while (count < bits) {
      held += bytes[at++] * 2 ** count;
      count += 8;
    }
    const id = held % 2 ** bits;
    held = Math.floor(held / 2 ** bits);
    count -= bits;
    ids[i] = id === mark ? -1 : id;
  }
}

function encodeDrops(logProbs: Float32Array | Float64Array, count: number, out: Uint8Array): void {
  // Each drop starts from what the ones before decode to, so that errors do not add up.
  let level = logProbs[0];
  for (let i = 1; i < count; i++) {
    const code = dropCode(level - logProbs[i]);
    out[i - 1] = code;
    level -= DROPS[code];
  }
}

function decodeDrops(codes: Uint8Array, count: number, leftover: number, out: Float32Array): void {
  let below = 0;
  let mass = 1;
  for (let i = 1; i < count; i++) {
    below += DROPS[codes[i - 1]];
    mass += Math.exp(-below);
  }
  let level = Math.log(Math.max(Number.MIN_VALUE, 1 - leftover)) - Math.log(mass);
  out[0] = level;
  for (let i = 1; i < count; i++) {
    level -= DROPS[codes[i - 1]];
    out[i] = level;
  }
}

function listLength(ids: Int32Array): number {
  const end = ids.indexOf(-1);
  return end < 0 ? ids.length : end;
}

/** Writes rows `[rows, k]` one after the other, `captureRowBytes` each. */
export function encodeCaptureRows(teacher: TopTeacher, rows: number, layout: CaptureRowLayout): Uint8Array {
  const { k, dtype, vocabulary } = layout;
  if (teacher.k !== k) throw new RangeError(`rows of ${teacher.k} classes for a capture of ${k}`);
  const rowBytes = captureRowBytes(layout);
  const bytes = new Uint8Array(rows * rowBytes);
  const view = new DataView(bytes.buffer);
  const values = new Float32Array(k);
  for (let r = 0; r < rows; r++) {
    const start = r * rowBytes;
    const ids = teacher.ids.subarray(r * k, (r + 1) * k);
    const logProbs = teacher.logProbs.subarray(r * k, (r + 1) * k);
    packIds(ids, idBits(vocabulary), endMark(vocabulary), bytes.subarray(start));
    const at = start + idBytes(layout);
    const target = bytes.subarray(at, at + valueBytes(layout));
    const count = listLength(ids);
    if (dtype === 'q8') encodeDrops(logProbs, count, target);
    else {
      values.fill(0);
      values.set(logProbs.subarray(0, count));
      narrowFromF32(values, dtype === 'f16' ? 'F16' : 'F32', target, 1);
    }
    view.setFloat32(start + rowBytes - 4, teacher.leftover[r], true);
  }
  return bytes;
}

/** Shifts rounded log-probabilities to the mass that the list has: what rounding adds to all of them is lost. */
function restoreMass(logProbs: Float32Array, count: number, leftover: number): void {
  let mass = 0;
  for (let i = 0; i < count; i++) mass += Math.exp(logProbs[i]);
  if (!(mass > 0) || !(leftover < 1)) return;
  const shift = Math.log1p(-leftover) - Math.log(mass);
  for (let i = 0; i < count; i++) logProbs[i] += shift;
}

/** Where decoded rows go: row `row` of `ids` and `logProbs` `[rows, k]` and of `leftover`. */
export interface CaptureTarget {
  readonly ids: Int32Array;
  readonly logProbs: Float32Array;
  readonly leftover: Float32Array;
}

/**
 * Reads `rows` stored rows into `target` from row `first` on.
 * @param place what messages call the first of them
 * @throws InputError for ids outside the vocabulary, log-probabilities that rise or are none
 */
export function decodeCaptureRows(
  bytes: Uint8Array,
  rows: number,
  layout: CaptureRowLayout,
  target: CaptureTarget,
  first: number,
  place: string,
): void {
  const { k, dtype, vocabulary } = layout;
  const rowBytes = captureRowBytes(layout);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let r = 0; r < rows; r++) {
    const start = r * rowBytes;
    const row = first + r;
    const ids = target.ids.subarray(row * k, (row + 1) * k);
    const logProbs = target.logProbs.subarray(row * k, (row + 1) * k);
    unpackIds(bytes.subarray(start), idBits(vocabulary), endMark(vocabulary), ids);
    const leftover = view.getFloat32(start + rowBytes - 4, true);
    target.leftover[row] = leftover;
    const count = listLength(ids);
    const at = start + idBytes(layout);
    const stored = bytes.subarray(at, at + valueBytes(layout));
    if (dtype === 'q8') decodeDrops(stored, count, leftover, logProbs);
    else widenToF32(stored, dtype === 'f16' ? 'F16' : 'F32', logProbs, 1);
    if (dtype === 'f16') restoreMass(logProbs, count, leftover);
    requireRow(ids, logProbs, leftover, vocabulary, `${place}, stored row ${r}`);
  }
}

function requireRow(
  ids: Int32Array,
  logProbs: Float32Array,
  leftover: number,
  vocabulary: number,
  place: string,
): void {
  const count = listLength(ids);
  let sound = leftover >= 0 && leftover <= 1.001;
  for (let i = 0; i < count; i++) {
    sound &&= ids[i] < vocabulary && logProbs[i] <= 1e-3 && (i === 0 || logProbs[i] <= logProbs[i - 1]);
  }
  if (!sound) throw new InputError(`${place}: damaged: its classes or log-probabilities are none; capture it again`);
}
