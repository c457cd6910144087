import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { InputError } from '../../errors.js';
import { DIRECT_BLOCK } from '../../formats/direct-transfer.js';
import { withRange } from '../../formats/files.js';
import { openRangeBeside, type RangeFileBeside } from '../../formats/files-beside.js';
import { byteLengthOf } from '../../formats/ggml-blocks.js';
import { hashWhileReading, type ReadingHash } from '../../formats/hash.js';
import { DTYPE_BYTES, elementCount, type TensorInfo, type TensorStore } from '../../formats/tensor.js';
import { addressModulo } from '../../kernels/buffer-address.js';
import { widenToF32 } from '../../kernels/dtypes.js';
import { openWeights } from '../../models/pvq-store.js';
import type { MergeDType, MergeSource, ModelReference, SourceTensor } from './types.js';

const DIRECT: ReadonlySet<string> = new Set<MergeDType>(['F64', 'F32', 'F16', 'BF16']);
/** Integer tensors are no weights: positions, masks. They are left out of a merge. */
const WEIGHTS: ReadonlySet<string> = new Set([...DIRECT, 'F8_E4M3', 'F8_E5M2']);

/** A model directory as a source, and the hashes of its weight files. */
export interface DirectorySource extends MergeSource {
  /** Weight files in the order of their names, with their SHA-256; hashed while tensors were read in file order. */
  digests(): Promise<{ readonly file: string; readonly sha256: string; readonly bytes: number }[]>;
  /** Tensors that are no weights and stay out of the merge. */
  readonly ignored: readonly string[];
  /** Paths of the weight files, in the order of their names. */
  files(): string[];
  /** Where a tensor lies: whoever reads in this order reads each file once, front to back. */
  place(name: string): { readonly file: string; readonly offset: number } | undefined;
}

export interface SourceOptions {
  /** Whether weight files are hashed as they are read. */
  readonly hashed: boolean;
  /** Whether they are read past the page cache: they are larger than what it can keep. */
  readonly direct: boolean;
}

/**
 * Opens the weights of a model directory for a merge. Tensors of at most 64 bits in a plain floating type are read as they are
 * stored, beside the calling thread; others (F8, quantised and factorised directories of this program) are widened to F32.
 * @throws InputError for a directory without config.json or safetensors
 */
export function openDirectorySource(reference: ModelReference, path: string, options: SourceOptions): DirectorySource {
  if (/\.(gguf|onnx)$/.test(path))
    throw new InputError(
      `${reference.text}: a merge reads safetensors: name a model directory with them in the place of ${path}`,
    );
  if (!existsSync(join(path, 'config.json')))
    throw new InputError(
      `${reference.text}: no config.json in ${path}; a model directory needs config.json and *.safetensors`,
    );
  const store = openWeights(path);
  const tensors = new Map<string, SourceTensor>();
  const ignored: string[] = [];
  for (const [name, info] of store.tensors) {
    if (!WEIGHTS.has(info.dtype)) ignored.push(name);
    else tensors.set(name, { dtype: DIRECT.has(info.dtype) ? (info.dtype as MergeDType) : 'F32', shape: info.shape });
  }
  const files = openFilesBeside(store, options);
  return {
    reference,
    path,
    tensors,
    ignored,
    read: (name, from, to, target) => readRows(store, files, name, from, to, target),
    phase(name, from): number {
      const info = store.tensors.get(name);
      return info && files.holds(info) ? (info.offset + bytesOfRows(info, from)) % DIRECT_BLOCK : 0;
    },
    place: (name) => store.tensors.get(name),
    files: () => [...new Set([...store.tensors.values()].map(({ file }) => file))].sort(),
    digests: () => files.digests(),
    close(): void {
      files.close();
      store.close();
    },
  };
}

