import path from 'node:path';
import { InputError } from '../errors.js';
import { decodeUtf8, openRange, quoted, type RangeFile } from './files.js';
import { byteLengthOf } from './ggml-blocks.js';
import {
  GGML_TYPE_NUMBERS,
  GGUF_SCALAR_BYTES,
  GGUF_VALUE_TYPES,
  type GgufArray,
  type GgufEntry,
  type GgufScalarType,
  type GgufValue,
  type GgufValueType,
  ggmlType,
  ggmlTypeName,
  ggufScalarType,
} from './ggml-types.js';
import type { TensorInfo, TensorStore } from './tensor.js';

export type { GgufArray, GgufEntry, GgufValue, GgufValueType } from './ggml-types.js';

/** A GGUF file (or split set of files) as a store, with its key-value pairs. */
export interface GgufStore extends TensorStore {
  readonly version: number;
  readonly kv: ReadonlyMap<string, GgufValue>;
  /** The stored types, for those who write the pairs again. */
  readonly kvTypes: ReadonlyMap<string, GgufValueType>;
  /** Further tensors of a name that is taken, where `repeatedNames` keeps them. */
  readonly repeated: readonly TensorInfo[];
}

export interface GgufOptions {
  /** What a name means that stands twice; default `refuse`, as llama.cpp's readers of models do. */
  readonly repeatedNames?: 'refuse' | 'keep';
}

/** A string longer than this cannot be meant; V8 would refuse it at 2^29. */
const MAX_STRING_BYTES = 1 << 28;
/** Bytes of one numeric array in the header. */
const MAX_ARRAY_BYTES = 1 << 30;
const MAX_NESTING = 4;
/** `GGML_MAX_DIMS`. */
const MAX_DIMENSIONS = 4;
const WINDOW_BYTES = 1 << 20;

/** Reads forward through a header with a window, so that a file of any size costs one window of memory. */
interface Cursor {
  readonly file: RangeFile;
  readonly position: number;
  remaining(): number;
  u32(): number;
  /** Unsigned 64-bit as a number; above 2^53 it is larger than any file, and refused with `what`. */
  count(what: string): number;
  /** A length-prefixed string. */
  text(what: string): string;
  scalar(type: Exclude<GgufScalarType, 'STRING'>, what: string): number | bigint | boolean;
  bytesInto(target: Uint8Array): void;
}

function createCursor(file: RangeFile): Cursor {
  let window = Buffer.alloc(Math.min(WINDOW_BYTES, file.size));
  let windowStart = 0;
  let windowEnd = 0;
  let position = 0;
  const truncated = (what: string): never => {
    throw new InputError(`${file.path}: truncated at byte ${position} in ${what}: fetch it again`);
  };
  /** Makes the next `length` bytes visible in the window and returns where they begin in it. */
  const need = (length: number, what: string): number => {
    if (length > file.size - position) truncated(what);
    if (position + length > windowEnd || position < windowStart) {
      if (length > window.length) window = Buffer.alloc(Math.min(length + WINDOW_BYTES, file.size - position));
      const fill = Math.min(window.length, file.size - position);
      file.readInto(position, fill, window);
      windowStart = position;
      windowEnd = position + fill;
    }
    return position - windowStart;
  };
  const u64 = (what: string): bigint => {
    const at = need(8, what);
    position += 8;
    return window.readBigUInt64LE(at);
  };
  const count = (what: string): number => {
    const value = u64(what);
    if (value > BigInt(Number.MAX_SAFE_INTEGER))
      throw new InputError(`${file.path}: ${what} is ${value}, more than any file holds: damaged, fetch it again`);
    return Number(value);
  };
  return {
    file,
    get position() {
      return position;
    },
    remaining: () => file.size - position,
    u32(): number {
      const at = need(4, 'the header');
      position += 4;
      return window.readUInt32LE(at);
    },
    count,
    text(what): string {
      const length = count(`the length of ${what}`);
      if (length > file.size - position) truncated(what);
      if (length > MAX_STRING_BYTES)
        throw new InputError(`${file.path}: ${what} has ${length} bytes: damaged, fetch it again`);
      const at = need(length, what);
      position += length;
      const text = window.toString('utf8', at, at + length);
      // The fast decoder replaces what is invalid; the slow one tells it from a U+FFFD that was written.
      if (text.includes('\ufffd')) return decodeUtf8(window.subarray(at, at + length), `${file.path}: ${what}`);
      return text;
    },
    scalar(type, what) {
      const at = need(GGUF_SCALAR_BYTES[type], what);
      position += GGUF_SCALAR_BYTES[type];
      switch (type) {
        case 'UINT8':
          return window.readUInt8(at);
        case 'INT8':
          return window.readInt8(at);
        case 'UINT16':
          return window.readUInt16LE(at);
        case 'INT16':
          return window.readInt16LE(at);
        case 'UINT32':
          return window.readUInt32LE(at);
        case 'INT32':
          return window.readInt32LE(at);
        case 'FLOAT32':
          return window.readFloatLE(at);
        case 'FLOAT64':
          return window.readDoubleLE(at);
        case 'UINT64':
          return narrow(window.readBigUInt64LE(at));
        case 'INT64':
          return narrow(window.readBigInt64LE(at));
        case 'BOOL': {
          const byte = window.readUInt8(at);
          if (byte > 1) throw new InputError(`${file.path}: ${what} is a boolean with the value ${byte}: damaged`);
          return byte === 1;
        }
      }
    },
    bytesInto(target): void {
      if (target.length > file.size - position) truncated('an array');
      file.readInto(position, target.length, target);
      position += target.length;
    },
  };
}

