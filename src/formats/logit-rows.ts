import fs from 'node:fs';
import { didYouMean, InputError } from '../errors.js';
import { openRange, quoted } from './files.js';
import { hashWhileReading, type ReadingHash } from './hash.js';
import { DTYPE_BYTES, type DType, elementCount, type TensorInfo, type TensorStore } from './tensor.js';
import { openTensorFile } from './tensor-file.js';

/** Element types of stored logits. */
export type LogitDType = 'F64' | 'F32' | 'F16' | 'BF16';

/** Stored logits `[..., vocabulary]`, seen as rows. Only headers are in memory. */
export interface LogitTensor {
  readonly path: string;
  readonly name: string;
  readonly dtype: LogitDType;
  /** As stored: the last axis is the vocabulary. */
  readonly shape: readonly number[];
  readonly vocabulary: number;
  readonly fileBytes: number;
  /** Product of all axes but the last. */
  readonly rows: number;
  /**
   * Rows start..start+count-1, row-major, in a buffer that the next call reuses. F16 and BF16 as bit patterns.
   * @throws RangeError for rows that are not there
   */
  readRows(start: number, count: number): Float64Array | Float32Array | Uint16Array;
  /** SHA-256 of the file; hashed while rows were read in order, where the format allows. Call once. */
  sha256(): Promise<string>;
  /** Integers of another tensor of the same file. */
  tokenIds(name: string): TokenIds;
  has(name: string): boolean;
  close(): void;
}

/** Integers of a stored tensor, row-major. */
export interface TokenIds {
  readonly shape: readonly number[];
  readonly ids: Int32Array;
}

const LOGIT_DTYPES: readonly string[] = ['F64', 'F32', 'F16', 'BF16'];

/** `row 17`, and its place along the axes where there are several: `row 17 (index [1, 1])`. */
export function placedRow(tensor: Pick<LogitTensor, 'shape'>, row: number): string {
  const axes = tensor.shape.slice(0, -1);
  if (axes.length < 2) return `row ${row}`;
  const index: number[] = [];
  let rest = row;
  for (let axis = axes.length - 1; axis >= 0; axis--) {
    index.unshift(rest % axes[axis]);
    rest = Math.floor(rest / axes[axis]);
  }
  return `row ${row} (index [${index.join(', ')}])`;
}

function described({ name, dtype, shape }: TensorInfo): string {
  return `${quoted(name)} ${dtype} [${shape.join(', ')}]`;
}

function unknownTensor(store: TensorStore, name: string): InputError {
  const names = [...store.tensors.keys()];
  const listed = names.slice(0, 8).map(quoted).join(', ');
  return new InputError(
    `${store.path}: no tensor ${quoted(name)}${didYouMean(name, names)}; it holds ${listed}${names.length > 8 ? ', ...' : ''}`,
  );
}

/** The tensor of logits: as named, the only one of floating point, or the one called `logits`. */
function chooseLogits(store: TensorStore, name: string | undefined): TensorInfo {
  if (name !== undefined) {
    const found = store.tensors.get(name);
    if (found === undefined) throw unknownTensor(store, name);
    return found;
  }
  const candidates = [...store.tensors.values()].filter(({ dtype, shape }) => {
    return LOGIT_DTYPES.includes(dtype) && shape.length > 0;
  });
  const called = store.tensors.get('logits');
  if (called !== undefined) return called;
  if (candidates.length === 1) return candidates[0];
  const all = [...store.tensors.values()];
  if (all.length === 1) return all[0];
  throw new InputError(
    `${store.path}: ${candidates.length} of its ${all.length} tensors may be logits; choose one with --tensor: ` +
      `${all.slice(0, 8).map(described).join(', ')}${all.length > 8 ? ', ...' : ''}`,
  );
}

/** Parts of a file before the first row that are worth hashing while rows are read. */
const LARGEST_PREFIX_BYTES = 64 << 20;

/**
 * Opens logits `[..., vocabulary]` of an .npy, .npz or .safetensors file. Two-byte void of NumPy is read as bfloat16.
 * @param name the tensor; may be left out where only one can be meant
 * @throws InputError for an unknown tensor, integers, no axis, or an empty one
 */
