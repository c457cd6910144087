import path from 'node:path';
import { InputError, RunError } from '../errors.js';
import { type AtomicOptions, createAtomicFile } from './atomic.js';
import { withRange } from './files.js';
import { byteLengthOf } from './ggml-blocks.js';
import { type ByteSource, type NpyLayout, type NpyOptions, readNpyHeader } from './npy-header.js';
import { DTYPE_BYTES, type DType, elementCount, type TensorInfo, type TensorStore } from './tensor.js';

export type { NpyOptions } from './npy-header.js';

/** One array as it is read: row-major and little-endian, however it is stored. */
export interface NpyArray {
  readonly path: string;
  readonly dtype: DType;
  /** Slowest axis first. */
  readonly shape: readonly number[];
  /** How the file stores it; `readInto` gives row-major all the same. */
  readonly fortranOrder: boolean;
  readonly byteLength: number;
  /**
   * Reads `length` bytes at `start` of the row-major little-endian array into `target`. Big-endian and Fortran-order
   * arrays are read by whole elements.
   * @throws InputError when a Fortran-order array is too large to be turned in memory.
   */
  readInto(start: number, length: number, target: Uint8Array): void;
  close(): void;
}

/** A Fortran-order array has to be turned as a whole; above this it is refused. */
const MAX_TRANSPOSED_BYTES = 1 << 30;

/** Reverses the bytes of every element in place. */
function swapBytes(bytes: Uint8Array, width: number): void {
  for (let base = 0; base < bytes.length; base += width) {
    for (let low = base, high = base + width - 1; low < high; low++, high--) {
      const held = bytes[low];
      bytes[low] = bytes[high];
      bytes[high] = held;
    }
  }
}