function narrow(value: bigint): number | bigint {
  const near = Number(value);
  return Number.isSafeInteger(near) ? near : value;
}

const NUMERIC_ARRAYS = {
  UINT8: Uint8Array,
  INT8: Int8Array,
  UINT16: Uint16Array,
  INT16: Int16Array,
  UINT32: Uint32Array,
  INT32: Int32Array,
  FLOAT32: Float32Array,
  FLOAT64: Float64Array,
  UINT64: BigUint64Array,
  INT64: BigInt64Array,
} as const;

function readArray(cursor: Cursor, what: string, depth: number): { type: GgufValueType; value: GgufArray } {
  const where = `${cursor.file.path}: ${what}`;
  if (depth > MAX_NESTING) throw new InputError(`${where}: arrays are nested more than ${MAX_NESTING} deep: damaged`);
  const itemNumber = cursor.u32();
  const length = cursor.count(`the length of ${what}`);
  if (itemNumber === GGUF_VALUE_TYPES.ARRAY) {
    // An inner array takes at least its type and its length.
    checkArrayLength(cursor, where, length, 12);
    const value: GgufArray[] = [];
    let inner: GgufValueType = 'UINT8';
    for (let i = 0; i < length; i++) {
      const item = readArray(cursor, what, depth + 1);
      if (i > 0 && JSON.stringify(item.type) !== JSON.stringify(inner))
        throw new InputError(`${where}: its inner arrays have different types: damaged`);
      inner = item.type;
      value.push(item.value);
    }
    return { type: { array: inner }, value };
  }
  const item = ggufScalarType(itemNumber);
  if (item === undefined) throw new InputError(`${where}: unknown element type ${itemNumber}: damaged or too new`);
  if (item === 'STRING') {
    checkArrayLength(cursor, where, length, 8);
    const value: string[] = [];
    const label = `a string of ${what}`;
    for (let i = 0; i < length; i++) value.push(cursor.text(label));
    return { type: { array: item }, value };
  }
  checkArrayLength(cursor, where, length, GGUF_SCALAR_BYTES[item]);
  if (item === 'BOOL') {
    const value: boolean[] = [];
    for (let i = 0; i < length; i++) value.push(cursor.scalar(item, what) as boolean);
    return { type: { array: item }, value };
  }
  if (length * GGUF_SCALAR_BYTES[item] > MAX_ARRAY_BYTES)
    throw new InputError(`${where}: an array of ${length} elements in a header: damaged, fetch it again`);
  const value = new NUMERIC_ARRAYS[item](length);
  cursor.bytesInto(new Uint8Array(value.buffer));
  return { type: { array: item }, value };
}

function checkArrayLength(cursor: Cursor, where: string, length: number, itemBytes: number): void {
  if (length * itemBytes > cursor.remaining())
    throw new InputError(`${where}: ${length} elements do not fit into the file: truncated, fetch it again`);
}

function readEntry(cursor: Cursor, key: string): GgufEntry {
  const what = `key ${quoted(key)}`;
  const number = cursor.u32();
  if (number === GGUF_VALUE_TYPES.ARRAY) return readArray(cursor, what, 1);
  const type = ggufScalarType(number);
  if (type === undefined)
    throw new InputError(`${cursor.file.path}: ${what}: unknown value type ${number}: damaged or too new`);
  return { type, value: type === 'STRING' ? cursor.text(what) : cursor.scalar(type, what) };
}