export function openLogitTensor(path: string, name?: string): LogitTensor {
  const store = openTensorFile(path);
  try {
    const info = chooseLogits(store, name);
    const { dtype, shape } = info;
    if (!LOGIT_DTYPES.includes(dtype)) {
      throw new InputError(
        `${path}: tensor ${described(info)} is no tensor of logits; f64, f32, f16 or bf16 is needed`,
      );
    }
    if (shape.length === 0) throw new InputError(`${path}: tensor ${described(info)} has no vocabulary axis`);
    const vocabulary = shape[shape.length - 1];
    const rows = elementCount(shape.slice(0, -1));
    if (vocabulary === 0 || rows === 0) throw new InputError(`${path}: tensor ${described(info)} is empty`);
    const rowBytes = vocabulary * DTYPE_BYTES[dtype as LogitDType];
    const inOrder = path.toLowerCase().endsWith('.safetensors');
    const hash = hashWhileReading(path);
    let prefixHashed = !inOrder;
    let bytes = new Uint8Array(0);
    return {
      path,
      name: info.name,
      dtype: dtype as LogitDType,
      shape,
      vocabulary,
      fileBytes: fs.statSync(path).size,
      rows,
      readRows(start, count) {
        if (start < 0 || count < 0 || start + count > rows) {
          throw new RangeError(`rows ${start}..${start + count} of a tensor of ${rows}`);
        }
        const length = count * rowBytes;
        if (bytes.length < length) bytes = new Uint8Array(length);
        if (!prefixHashed) {
          hashPrefix(hash, path, info.offset);
          prefixHashed = true;
        }
        store.readInto(info, start * rowBytes, length, bytes);
        if (inOrder) hash.observe(info.offset + start * rowBytes, bytes.subarray(0, length));
        return viewOf(bytes.buffer, dtype as LogitDType, count * vocabulary);
      },
      sha256: () => hash.hex(),
      tokenIds: (other) => readIds(store, other),
      has: (other) => store.tensors.has(other),
      close: () => store.close(),
    };
  } catch (error) {
    store.close();
    throw error;
  }
}

function viewOf(buffer: ArrayBuffer, dtype: LogitDType, length: number): Float64Array | Float32Array | Uint16Array {
  if (dtype === 'F64') return new Float64Array(buffer, 0, length);
  return dtype === 'F32' ? new Float32Array(buffer, 0, length) : new Uint16Array(buffer, 0, length);
}

function hashPrefix(hash: ReadingHash, path: string, length: number): void {
  if (length > LARGEST_PREFIX_BYTES) return;
  const file = openRange(path);
  const prefix = new Uint8Array(length);
  file.readInto(0, length, prefix);
  file.close();
  hash.observe(0, prefix);
}

type IntegerReader = (view: DataView, offset: number) => number;

const INTEGER_READERS: Readonly<Partial<Record<DType, IntegerReader>>> = {
  I64: (view, offset) => Number(view.getBigInt64(offset, true)),
  U64: (view, offset) => Number(view.getBigUint64(offset, true)),
  I32: (view, offset) => view.getInt32(offset, true),
  U32: (view, offset) => view.getUint32(offset, true),
  I16: (view, offset) => view.getInt16(offset, true),
  U16: (view, offset) => view.getUint16(offset, true),
  I8: (view, offset) => view.getInt8(offset),
  U8: (view, offset) => view.getUint8(offset),
};

function readIds(store: TensorStore, name: string): TokenIds {
  const info = store.tensors.get(name);
  if (info === undefined) throw unknownTensor(store, name);
  const read = INTEGER_READERS[info.dtype as DType];
  if (read === undefined) {
    throw new InputError(`${store.path}: tensor ${described(info)} holds no token ids; integers are needed`);
  }
  const width = DTYPE_BYTES[info.dtype as DType];
  const bytes = new Uint8Array(info.byteLength);
  store.readInto(info, 0, bytes.length, bytes);
  const view = new DataView(bytes.buffer);
  const ids = new Int32Array(elementCount(info.shape));
  for (let i = 0; i < ids.length; i++) {
    const id = read(view, i * width);
    if (id > 0x7fffffff || id < -0x80000000) {
      throw new InputError(`${store.path}: tensor ${quoted(info.name)}, entry ${i}: ${id} is not a token id`);
    }
    ids[i] = id;
  }
  return { shape: info.shape, ids };
}

/**
 * Token ids of a file of their own: its only tensor, or the one called `targets`, `labels` or `input_ids`.
 * @throws InputError when it is not clear which tensor is meant, or it does not hold integers
 */
export function readTokenIdFile(path: string): TokenIds {
  const store = openTensorFile(path);
  try {
    const names = [...store.tensors.keys()];
    const name = names.length === 1 ? names[0] : ['targets', 'labels', 'input_ids'].find((n) => store.tensors.has(n));
    if (name === undefined) {
      throw new InputError(
        `${path}: none of its ${names.length} tensors is called targets, labels or input_ids; store the ids alone`,
      );
    }
    return readIds(store, name);
  } finally {
    store.close();
  }
}
