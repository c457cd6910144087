import { didYouMean, InputError } from '../errors.js';
import type { AtomicOptions } from '../formats/atomic.js';
import { quoted } from '../formats/files.js';
import { openSafetensors } from '../formats/safetensors.js';
import { createSafetensorsWriter, type PlannedTensor } from '../formats/safetensors-writer.js';
import type { TensorInfo, TensorStore } from '../formats/tensor.js';

/** Key of `__metadata__` under which the header lies, as JSON. */
const METADATA_KEY = 'surprisal_hessians';
const VERSION = 1;
const READ_BYTES = 16 << 20;
/** Side of the squares in which the lower triangle is copied to the upper one: two of them fit a first-level cache. */
const MIRROR_TILE = 32;

/** One input of linears: what a Hessian belongs to. */
export interface HessianInput {
  readonly name: string;
  readonly columns: number;
  /** Names of the weights that read it, in Hugging Face checkpoints, in GGUF files and as stored. */
  readonly weights: readonly string[];
}

/** What a file of Hessians says of itself. */
export interface HessianHeader {
  readonly modelType: string;
  /** Of the weights and the configuration, see `hashModel`. */
  readonly modelSha256: string;
  /** Tokens of the calibration text that ran through the model; an expert sees some of them. */
  readonly tokens: number;
  /** Tokens of a window. */
  readonly windowTokens: number;
  /** SHA-256 of the token ids, window after window, as little-endian int32. */
  readonly textSha256: string;
  /** Arithmetic of the forward pass. */
  readonly precision: 'f32' | 'f64';
  /** Type in which the triangles are stored. */
  readonly stored: 'F32' | 'F64';
  readonly inputs: readonly HessianInput[];
}

/** Entries of the lower triangle of [columns, columns], diagonal included. */
export function triangleLength(columns: number): number {
  return (columns * (columns + 1)) / 2;
}

const tensorName = {
  hessian: (input: string): string => `${input}.hessian`,
  squares: (input: string): string => `${input}.sum_squares`,
  tokens: (input: string): string => `${input}.tokens`,
};

/** Writes Hessians one after the other; a file gets its name when all are there. */
export interface HessianWriter {
  /** Appends rows of the lower triangle of an input, packed (row r has r + 1 entries), already normalised. */
  writeRows(input: string, rows: Float32Array | Float64Array): void;
  /** Tokens that reached the input, and the sum of squares of every column over them, [columns]. */
  finishInput(input: string, tokens: number, sumSquares: Float64Array): void;
  commit(): void;
  abort(): void;
}

/**
 * Opens a file of Hessians for writing. Format: safetensors; `__metadata__["surprisal_hessians"]` is JSON with `version`
 * 1, `normalisation` "per token, factor 2", `triangle` "lower, packed by rows" and the {@link HessianHeader}. For every
 * input x of `inputs` there are
 *
 * - `x.hessian` F32 or F64 [n (n + 1) / 2]: lower triangle of `H = (2 / N) sum_t x_t x_t^T`, row after row;
 * - `x.sum_squares` F64 [n]: `sum_t x_t^2` of every column;
 * - `x.tokens` I64 [1]: N, the rows that reached the input (of an expert: the tokens that chose it). With N = 0 both
 *   are zero.
 * @throws InputError when the output exists and neither `force` nor `resume` is given
 */
export function createHessianWriter(path: string, header: HessianHeader, options: AtomicOptions = {}): HessianWriter {
  const plan = header.inputs.flatMap(({ name, columns }): PlannedTensor[] => [
    { name: tensorName.hessian(name), dtype: header.stored, shape: [triangleLength(columns)] },
    { name: tensorName.squares(name), dtype: 'F64', shape: [columns] },
    { name: tensorName.tokens(name), dtype: 'I64', shape: [1] },
  ]);
  const described = { version: VERSION, normalisation: 'per token, factor 2', triangle: 'lower, packed by rows' };
  const metadata = { [METADATA_KEY]: JSON.stringify({ ...described, ...header }) };
  const writer = createSafetensorsWriter(path, { ...options, plan, metadata });
  const bytesOf = (data: Float32Array | Float64Array | BigInt64Array): Uint8Array =>
    new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return {
    writeRows(input, rows) {
      if (rows instanceof Float32Array !== (header.stored === 'F32')) {
        throw new TypeError(`rows of ${input} are not of type ${header.stored}`);
      }
      writer.write(tensorName.hessian(input), bytesOf(rows));
    },
    finishInput(input, tokens, sumSquares) {
      writer.write(tensorName.squares(input), bytesOf(sumSquares));
      writer.write(tensorName.tokens(input), bytesOf(BigInt64Array.of(BigInt(tokens))));
    },
    commit: () => writer.commit(),
    abort: () => writer.abort(),
  };
}

