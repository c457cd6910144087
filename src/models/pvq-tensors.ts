import { InputError } from '../errors.js';
import { quoted } from '../formats/files.js';
import { byteLengthOf } from '../formats/ggml-blocks.js';
import {
  matrixOf,
  PVQ_KEY,
  PVQ_PARTS,
  type PvqMatrix,
  type PvqPart,
  type PvqTensor,
  parsePayloadName,
  parsePvqMetadata,
  payloadName,
  payloadPlan,
} from '../formats/pvq.js';
import { type DType, elementCount, type TensorInfo, type TensorStore } from '../formats/tensor.js';
import { widenToF32 } from '../kernels/dtypes.js';
import { rotateRows } from '../kernels/hadamard.js';
import { type EncodedRows, rowCodeBytes, rowGroups, rowIndexBytes, wordBits } from '../kernels/pyramid.js';
import { dequantizeRows } from '../kernels/pyramid-index.js';
import { type Rotation, restoreRotation } from '../linalg/hadamard.js';

/** A quantised tensor whose parts are all there and have the sizes that its metadata ask for. */
export interface StoredPvqTensor {
  readonly tensor: PvqTensor;
  /** Rows as stored: out, of all matrices of a stack. */
  readonly matrix: PvqMatrix;
  /** The file that holds its parts. */
  readonly file: string;
  readonly parts: ReadonlyMap<PvqPart, TensorInfo>;
  /** Seed of the run that wrote it. */
  readonly seed: string;
}

/** The quantised tensors of a store, by name, in the order of the store; empty for a store of plain tensors. */
export type PvqTensors = ReadonlyMap<string, StoredPvqTensor>;

/**
 * Finds the quantised tensors of a store and holds their parts against the metadata of the file they lie in.
 * @throws InputError naming file and tensor: metadata that are damaged or of another version, a part that is missing,
 * of another type or size, in another file, or that belongs to no tensor; K that overflows the index word.
 */
export function findPvqTensors(store: TensorStore): PvqTensors {
  const described = new Map<string, StoredPvqTensor>();
  const files = store.fileMetadata ?? new Map([[store.path, store.metadata]]);
  const texts = [...files].flatMap(([file, metadata]) =>
    Object.hasOwn(metadata, PVQ_KEY) ? [[file, metadata[PVQ_KEY]] as const] : [],
  );
  if (texts.length === 0 && ![...store.tensors.values()].some(isPayload)) return described;
  for (const [file, text] of texts) {
    const { seed, tensors } = parsePvqMetadata(text, file);
    for (const tensor of tensors) {
      const where = `${file}: tensor ${quoted(tensor.name)}`;
      if (described.has(tensor.name)) throw new InputError(`${where} is described twice`);
      if (store.tensors.has(tensor.name)) throw new InputError(`${where} is stored both plain and quantised`);
      described.set(tensor.name, locate(store, tensor, file, seed));
    }
  }
  return inStoredOrder(store, described);
}

/** A payload's name alone proves nothing; with the type of packed indices it does. */
function isPayload(info: TensorInfo): boolean {
  return info.dtype === 'U8' && info.shape.length === 2 && parsePayloadName(info.name)?.part === 'index';
}

function inStoredOrder(store: TensorStore, described: ReadonlyMap<string, StoredPvqTensor>): PvqTensors {
  const ordered = new Map<string, StoredPvqTensor>();
  for (const info of store.tensors.values()) {
    const payload = parsePayloadName(info.name);
    if (payload === undefined) continue;
    const stored = described.get(payload.tensor);
    if (stored === undefined) {
      if (!isPayload(info)) continue;
      throw new InputError(
        `${info.file}: tensor ${quoted(info.name)} has no entry in __metadata__.${PVQ_KEY}: the metadata were lost when the file was written anew`,
      );
    }
    if (stored.parts.get(payload.part) === undefined)
      throw new InputError(`${info.file}: tensor ${quoted(info.name)} belongs to no part that its metadata ask for`);
    ordered.set(payload.tensor, stored);
  }
  return ordered;
}

