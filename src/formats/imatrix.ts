import { InputError } from '../errors.js';
import { type AtomicOptions, createAtomicFile } from './atomic.js';
import { decodeUtf8, openRange, quoted, type RangeFile } from './files.js';
import type { GgufEntry } from './ggml-types.js';
import { type GgufStore, openGguf } from './gguf.js';
import { createGgufWriter, type PlannedGgufTensor } from './gguf-writer.js';
import { elementCount } from './tensor.js';

/** What an importance matrix says of one tensor: how large the columns of its input are. */
export interface ImportanceEntry {
  /** Name of the weight in a GGUF file, such as `blk.0.attn_q.weight`. */
  readonly name: string;
  /** Mean of the squares of every input column, [matrices * columns]; a stack of experts has one row an expert. */
  readonly meanSquares: Float32Array;
  /**
   * Rows that were averaged for every matrix. The old format knows chunks alone (one number, not rows), and not how many
   * matrices there are.
   */
  readonly counts: Float32Array;
}

/** An importance matrix of llama.cpp. */
export interface ImportanceMatrix {
  readonly path: string;
  readonly format: 'gguf' | 'dat';
  /** Chunks of text that it was made of, where the file says so. */
  readonly chunks?: number;
  /** Tokens of a chunk, where the file says so. */
  readonly chunkTokens?: number;
  /** Names of the texts. */
  readonly datasets: readonly string[];
  readonly entries: ReadonlyMap<string, ImportanceEntry>;
}

const SUM_SUFFIX = '.in_sum2';
const COUNT_SUFFIX = '.counts';
/** More than any name in a model; a file that says more is of another format. */
const MOST_NAME_BYTES = 4096;

/**
 * Reads an importance matrix in either form, told apart by the first four bytes.
 *
 * GGUF (`general.type` = "imatrix"): for every weight `<name>.in_sum2` F32 [matrices, columns], sums of squares, and
 * `<name>.counts` F32 [matrices, 1], the rows summed. Binary `.dat`, little-endian: int32 number of entries; for each
 * int32 length and bytes of the name, int32 calls, int32 number of values, float32 values (means of squares times calls);
 * then, in newer files, int32 chunks, int32 length and bytes of the text's name.
 *
 * A matrix that no row reached has count 0 and importance 1 in every column, as llama.cpp reads it.
 * @throws InputError for a file of neither form, and for one that is truncated or holds what is no number
 */
export function openImatrix(path: string): ImportanceMatrix {
  const file = openRange(path);
  try {
    const magic = new Uint8Array(4);
    if (file.size >= 4) file.readInto(0, 4, magic);
    if (Buffer.from(magic).toString('latin1') !== 'GGUF') return readBinary(file);
  } finally {
    file.close();
  }
  const store = openGguf(path);
  try {
    return readGguf(store);
  } finally {
    store.close();
  }
}

function checkValues(path: string, name: string, values: Float32Array): void {
  const bad = values.findIndex((value) => !(value >= 0 && Number.isFinite(value)));
  if (bad >= 0) {
    throw new InputError(`${path}: importance ${values[bad]} of ${quoted(name)}, value ${bad}, is no sum of squares`);
  }
}

function readGguf(store: GgufStore): ImportanceMatrix {
  const { path, kv } = store;
  const entries = new Map<string, ImportanceEntry>();
  const floats = (name: string): Float32Array => {
    const tensor = store.tensors.get(name);
    if (!tensor)
      throw new InputError(`${path}: ${quoted(name)} is missing: not an importance matrix, or a damaged one`);
    if (tensor.dtype !== 'F32') throw new InputError(`${path}: ${quoted(name)} is ${tensor.dtype}, not F32`);
    const values = new Float32Array(elementCount(tensor.shape));
    store.readInto(tensor, 0, tensor.byteLength, new Uint8Array(values.buffer));
    checkValues(path, name, values);
    return values;
  };
  for (const stored of store.tensors.keys()) {
    if (!stored.endsWith(SUM_SUFFIX)) continue;
    const name = stored.slice(0, -SUM_SUFFIX.length);
    const sums = floats(stored);
    const counts = floats(name + COUNT_SUFFIX);
    const columns = sums.length / counts.length;
    if (!Number.isInteger(columns)) {
      throw new InputError(`${path}: ${quoted(stored)} has ${sums.length} values for ${counts.length} counts`);
    }
    const meanSquares = sums.map((sum, i) => {
      const count = counts[Math.floor(i / columns)];
      return count > 0 ? sum / count : 1;
    });
    entries.set(name, { name, meanSquares, counts });
  }
  if (entries.size === 0) {
    throw new InputError(`${path}: no tensor "*${SUM_SUFFIX}": a GGUF file, but not an importance matrix`);
  }
  const chunks = kv.get('imatrix.chunk_count');
  const chunkTokens = kv.get('imatrix.chunk_size');
  const datasets = kv.get('imatrix.datasets');
  return {
    path,
    format: 'gguf',
    entries,
    datasets: Array.isArray(datasets) ? datasets.filter((name): name is string => typeof name === 'string') : [],
    ...(typeof chunks === 'number' && { chunks }),
    ...(typeof chunkTokens === 'number' && { chunkTokens }),
  };
}