/** The bytes of rows [from, to). */
async function readRows(
  store: TensorStore,
  files: FilesBeside,
  name: string,
  from: number,
  to: number,
  target: Uint8Array,
): Promise<void> {
  const info = store.tensors.get(name);
  if (info === undefined) throw new RangeError(`${store.path}: no tensor ${name}`);
  const rowBytes = bytesOfRows(info, 1);
  const length = rowBytes * (to - from);
  if (DIRECT.has(info.dtype) && files.holds(info)) {
    await files.read(info, from * rowBytes, target.subarray(0, length));
    return;
  }
  if (DIRECT.has(info.dtype)) {
    store.readInto(info, from * rowBytes, length, target);
    return;
  }
  const stored = new Uint8Array(length);
  store.readInto(info, from * rowBytes, length, stored);
  const values = new Float32Array(length / DTYPE_BYTES[info.dtype as MergeDType]);
  widenToF32(stored, info.dtype as MergeDType, values);
  target.set(new Uint8Array(values.buffer));
}

function bytesOfRows(info: TensorInfo, rows: number): number {
  const [first = 1] = info.shape;
  return first === 0 ? 0 : (byteLengthOf(info.dtype, info.shape) / first) * rows;
}

/** Elements of a row: all axes but the first. */
export function rowElements(shape: readonly number[]): number {
  return elementCount(shape.slice(1));
}

/** Rows of a tensor: its first axis; a scalar has one. */
export function rowCount(shape: readonly number[]): number {
  return shape.length === 0 ? 1 : shape[0];
}

interface FilesBeside {
  /** Whether the bytes of the tensor are a range of a file of the model as they stand. */
  holds(info: TensorInfo): boolean;
  read(info: TensorInfo, start: number, target: Uint8Array): Promise<void>;
  digests(): Promise<{ readonly file: string; readonly sha256: string; readonly bytes: number }[]>;
  close(): void;
}

/** A file of weights. Hashing takes its bytes in their order: whoever was read first is hashed first. */
interface HashedRange {
  readonly range: RangeFileBeside;
  readonly hash: ReadingHash | undefined;
  turn: Promise<void>;
}

function openFilesBeside(store: TensorStore, options: SourceOptions): FilesBeside {
  const files = new Map<string, HashedRange>();
  const plain = !('quantised' in store) && !('stored' in store);
  for (const { file } of store.tensors.values()) if (!files.has(file)) files.set(file, openHashed(file, options));
  return {
    holds: (info) => plain && files.has(info.file),
    async read(info, start, target): Promise<void> {
      const file = files.get(info.file);
      if (file === undefined) throw new RangeError(`${store.path}: ${info.file} is not open`);
      const position = info.offset + start;
      const before = file.turn;
      const reading = file.range.read(position, target, `tensor ${info.name}`);
      file.turn = reading.then(
        () => before.then(() => file.hash?.observe(position, target)),
        () => before,
      );
      await reading;
      await file.turn;
    },
    async digests() {
      const found: { file: string; sha256: string; bytes: number }[] = [];
      for (const [file, { range, hash }] of [...files].sort(([a], [b]) => (a < b ? -1 : 1)))
        if (hash) found.push({ file, bytes: range.size, sha256: await hash.hex() });
      return found;
    },
    close(): void {
      for (const { range } of files.values()) range.close();
    },
  };
}

function openHashed(file: string, { hashed, direct }: SourceOptions): HashedRange {
  const range = openRangeBeside(file, direct ? addressModulo : undefined);
  if (!hashed) return { range, hash: undefined, turn: Promise.resolve() };
  const hash = hashWhileReading(file);
  // The header was read by the store; it stands before the first tensor.
  withRange(file, (head) => {
    const length = new Uint8Array(8);
    head.readInto(0, 8, length);
    const header = new Uint8Array(8 + Number(new DataView(length.buffer).getBigUint64(0, true)));
    head.readInto(0, header.length, header);
    hash.observe(0, header);
    head.close();
  });
  return { range, hash, turn: Promise.resolve() };
}