function locate(store: TensorStore, tensor: PvqTensor, file: string, seed: string): StoredPvqTensor {
  const where = `${file}: tensor ${quoted(tensor.name)}`;
  const matrix = matrixOf(tensor.shape, tensor.transposed);
  const at = (part: PvqPart): TensorInfo | undefined => store.tensors.get(payloadName(tensor.name, part));
  const scale = at('scale');
  const wanted = payloadPlan(tensor, {
    ...rowBytes(tensor, matrix, at('index'), where),
    wideScales: scale?.dtype === 'F32',
    zeroGroups: at('zero') !== undefined,
  });
  const parts = new Map<PvqPart, TensorInfo>();
  for (const { name, dtype, shape } of wanted) {
    const part = parsePayloadName(name)?.part;
    const info = store.tensors.get(name);
    if (part === undefined || info === undefined || info.file !== file)
      throw new InputError(`${file}: tensor ${quoted(name)} is missing: fetch or write the file again`);
    if (info.dtype !== dtype || info.shape.join() !== shape.join())
      throw new InputError(
        `${file}: tensor ${quoted(name)} is ${info.dtype} [${info.shape.join(', ')}], ${byteLengthOf(info.dtype, info.shape)} bytes, where its metadata ask for ${dtype} [${shape.join(', ')}], ${byteLengthOf(dtype, shape)} bytes`,
      );
    parts.set(part, info);
  }
  return { tensor, matrix, file, parts, seed };
}

/** Bytes of a row of packed indices and of gain codes, as D, K and the super-group ask for. */
function rowBytes(tensor: PvqTensor, matrix: PvqMatrix, index: TensorInfo | undefined, where: string) {
  const { code } = tensor;
  const groups = rowGroups(matrix.columns, code.groupLength);
  // N(D, K) >= 2^min(D, K): what cannot fit is refused before big numbers are formed for it.
  const least = groups * Math.min(code.groupLength, code.pulses);
  if (index !== undefined && least > 8 * Number(index.shape.at(-1) ?? 0))
    throw new InputError(
      `${where}: K = ${code.pulses} overflows its index: ${groups} groups of D = ${code.groupLength} take ${least} bits a row at least, and ${8 * Number(index.shape.at(-1) ?? 0)} are stored`,
    );
  const bits = wordBits(code);
  if (bits !== tensor.wordBits)
    throw new InputError(
      `${where}: K = ${code.pulses} overflows its index word: ${code.superGroup} indices of P(${code.groupLength}, ${code.pulses}) take ${bits} bits, the metadata say ${tensor.wordBits}`,
    );
  return { indexRowBytes: rowIndexBytes(code, groups), gainRowBytes: rowCodeBytes(code.gainBits, groups) };
}

/** Reads and decodes rows of quantised tensors; what belongs to a whole tensor (levels, rotation) is kept. */
export interface PvqDecoder {
  /** Rows firstRow to firstRow + rowCount - 1 as stored. */
  encoded(stored: StoredPvqTensor, firstRow: number, rowCount: number): EncodedRows;
  /** undefined where rows are stored as they are. */
  rotation(stored: StoredPvqTensor): Rotation | undefined;
  /**
   * The weights of those rows [rowCount, columns], un-rotated.
   * @throws InputError naming file, tensor and row: an index outside of the pyramid, a scale or level that is no number.
   */
  decode(stored: StoredPvqTensor, firstRow: number, rowCount: number, target: Float32Array): void;
}

/** Fewer weights than this are decoded by the calling thread. */
const FEW_WEIGHTS = 1 << 16;

interface Whole {
  readonly levels: Float32Array;
  readonly rotation: Rotation | undefined;
}