interface GgufHeader {
  readonly version: number;
  readonly entries: ReadonlyMap<string, GgufEntry>;
  readonly infos: readonly TensorInfo[];
}

interface StoredTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: number;
  readonly offset: number;
}

function readTensorEntry(cursor: Cursor, index: number): StoredTensor {
  const name = cursor.text(`the name of tensor ${index}`);
  const where = `${cursor.file.path}: tensor ${quoted(name)}`;
  const dimensions = cursor.u32();
  if (dimensions > MAX_DIMENSIONS)
    throw new InputError(`${where}: ${dimensions} dimensions, more than the ${MAX_DIMENSIONS} of the format: damaged`);
  const shape: number[] = [];
  for (let axis = 0; axis < dimensions; axis++) shape.push(cursor.count(`an extent of tensor ${quoted(name)}`));
  // GGML counts axes from the fastest one.
  shape.reverse();
  return { name, shape, type: cursor.u32(), offset: cursor.count(`the offset of tensor ${quoted(name)}`) };
}

function locate(stored: StoredTensor, file: RangeFile, dataStart: number, alignment: number): TensorInfo {
  const { name, shape, offset } = stored;
  const where = `${file.path}: tensor ${quoted(name)}`;
  const dtype = ggmlType(stored.type);
  if (dtype === undefined)
    throw new InputError(
      `${where}: type ${ggmlTypeName(stored.type)} is not read; use one of ${Object.keys(GGML_TYPE_NUMBERS).join(' ')}`,
    );
  let byteLength: number;
  try {
    byteLength = byteLengthOf(dtype, shape);
  } catch (error) {
    throw error instanceof InputError ? new InputError(`${where}: ${error.message}`) : error;
  }
  if (offset % alignment !== 0)
    throw new InputError(`${where}: offset ${offset} is not a multiple of the alignment ${alignment}: damaged`);
  if (dataStart + offset + byteLength > file.size)
    throw new InputError(
      `${where}: ends at byte ${dataStart + offset + byteLength}, the file at ${file.size}: truncated, fetch it again`,
    );
  return { name, dtype, shape, file: file.path, offset: dataStart + offset, byteLength };
}

function checkOverlap(infos: readonly TensorInfo[], file: string): void {
  const inOrder = [...infos].sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  let end = 0;
  let before = '';
  for (const info of inOrder) {
    if (info.offset < end)
      throw new InputError(
        `${file}: tensors ${quoted(before)} and ${quoted(info.name)} overlap: damaged, fetch it again`,
      );
    end = info.offset + info.byteLength;
    before = info.name;
  }
}

function alignmentOf(entries: ReadonlyMap<string, GgufEntry>, file: string): number {
  const entry = entries.get('general.alignment');
  if (entry === undefined) return 32;
  const value = entry.value;
  if (entry.type !== 'UINT32' || typeof value !== 'number' || value === 0 || (value & (value - 1)) !== 0)
    throw new InputError(`${file}: general.alignment ${String(value)} is not a power of two of type UINT32: damaged`);
  return value;
}

function readHeader(file: RangeFile): GgufHeader {
  if (file.size === 0) throw new InputError(`${file.path}: the file is empty: fetch it again`);
  const cursor = createCursor(file);
  if (file.size < 4 || cursor.u32() !== 0x46554747)
    throw new InputError(`${file.path}: does not begin with "GGUF": not a GGUF file`);
  const version = cursor.u32();
  if (version !== 2 && version !== 3) {
    if ((version & 0xffff) === 0 && version !== 0)
      throw new InputError(`${file.path}: a big-endian GGUF file: convert it to little-endian first`);
    throw new InputError(`${file.path}: GGUF version ${version} is not read, only 2 and 3: convert it again`);
  }
  const tensorCount = cursor.count('the number of tensors');
  const entryCount = cursor.count('the number of keys');
  // A tensor takes at least 24 bytes of header (name length, rank, type, offset), a key 13.
  if (tensorCount * 24 + entryCount * 13 > cursor.remaining())
    throw new InputError(
      `${file.path}: ${tensorCount} tensors and ${entryCount} keys do not fit into ${file.size} bytes: truncated, fetch it again`,
    );
  const entries = new Map<string, GgufEntry>();
  for (let i = 0; i < entryCount; i++) {
    const key = cursor.text(`key ${i}`);
    if (entries.has(key)) throw new InputError(`${file.path}: key ${quoted(key)} stands twice: damaged`);
    entries.set(key, readEntry(cursor, key));
  }
  const alignment = alignmentOf(entries, file.path);
  const stored: StoredTensor[] = [];
  for (let i = 0; i < tensorCount; i++) stored.push(readTensorEntry(cursor, i));
  const dataStart = Math.ceil(cursor.position / alignment) * alignment;
  const infos = stored.map((tensor) => locate(tensor, file, dataStart, alignment));
  checkOverlap(infos, file.path);
  return { version, entries, infos };
}