function readBinary(file: RangeFile): ImportanceMatrix {
  const { path, size } = file;
  let position = 0;
  const bytes = (count: number): Uint8Array => {
    const target = new Uint8Array(count);
    file.readInto(position, count, target);
    position += count;
    return target;
  };
  const int32 = (what: string, least: number, most: number): number => {
    const value = new DataView(bytes(4).buffer).getInt32(0, true);
    if (value >= least && value <= most) return value;
    throw new InputError(`${path}: ${value} as ${what} at byte ${position - 4}: not an importance matrix of llama.cpp`);
  };
  const text = (what: string): string => decodeUtf8(bytes(int32(what, 0, MOST_NAME_BYTES)), `${path}: ${what}`);

  if (size < 4) throw new InputError(`${path}: ${size} bytes: not an importance matrix of llama.cpp`);
  const entries = new Map<string, ImportanceEntry>();
  const declared = int32('number of entries', 1, Math.floor(size / 12));
  for (let e = 0; e < declared; e++) {
    const name = text('length of a name');
    const calls = int32(`calls of ${quoted(name)}`, 0, 2 ** 31 - 1);
    const length = int32(`number of values of ${quoted(name)}`, 1, Math.floor((size - position) / 4));
    const view = new DataView(bytes(4 * length).buffer);
    const meanSquares = new Float32Array(length);
    for (let i = 0; i < length; i++) meanSquares[i] = view.getFloat32(4 * i, true) / Math.max(calls, 1);
    checkValues(path, name, meanSquares);
    if (entries.has(name)) throw new InputError(`${path}: ${quoted(name)} stands twice: not a sound importance matrix`);
    entries.set(name, { name, meanSquares, counts: Float32Array.of(calls) });
  }
  const chunks = size - position >= 4 ? int32('number of chunks', 0, 2 ** 31 - 1) : undefined;
  const dataset = size - position >= 4 ? text('length of the name of the text') : undefined;
  return {
    path,
    format: 'dat',
    entries,
    datasets: dataset === undefined || dataset === '' ? [] : [dataset],
    ...(chunks !== undefined && { chunks }),
  };
}

/** What {@link writeImatrix} writes of one weight. */
export interface ImportanceSums {
  readonly name: string;
  /** Sums of squares, [matrices * columns]. */
  readonly sumSquares: ArrayLike<number>;
  /** Rows summed, [matrices]. */
  readonly counts: ArrayLike<number>;
}

export interface ImatrixSource {
  readonly chunks: number;
  readonly chunkTokens: number;
  readonly datasets: readonly string[];
}

/**
 * Writes an importance matrix that `llama-quantize --imatrix` reads: GGUF, or the old binary form where the name ends in
 * `.dat`. The old form has no counts of its own for the experts of a stack: one that no row reached gets 1 in every column.
 * @throws InputError when the output exists and neither `force` nor `resume` is given
 */
export function writeImatrix(
  path: string,
  entries: readonly ImportanceSums[],
  source: ImatrixSource,
  options: AtomicOptions = {},
): void {
  const sorted = [...entries].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  if (path.toLowerCase().endsWith('.dat')) writeBinary(path, sorted, source, options);
  else writeGguf(path, sorted, source, options);
}

function writeGguf(
  path: string,
  entries: readonly ImportanceSums[],
  source: ImatrixSource,
  options: AtomicOptions,
): void {
  const kv = new Map<string, GgufEntry>([
    ['general.type', { type: 'STRING', value: 'imatrix' }],
    ['imatrix.datasets', { type: { array: 'STRING' }, value: [...source.datasets] }],
    ['imatrix.chunk_count', { type: 'UINT32', value: source.chunks }],
    ['imatrix.chunk_size', { type: 'UINT32', value: source.chunkTokens }],
  ]);
  const plan = entries.flatMap(({ name, sumSquares, counts }): PlannedGgufTensor[] => {
    const matrices = counts.length;
    return [
      { name: name + SUM_SUFFIX, dtype: 'F32', shape: [matrices, sumSquares.length / matrices] },
      { name: name + COUNT_SUFFIX, dtype: 'F32', shape: [matrices, 1] },
    ];
  });
  const writer = createGgufWriter(path, { ...options, kv, plan });
  try {
    for (const { name, sumSquares, counts } of entries) {
      writer.write(name + SUM_SUFFIX, new Uint8Array(Float32Array.from(sumSquares).buffer));
      writer.write(name + COUNT_SUFFIX, new Uint8Array(Float32Array.from(counts).buffer));
    }
    writer.commit();
  } catch (error) {
    writer.abort();
    throw error;
  }
}

function writeBinary(
  path: string,
  entries: readonly ImportanceSums[],
  source: ImatrixSource,
  options: AtomicOptions,
): void {
  const int32 = (value: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32LE(value);
    return bytes;
  };
  const text = (value: string): Buffer => Buffer.concat([int32(Buffer.byteLength(value)), Buffer.from(value)]);
  const file = createAtomicFile(path, options);
  try {
    file.write(int32(entries.length));
    for (const { name, sumSquares, counts } of entries) {
      const columns = sumSquares.length / counts.length;
      const calls = Math.max(1, Math.ceil(Math.max(...Array.from(counts)) / source.chunkTokens));
      const values = Buffer.alloc(4 * sumSquares.length);
      for (let i = 0; i < sumSquares.length; i++) {
        const count = counts[Math.floor(i / columns)];
        values.writeFloatLE((count > 0 ? sumSquares[i] / count : 1) * calls, 4 * i);
      }
      file.write(Buffer.concat([text(name), int32(calls), int32(sumSquares.length), values]));
    }
    file.write(int32(source.chunks));
    file.write(text(source.datasets[0] ?? ''));
    file.commit();
  } catch (error) {
    file.abort();
    throw error;
  }
}