export function createPvqDecoder(store: TensorStore, threads?: number): PvqDecoder {
  const whole = new Map<string, Whole>();

  const readBytes = (info: TensorInfo | undefined, start: number, length: number): Uint8Array => {
    const bytes = new Uint8Array(length);
    if (info !== undefined) store.readInto(info, start, length, bytes);
    return bytes;
  };
  /** A range of rows of one part. */
  const readRows = (stored: StoredPvqTensor, part: PvqPart, firstRow: number, rowCount: number): Uint8Array => {
    const info = stored.parts.get(part);
    const perRow = (info?.byteLength ?? 0) / stored.matrix.rows;
    return readBytes(info, firstRow * perRow, rowCount * perRow);
  };
  const readFloats = (info: TensorInfo | undefined, first: number, count: number): Float32Array => {
    const bytesEach = info === undefined ? 0 : info.byteLength / elementCount(info.shape);
    const target = new Float32Array(count);
    const bytes = readBytes(info, first * bytesEach, count * bytesEach);
    widenToF32(bytes, (info?.dtype ?? 'F32') as DType, target, 1);
    return target;
  };
  const wholeOf = (stored: StoredPvqTensor): Whole => {
    const { tensor, matrix, parts } = stored;
    const known = whole.get(tensor.name);
    if (known !== undefined) return known;
    const levels = readFloats(parts.get('levels'), 0, 2 ** tensor.code.gainBits);
    checkLevels(stored, levels);
    const sign = parts.get('sign');
    const read = { levels, rotation: restore(stored, readBytes(sign, 0, sign?.byteLength ?? 0), matrix.columns) };
    whole.set(tensor.name, read);
    return read;
  };

  const encoded = (stored: StoredPvqTensor, firstRow: number, rowCount: number): EncodedRows => {
    const { tensor, matrix, parts } = stored;
    const scales = readFloats(parts.get('scale'), firstRow, rowCount);
    const bad = scales.findIndex((scale) => !Number.isFinite(scale));
    if (bad >= 0)
      throw new InputError(
        `${stored.file}: tensor ${quoted(tensor.name)}, row ${firstRow + bad}: its scale is ${scales[bad]}: damaged, fetch or write the file again`,
      );
    return {
      rows: rowCount,
      columns: matrix.columns,
      code: tensor.code,
      index: readRows(stored, 'index', firstRow, rowCount),
      gain: readRows(stored, 'gain', firstRow, rowCount),
      scales,
      levels: wholeOf(stored).levels,
      ...(parts.has('zero') && { zeroGroups: readRows(stored, 'zero', firstRow, rowCount) }),
    };
  };
  return {
    encoded,
    rotation: (stored) => wholeOf(stored).rotation,
    decode(stored, firstRow, rowCount, target): void {
      const rows = encoded(stored, firstRow, rowCount);
      // A row of an embedding is decoded sooner than other threads are woken.
      const wanted = target.length < FEW_WEIGHTS ? 1 : threads;
      try {
        dequantizeRows(rows, target, wanted === undefined ? {} : { threads: wanted });
      } catch (error) {
        throw atRow(error, stored, firstRow);
      }
      const { rotation } = wholeOf(stored);
      if (rotation !== undefined) rotateRows(target, rowCount, rotation, 'inverse', wanted);
    },
  };
}

/** An error of the kernels counts rows from the first that was given; the message names file, tensor and row. */
export function atRow(error: unknown, stored: StoredPvqTensor, firstRow: number): unknown {
  if (!(error instanceof InputError)) return error;
  const text = error.message.replace(/^row (\d+)/, (_, row) => `row ${firstRow + Number(row)}`);
  return new InputError(
    `${stored.file}: tensor ${quoted(stored.tensor.name)}, ${text}: damaged, fetch or write the file again`,
  );
}

function checkLevels(stored: StoredPvqTensor, levels: Float32Array): void {
  const bad = levels.findIndex((level, i) => !Number.isFinite(level) || (i > 0 && level < levels[i - 1]));
  if (bad >= 0)
    throw new InputError(
      `${stored.file}: tensor ${quoted(payloadName(stored.tensor.name, 'levels'))}: level ${bad} is ${levels[bad]}, levels are finite and ascend: damaged, fetch or write the file again`,
    );
}

function restore(stored: StoredPvqTensor, signs: Uint8Array, columns: number): Rotation | undefined {
  const { rotation } = stored.tensor;
  if (rotation === null) return undefined;
  try {
    return restoreRotation(columns, rotation, signs);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new InputError(`${stored.file}: tensor ${quoted(stored.tensor.name)}: ${error.message}: damaged metadata`);
  }
}

/** The parts of a tensor in the order of its checksum. */
export function partsInOrder(stored: StoredPvqTensor): TensorInfo[] {
  return PVQ_PARTS.flatMap((part) => stored.parts.get(part) ?? []);
}