const SPLIT_NAME = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/;

/** The paths of a split set, given its first file. One path when the file is not split. */
function splitPaths(first: string, entries: ReadonlyMap<string, GgufEntry>): string[] {
  const count = entries.get('split.count')?.value ?? 1;
  if (count === 1 || count === 0) return [first];
  if (typeof count !== 'number' || !Number.isSafeInteger(count) || count < 0 || count > 99999)
    throw new InputError(`${first}: split.count ${String(count)} is not a number of files: damaged`);
  const number = entries.get('split.no')?.value;
  const match = SPLIT_NAME.exec(path.basename(first));
  if (match === null || Number(match[3]) !== count)
    throw new InputError(
      `${first}: one of ${count} files, so its name must end in -00001-of-${String(count).padStart(5, '0')}.gguf: rename it back`,
    );
  const at = (i: number): string =>
    path.join(path.dirname(first), `${match[1]}-${String(i).padStart(5, '0')}-of-${match[3]}.gguf`);
  if (number !== 0 || Number(match[2]) !== 1)
    throw new InputError(`${first}: not the first of ${count} files: name ${at(1)}`);
  return Array.from({ length: count }, (_, i) => (i === 0 ? first : at(i + 1)));
}

/**
 * Opens a GGUF file of version 2 or 3, little-endian; of a split set (`-00001-of-0000N.gguf`) name the first file. The
 * header is read through a window, tensors by range. Shapes are row-major (GGML's reversed).
 *
 * Layout: the GGUF specification (ggml, docs/gguf.md). Counts, lengths and offsets are held against the file's size
 * before anything is allocated.
 * @throws InputError for everything that is wrong with the files, also a tensor type that is not read.
 */
export function openGguf(location: string, options: GgufOptions = {}): GgufStore {
  const files = new Map<string, RangeFile>();
  const close = (): void => {
    for (const file of files.values()) file.close();
  };
  const open = (filePath: string): GgufHeader => {
    const file = openRange(filePath);
    files.set(filePath, file);
    return readHeader(file);
  };
  try {
    const first = open(location);
    const tensors = new Map<string, TensorInfo>();
    const repeated: TensorInfo[] = [];
    const paths = splitPaths(location, first.entries);
    paths.forEach((filePath, i) => {
      const header = i === 0 ? first : open(filePath);
      if (i > 0 && header.entries.get('split.no')?.value !== i)
        throw new InputError(`${filePath}: its split.no is not ${i}: another model's file, fetch it again`);
      for (const info of header.infos) {
        const other = tensors.get(info.name);
        if (other === undefined) tensors.set(info.name, info);
        else if (options.repeatedNames === 'keep') repeated.push(info);
        else throw new InputError(`${filePath}: tensor ${quoted(info.name)} stands twice, first in ${other.file}`);
      }
    });
    const declared = first.entries.get('split.tensors.count')?.value;
    if (paths.length > 1 && typeof declared === 'number' && declared !== tensors.size)
      throw new InputError(`${location}: the split set holds ${tensors.size} tensors, its header says ${declared}`);

    const kv = new Map<string, GgufValue>();
    const kvTypes = new Map<string, GgufValueType>();
    const metadata = new Map<string, string>();
    for (const [key, { type, value }] of first.entries) {
      kv.set(key, value);
      kvTypes.set(key, type);
      if (typeof value === 'string') metadata.set(key, value);
    }
    return {
      path: location,
      version: first.version,
      kv,
      kvTypes,
      tensors,
      repeated,
      metadata: Object.fromEntries(metadata),
      readInto(tensor, start, length, target): void {
        const file = files.get(tensor.file);
        if (file === undefined || start < 0 || length < 0 || start + length > tensor.byteLength)
          throw new RangeError(`${location}: bytes ${start}..${start + length} are not in tensor ${tensor.name}`);
        file.readInto(tensor.offset + start, length, target);
      },
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}