/** The Hessian of one input. */
export interface StoredHessian {
  readonly columns: number;
  /** Rows that reached the input; with 0 the Hessian is zero. */
  readonly tokens: number;
  /** [columns, columns], symmetric. */
  readonly H: Float64Array;
}

/** A file of Hessians; matrices are read when they are asked for. */
export interface Hessians {
  readonly path: string;
  readonly header: HessianHeader;
  /** Names of the inputs, in the order of the model. */
  readonly inputs: readonly string[];
  /**
   * The input that a weight reads, by its name in a Hugging Face checkpoint, in a GGUF file (`...#3` for expert 3 of a
   * stack) or in the model that was calibrated; undefined for weights without one.
   */
  inputOf(weight: string): string | undefined;
  /** @throws InputError for an unknown input, RunError or InputError for a file that cannot be read */
  get(input: string): StoredHessian;
  /** Without the matrix: rows that reached the input and sums of squares, [columns]. */
  moments(input: string): { readonly columns: number; readonly tokens: number; readonly sumSquares: Float64Array };
  close(): void;
}

/**
 * Opens a file that {@link createHessianWriter} wrote. Header, names, types and shapes are checked at once; entries when
 * they are read.
 * @param modelSha256 refuses a file whose model has another hash
 * @throws InputError for a file that is damaged, of another format or version, or of another model
 */
export function openHessians(path: string, modelSha256?: string): Hessians {
  const store = openSafetensors(path);
  try {
    const header = readHeader(path, store);
    if (modelSha256 !== undefined && header.modelSha256 !== modelSha256) {
      throw new InputError(
        `${path}: Hessians of another model (${header.modelType}, sha256 ${header.modelSha256.slice(0, 12)}, not ` +
          `${modelSha256.slice(0, 12)}): name another file, or delete it and it is made anew`,
      );
    }
    return readerOf(path, store, header);
  } catch (error) {
    store.close();
    throw error;
  }
}

function readerOf(path: string, store: TensorStore, header: HessianHeader): Hessians {
  const byName = new Map(header.inputs.map((input) => [input.name, input]));
  const byWeight = new Map(header.inputs.flatMap(({ name, weights }) => weights.map((weight) => [weight, name])));
  const find = (name: string): HessianInput => {
    const input = byName.get(name);
    if (!input) throw new InputError(`${path}: no input ${quoted(name)}${didYouMean(name, byName.keys())}`);
    return input;
  };
  const tensorOf = (name: string): TensorInfo => {
    const tensor = store.tensors.get(name);
    if (!tensor) throw new InputError(`${path}: tensor ${quoted(name)} is missing: delete the file and make it anew`);
    return tensor;
  };
  const tokensOf = (name: string): number => {
    const bytes = new Uint8Array(8);
    store.readInto(tensorOf(tensorName.tokens(name)), 0, 8, bytes);
    return Number(new DataView(bytes.buffer).getBigInt64(0, true));
  };
  for (const { name, columns } of header.inputs) {
    checkTensor(path, tensorOf(tensorName.hessian(name)), header.stored, triangleLength(columns));
    checkTensor(path, tensorOf(tensorName.squares(name)), 'F64', columns);
    checkTensor(path, tensorOf(tensorName.tokens(name)), 'I64', 1);
    const tokens = tokensOf(name);
    if (!(tokens >= 0 && Number.isSafeInteger(tokens))) throw new InputError(`${path}: ${name}: ${tokens} tokens`);
  }
  return {
    path,
    header,
    inputs: header.inputs.map(({ name }) => name),
    inputOf: (weight) => byWeight.get(weight),
    get(name) {
      const { columns } = find(name);
      const H = new Float64Array(columns * columns);
      readTriangle(store, tensorOf(tensorName.hessian(name)), columns, H);
      for (let i = 0; i < H.length; i++) {
        if (!Number.isFinite(H[i])) {
          throw new InputError(`${path}: ${name}: entry ${Math.floor(i / columns)}, ${i % columns} is not finite`);
        }
      }
      return { columns, tokens: tokensOf(name), H };
    },
    moments(name) {
      const { columns } = find(name);
      const sumSquares = new Float64Array(columns);
      const bytes = new Uint8Array(sumSquares.buffer);
      store.readInto(tensorOf(tensorName.squares(name)), 0, bytes.length, bytes);
      return { columns, tokens: tokensOf(name), sumSquares };
    },
    close: () => store.close(),
  };
}