/** Column-major to row-major. `width` bytes an element. */
function transposeToRows(source: Uint8Array, shape: readonly number[], width: number): Uint8Array {
  const target = new Uint8Array(source.length);
  const rank = shape.length;
  const strides = new Float64Array(rank);
  let stride = width;
  for (let axis = 0; axis < rank; axis++) {
    strides[axis] = stride;
    stride *= shape[axis];
  }
  const index = new Float64Array(rank);
  let from = 0;
  for (let to = 0; to < target.length; to += width) {
    for (let b = 0; b < width; b++) target[to + b] = source[from + b];
    // Advance the row-major index and the column-major position together.
    for (let axis = rank - 1; axis >= 0; axis--) {
      from += strides[axis];
      if (++index[axis] < shape[axis]) break;
      from -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
  }
  return target;
}

/** A reader of row-major little-endian bytes of the array that `layout` describes. */
export function arrayReader(
  source: ByteSource,
  layout: NpyLayout,
  where: string,
): (start: number, length: number, target: Uint8Array) => void {
  const { dtype, shape, dataStart, byteLength, bigEndian } = layout;
  const width = DTYPE_BYTES[dtype];
  const swap = bigEndian && width > 1;
  // With at most one axis longer than 1 both orders are the same.
  const turned = layout.fortranOrder && byteLength > 0 && shape.filter((extent) => extent > 1).length > 1;
  let rows: Uint8Array | undefined;
  return (start, length, target) => {
    if (start < 0 || length < 0 || start + length > byteLength)
      throw new RangeError(`${where}: bytes ${start}..${start + length} are not in an array of ${byteLength} bytes`);
    if ((swap || turned) && (start % width !== 0 || length % width !== 0))
      throw new RangeError(`${where}: bytes ${start}..${start + length} are not whole elements`);
    if (!turned) {
      source.readInto(dataStart + start, length, target);
      if (swap) swapBytes(target.subarray(0, length), width);
      return;
    }
    if (rows === undefined) {
      if (byteLength > MAX_TRANSPOSED_BYTES)
        throw new InputError(
          `${where}: ${byteLength} bytes in Fortran order are too many to turn: save it with numpy.ascontiguousarray`,
        );
      const stored = new Uint8Array(byteLength);
      source.readInto(dataStart, byteLength, stored);
      if (swap) swapBytes(stored, width);
      rows = transposeToRows(stored, shape, width);
    }
    target.set(rows.subarray(start, start + length));
  };
}

/**
 * Opens an .npy array: dtypes f2 f4 f8 i1..i8 u1..u8 b1, either byte order, C or Fortran order.
 * @throws InputError for a damaged file or a type that is not read (objects, text, records, complex).
 */
export function openNpy(location: string, options: NpyOptions = {}): NpyArray {
  return withRange(location, (file) => {
    const layout = readNpyHeader(file, location, options);
    return {
      path: location,
      dtype: layout.dtype,
      shape: layout.shape,
      fortranOrder: layout.fortranOrder,
      byteLength: layout.byteLength,
      readInto: arrayReader(file, layout, location),
      close: () => file.close(),
    };
  });
}

/** An array as a store of one tensor, named after the file without its extension. */
export function npyStore(array: NpyArray): TensorStore {
  const name = path.basename(array.path, '.npy');
  const info: TensorInfo = {
    name,
    dtype: array.dtype,
    shape: array.shape,
    file: array.path,
    offset: 0,
    byteLength: array.byteLength,
  };
  return {
    path: array.path,
    tensors: new Map([[name, info]]),
    metadata: {},
    readInto: (_tensor, start, length, target) => array.readInto(start, length, target),
    close: () => array.close(),
  };
}

const CODE_OF_DTYPE: Readonly<Partial<Record<DType, string>>> = {
  F64: '<f8',
  F32: '<f4',
  F16: '<f2',
  BF16: '<V2',
  I64: '<i8',
  I32: '<i4',
  I16: '<i2',
  I8: '|i1',
  U64: '<u8',
  U32: '<u4',
  U16: '<u2',
  U8: '|u1',
  BOOL: '|b1',
};

/** The header of version 1.0 as numpy writes it, padded so that the data begins at a multiple of 64. */
export function npyHeader(dtype: DType, shape: readonly number[]): Uint8Array {
  const descr = CODE_OF_DTYPE[dtype];
  if (descr === undefined)
    throw new InputError(`numpy has no type for ${dtype}: convert it to float32 or save safetensors`);
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`;
  const dict = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const total = Math.ceil((10 + dict.length + 1) / 64) * 64;
  if (total - 10 > 0xffff) throw new InputError(`an array of ${shape.length} axes has too many for an .npy file`);
  const header = Buffer.alloc(total, ' ');
  header.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0]);
  header.writeUInt16LE(total - 10, 8);
  header.write(dict, 10, 'latin1');
  header[total - 1] = 0x0a;
  return header;
}

/** Bytes of a whole .npy file. */
export function encodeNpy(data: Float32Array | Float64Array, shape: readonly number[]): Uint8Array {
  const dtype = data instanceof Float32Array ? 'F32' : 'F64';
  if (elementCount(shape) !== data.length) {
    throw new RangeError(`${data.length} values do not fit [${shape.join(', ')}]`);
  }
  const header = npyHeader(dtype, shape);
  const bytes = new Uint8Array(header.length + data.byteLength);
  bytes.set(header);
  bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), header.length);
  return bytes;
}

export interface NpyWriter {
  readonly path: string;
  /** Appends row-major little-endian bytes. */
  write(bytes: Uint8Array): void;
  /** @throws RunError when bytes are missing. */
  commit(): void;
  abort(): void;
}

/**
 * Writes one array as a stream. BF16 is stored as `V2`, as numpy stores `ml_dtypes.bfloat16`. An unknown first extent
 * is given as -1: the header is then completed at `commit` from the number of whole rows that were written.
 * @throws InputError for float8, or when the output exists without `force` or `resume`.
 */
export function createNpyWriter(
  target: string,
  array: { readonly dtype: DType; readonly shape: readonly number[] },
  options: AtomicOptions = {},
): NpyWriter {
  const { dtype, shape } = array;
  const growing = shape[0] === -1;
  const rowBytes = growing ? byteLengthOf(dtype, shape.slice(1)) : 0;
  if (growing && rowBytes === 0) throw new InputError(`${target}: rows of no elements cannot be counted`);
  // Room for any number of rows, so that the completed header has the same length.
  const header = npyHeader(dtype, growing ? [Number.MAX_SAFE_INTEGER, ...shape.slice(1)] : shape);
  const planned = growing ? Number.POSITIVE_INFINITY : byteLengthOf(dtype, shape);
  const file = createAtomicFile(target, { force: options.force, resume: options.resume });
  file.write(header);
  let written = 0;
  return {
    path: target,
    write(bytes): void {
      if (written + bytes.length > planned) throw new RangeError(`${target}: more than the planned ${planned} bytes`);
      file.write(bytes);
      written += bytes.length;
    },
    commit(): void {
      if (growing ? written % rowBytes !== 0 : written !== planned)
        throw new RunError(`${target}: incomplete: ${written} bytes written of [${shape.join(', ')}] ${dtype}`);
      if (growing) {
        const dict = Buffer.from(npyHeader(dtype, [written / rowBytes, ...shape.slice(1)]));
        const completed = Buffer.alloc(header.length, ' ');
        dict.copy(completed, 0, 0, dict.length - 1);
        completed.writeUInt16LE(header.length - 10, 8);
        completed[header.length - 1] = 0x0a;
        file.writeAt(completed, 0);
      }
      file.commit();
    },
    abort: () => file.abort(),
  };
}

/** Elements of an array, read at once as little-endian bytes. For small arrays. */
export function readNpyBytes(array: NpyArray): Uint8Array {
  const bytes = new Uint8Array(elementCount(array.shape) * DTYPE_BYTES[array.dtype]);
  array.readInto(0, bytes.length, bytes);
  return bytes;
}