function checkTensor(path: string, tensor: TensorInfo, dtype: string, length: number): void {
  if (tensor.dtype === dtype && tensor.shape.length === 1 && tensor.shape[0] === length) return;
  throw new InputError(
    `${path}: tensor ${quoted(tensor.name)} is ${tensor.dtype} [${tensor.shape}], not ${dtype} [${length}]: not a file ` +
      'of Hessians, or a damaged one',
  );
}

/** Reads a packed lower triangle into a symmetric matrix [n, n]. */
function readTriangle(store: TensorStore, tensor: TensorInfo, n: number, target: Float64Array): void {
  const width = tensor.dtype === 'F32' ? 4 : 8;
  const buffer = new Uint8Array(Math.max(READ_BYTES, n * width));
  const values = width === 4 ? new Float32Array(buffer.buffer) : new Float64Array(buffer.buffer);
  let position = 0;
  for (let row = 0; row < n; ) {
    let last = row;
    let count = 0;
    while (last < n && (count + last + 1) * width <= buffer.length) {
      count += last + 1;
      last++;
    }
    store.readInto(tensor, position, count * width, buffer);
    position += count * width;
    let at = 0;
    for (; row < last; row++) {
      target.set(values.subarray(at, at + row + 1), row * n);
      at += row + 1;
    }
  }
  for (let i = 0; i < n; i += MIRROR_TILE) {
    for (let j = 0; j <= i; j += MIRROR_TILE) mirrorTile(target, n, i, j);
  }
}

/** Copies the entries below the diagonal of one square tile to their places above it. */
function mirrorTile(target: Float64Array, n: number, row: number, column: number): void {
  for (let i = row; i < Math.min(row + MIRROR_TILE, n); i++) {
    for (let j = column; j < Math.min(column + MIRROR_TILE, i); j++) target[j * n + i] = target[i * n + j];
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isCount = (value: unknown): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value > 0;
const isText = (value: unknown): value is string => typeof value === 'string';

function readHeader(path: string, store: TensorStore): HessianHeader {
  const text = store.metadata[METADATA_KEY];
  if (text === undefined) throw new InputError(`${path}: not a file of Hessians: its metadata lack "${METADATA_KEY}"`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new InputError(`${path}: the header of the Hessians is not valid JSON: delete the file and make it anew`);
  }
  if (!isRecord(value)) throw new InputError(`${path}: the header of the Hessians is not an object`);
  if (value.version !== VERSION) {
    throw new InputError(`${path}: Hessians of version ${String(value.version)}; this version reads ${VERSION}`);
  }
  const bad = (key: string): never => {
    throw new InputError(`${path}: the header of the Hessians has a wrong "${key}": delete the file and make it anew`);
  };
  const { modelType, modelSha256, tokens, windowTokens, textSha256, precision, stored, inputs } = value;
  if (value.normalisation !== 'per token, factor 2') bad('normalisation');
  if (value.triangle !== 'lower, packed by rows') bad('triangle');
  if (!isText(modelType)) return bad('modelType');
  if (!isText(modelSha256)) return bad('modelSha256');
  if (!isText(textSha256)) return bad('textSha256');
  if (!isCount(tokens)) return bad('tokens');
  if (!isCount(windowTokens)) return bad('windowTokens');
  if (precision !== 'f32' && precision !== 'f64') return bad('precision');
  if (stored !== 'F32' && stored !== 'F64') return bad('stored');
  if (!Array.isArray(inputs)) return bad('inputs');
  const checked = inputs.map((input: unknown): HessianInput => {
    if (!isRecord(input)) return bad('inputs');
    const { name, columns, weights } = input;
    if (!isText(name) || !isCount(columns) || !Array.isArray(weights) || !weights.every(isText)) return bad('inputs');
    return { name, columns, weights };
  });
  return { modelType, modelSha256, tokens, windowTokens, textSha256, precision, stored, inputs: checked };
}
