import { InputError } from '../../errors.js';
import type { AtomicOptions } from '../../formats/atomic.js';
import { byteLengthOf, GGML_BLOCKS, isBlockType } from '../../formats/ggml-blocks.js';
import type { GgufEntry } from '../../formats/ggml-types.js';
import { openGguf } from '../../formats/gguf.js';
import { createGgufWriter, type PlannedGgufTensor } from '../../formats/gguf-writer.js';
import { DTYPE_BYTES, type DType, elementCount, type GgmlBlockType } from '../../formats/tensor.js';
import { type NarrowDType, narrowFromF32 } from '../../kernels/dtypes.js';
import type { ModelFiles } from '../../models/model-files.js';
import { GGUF_NAMES } from '../../models/weight-names.js';
import { createWeightReader, type StoredWeight } from '../../models/weights.js';
import {
  type CarrierCheck,
  checkExportable,
  describeRows,
  type ExportRows,
  type ExportShape,
  requantize,
  startCheck,
  wholeRows,
  writeCarrier,
} from './carriers.js';
import { carrierType, type ExportFormat, isLossy, type LossyFormat } from './export-format.js';
import { ggufMetadata } from './gguf-metadata.js';

/** Coded matrices by the name of the source's tensor; a stack of matrices is one, all its rows together. */
export interface EncodedTensors {
  has(name: string): boolean;
  /** Called once or more for each name that `has`; may decode, read or encode then. */
  get(name: string): ExportRows;
  /** What `get` will give, where that is known without doing the work; planning asks for it. */
  describe?(name: string): ExportShape;
}

export interface ExportOptions extends AtomicOptions {
  readonly threads?: number;
}

/** What became of one coded tensor. */
export interface ExportedTensor {
  /** Of the source. */
  readonly name: string;
  /** In the file. */
  readonly storedName: string;
  readonly type: string;
  readonly rows: number;
  readonly columns: number;
  readonly bytes: number;
  /** Quantised a second time: `check` holds the error that this added. */
  readonly lossy: boolean;
  readonly check: CarrierCheck;
}

export interface ExportReport {
  readonly format: ExportFormat | LossyFormat;
  readonly path: string;
  readonly tensors: readonly ExportedTensor[];
  /** Bytes of all tensors, coded and not. */
  readonly tensorBytes: number;
  /** Weights of all tensors. */
  readonly weights: number;
  readonly notes: readonly string[];
}

/** `general.file_type` of llama.cpp (`llama_ftype`). */
const FILE_TYPES: Readonly<Partial<Record<ExportFormat | LossyFormat, number>>> = {
  'gguf-q4_1': 3,
  'gguf-q5_0': 8,
  'gguf-q5_1': 9,
  'gguf-q4_k': 14,
  'gguf-q5_k': 16,
  'gguf-iq4_nl': 25,
  'gguf-q4_0': 2,
  'gguf-q8_0': 7,
  'gguf-q2_k': 10,
  'gguf-q3_k': 11,
  'gguf-q6_k': 18,
};

/** Rows in flight, as weights. */
const BAND_WEIGHTS = 1 << 20;

/** One tensor of the file: the source's matrices that lie in it one after the other. */
interface FileTensor {
  readonly planned: PlannedGgufTensor;
  readonly parts: readonly FilePart[];
  readonly coded: boolean;
}

interface FilePart {
  readonly weight: StoredWeight;
  /** Rows are stored interleaved within heads of this size. */
  readonly interleave?: number;
}

/**
 * Writes a model as a GGUF file in which coded tensors have a block type that holds them exactly and all others keep
 * their type. A GGUF source keeps its metadata. Every block is decoded again and compared.
 * @throws InputError for what GGUF or the format cannot hold, by name, before anything is written
 */
export function exportGguf(
  format: ExportFormat | LossyFormat,
  source: ModelFiles,
  encoded: EncodedTensors,
  target: string,
  options: ExportOptions = {},
): ExportReport {
  const type = carrierType(format);
  if (type === undefined) throw new RangeError(`${format} is no format of GGUF`);
  const plan =
    source.format === 'gguf'
      ? planFromGguf(source, format, encoded, type)
      : planFromDirectory(source, format, encoded, type);
  const writer = createGgufWriter(target, {
    ...options,
    kv: plan.pairs,
    plan: plan.tensors.map(({ planned }) => planned),
  });
  const exported: ExportedTensor[] = [];
  try {
    for (const tensor of plan.tensors) {
      if (tensor.coded) exported.push(...writeCoded(writer, tensor, format, encoded, options));
      else writePlain(writer, tensor, plan.values, options);
    }
    writer.commit();
  } catch (error) {
    writer.abort();
    throw error;
  }
  const { tensorBytes, weights } = sizes(plan.tensors);
  return { format, path: target, tensors: exported, tensorBytes, weights, notes: plan.notes };
}

interface FilePlan {
  readonly pairs: ReadonlyMap<string, GgufEntry>;
  readonly tensors: readonly FileTensor[];
  /** Tensors that no stored one stands for. */
  readonly values: ReadonlyMap<string, Float32Array>;
  readonly notes: readonly string[];
}

/** A GGUF source keeps names, order and metadata; only the type of most tensors is another. */
function planFromGguf(
  source: ModelFiles,
  format: ExportFormat | LossyFormat,
  encoded: EncodedTensors,
  type: GgmlBlockType,
): FilePlan {
  const original = openGguf(source.path);
  const pairs = new Map<string, GgufEntry>();
  for (const [key, value] of original.kv) {
    const valueType = original.kvTypes.get(key);
    if (valueType !== undefined && !key.startsWith('split.')) pairs.set(key, { type: valueType, value });
  }
  original.close();
  pairs.set('general.file_type', { type: 'UINT32', value: FILE_TYPES[format] ?? 0 });
  pairs.set('general.quantization_version', { type: 'UINT32', value: 2 });
  const { store } = source;
  const tensors = [...store.tensors.values()].map((tensor): FileTensor => {
    const coded = encoded.has(tensor.name);
    if (coded) checkFits(tensor.name, shapeOf(encoded, tensor.name), format);
    return {
      planned: { name: tensor.name, dtype: coded ? type : tensor.dtype, shape: tensor.shape },
      parts: [{ weight: { store, tensor, start: 0, byteLength: tensor.byteLength, shape: tensor.shape } }],
      coded,
    };
  });
  return { pairs, tensors, values: new Map(), notes: [] };
}

function planFromDirectory(
  source: ModelFiles,
  format: ExportFormat | LossyFormat,
  encoded: EncodedTensors,
  type: GgmlBlockType,
): FilePlan {
  const { pairs, interleaved, ropeFactors, notes } = ggufMetadata(source, FILE_TYPES[format] ?? 0);
  const { weights, description: model } = source;
  const tensors: FileTensor[] = [];
  const add = (name: string, parts: readonly FilePart[], stacked: boolean, plain: DType | undefined): void => {
    tensors.push(fileTensor(name, parts, stacked, plain, { format, encoded, type }));
  };
  add(GGUF_NAMES.embedding[0], [{ weight: weights.embedding }], false, undefined);
  if (!model.tiedHead) add(GGUF_NAMES.head[0], [{ weight: weights.head }], false, undefined);
  add(GGUF_NAMES.finalNorm[0], [{ weight: weights.finalNorm }], false, 'F32');
  weights.layers.forEach((layer, index) => {
    const { headDim } = model.layers[index].attention;
    const gathered = new Map<
      string,
      { readonly role: string; readonly parts: FilePart[]; readonly stacked: boolean }
    >();
    for (const [role, weight] of layer) {
      const template = GGUF_NAMES.layer[role.replace(/^expert\.\d+/, 'expert.{e}')]?.[0];
      if (template === undefined) throw new InputError(`${source.path}: "${weight.tensor.name}" has no name in GGUF`);
      const name = template.replace('{i}', String(index)).replace('#{e}', '');
      const turned = interleaved && /^[qk](_bias)?$/.test(role);
      const part: FilePart = { weight, ...(turned && { interleave: headDim }) };
      const together = gathered.get(name);
      if (together) together.parts.push(part);
      else gathered.set(name, { role, parts: [part], stacked: template.endsWith('#{e}') });
    }
    for (const [name, { role, parts, stacked }] of gathered) {
      add(name, parts, stacked, /router$/.test(role) ? 'F32' : undefined);
    }
  });
  const values = new Map<string, Float32Array>();
  if (ropeFactors) {
    values.set('rope_freqs.weight', ropeFactors);
    const planned = { name: 'rope_freqs.weight', dtype: 'F32', shape: [ropeFactors.length] } as const;
    tensors.push({ planned, parts: [], coded: false });
  }
  return { pairs, tensors, values, notes };
}

function fileTensor(
  name: string,
  parts: readonly FilePart[],
  stacked: boolean,
  plain: DType | undefined,
  settings: {
    readonly format: ExportFormat | LossyFormat;
    readonly encoded: EncodedTensors;
    readonly type: GgmlBlockType;
  },
): FileTensor {
  const { format, encoded, type } = settings;
  const coded = parts.filter(({ weight }) => encoded.has(weight.tensor.name));
  const [first] = parts;
  if (coded.length > 0 && coded.length < parts.length) {
    const missing = parts.find(({ weight }) => !encoded.has(weight.tensor.name)) ?? first;
    throw new InputError(
      `"${missing.weight.tensor.name}" is not quantised, other experts of "${name}" are: GGUF holds them in one tensor`,
    );
  }
  for (const { weight } of coded) {
    const { name: tensor } = weight.tensor;
    const shape = shapeOf(encoded, tensor);
    checkFits(tensor, shape, format);
    if (shape.rows * shape.columns !== elementCount(weight.shape)) {
      throw new RangeError(`"${tensor}" is coded as [${shape.rows}, ${shape.columns}], not [${weight.shape}]`);
    }
  }
  // llama.cpp adds and multiplies by vectors in f32 only.
  const shape =
    first.weight.shape.length === 2 && first.weight.shape[0] === 1 ? [first.weight.shape[1]] : first.weight.shape;
  const dtype = coded.length > 0 ? type : shape.length === 1 ? 'F32' : (plain ?? plainType(first.weight));
  return {
    planned: { name, dtype, shape: stacked ? [parts.length, ...shape] : shape },
    parts,
    coded: coded.length > 0,
  };
}

/** How a matrix that is not coded is stored. */
function plainType({ tensor }: StoredWeight): DType | GgmlBlockType {
  if (isBlockType(tensor.dtype) || ['F32', 'F16', 'BF16'].includes(tensor.dtype)) return tensor.dtype;
  return tensor.dtype === 'F64' ? 'F32' : 'F16';
}

/** The shape and code of a coded tensor, without its codes where they need not exist yet. */
export function shapeOf(encoded: EncodedTensors, name: string): ExportShape {
  return encoded.describe?.(name) ?? describeRows(encoded.get(name));
}

function checkFits(name: string, shape: ExportShape, format: ExportFormat | LossyFormat): void {
  if (!isLossy(format)) {
    checkExportable(name, shape, format);
    return;
  }
  const type = carrierType(format) as GgmlBlockType;
  const { blockElements } = GGML_BLOCKS[type];
  if (shape.columns % blockElements === 0) return;
  throw new InputError(
    `tensor "${name}" cannot be stored as ${format}: rows of ${shape.columns} weights are not a whole number of blocks ` +
      `of ${blockElements}; keep it as it is with --keep, or choose another format`,
  );
}

interface Sink {
  write(name: string, bytes: Uint8Array): void;
}

/** Bands of rows that end where blocks of `unit` rows do. */
function* bands(rows: number, columns: number, unit: number): Generator<[first: number, count: number]> {
  const most = Math.max(1, Math.floor(BAND_WEIGHTS / columns / unit)) * unit;
  for (let first = 0; first < rows; first += most) yield [first, Math.min(most, rows - first)];
}

/** The row of Hugging Face's layout that stands at row `r` of the interleaved one. */
function interleavedRow(r: number, headDim: number): number {
  const within = r % headDim;
  return r - within + (within % 2) * (headDim / 2) + (within >> 1);
}

/** Rows of `values` [rows, width] in the interleaved order of heads. */
function interleaveRows<T extends Float32Array | Int16Array | Uint8Array>(values: T, rows: number, headDim: number): T {
  const width = values.length / rows;
  const turned = values.slice() as T;
  for (let r = 0; r < rows; r++) {
    const from = interleavedRow(r, headDim);
    turned.set(values.subarray(from * width, (from + 1) * width), r * width);
  }
  return turned;
}

function writeCoded(
  writer: Sink,
  { planned, parts }: FileTensor,
  format: ExportFormat | LossyFormat,
  encoded: EncodedTensors,
  { threads }: ExportOptions,
): ExportedTensor[] {
  return parts.map(({ weight, interleave }) => {
    const { name } = weight.tensor;
    const coded = encoded.get(name);
    const check = startCheck();
    let bytes = 0;
    for (const [first, rows] of bands(coded.rows, coded.columns, interleave ?? 1)) {
      let band = wholeRows(coded, first, rows, threads);
      if (interleave !== undefined) {
        const turn = <T extends Float32Array | Int16Array | Uint8Array>(values: T): T =>
          interleaveRows(values, rows, interleave);
        const { steps } = band;
        band = {
          ...band,
          numbers: turn(band.numbers),
          factors: turn(band.factors),
          ...(steps && { steps: { ...steps, codes: turn(steps.codes), bases: turn(steps.bases) } }),
        };
      }
      const blocks = isLossy(format)
        ? requantize(band, planned.dtype as GgmlBlockType, check, threads)
        : writeCarrier(name, band, format, check, threads);
      writer.write(planned.name, blocks);
      bytes += blocks.length;
    }
    const { rows, columns } = coded;
    return { name, storedName: planned.name, type: planned.dtype, rows, columns, bytes, lossy: isLossy(format), check };
  });
}

function writePlain(
  writer: Sink,
  { planned, parts }: FileTensor,
  values: ReadonlyMap<string, Float32Array>,
  { threads = 1 }: ExportOptions,
): void {
  const given = values.get(planned.name);
  if (given) writer.write(planned.name, new Uint8Array(given.buffer, given.byteOffset, given.byteLength));
  const reader = createWeightReader(threads);
  for (const { weight, interleave } of parts) {
    const { store, tensor, start, byteLength, shape } = weight;
    if (tensor.dtype === planned.dtype && interleave === undefined) {
      const chunk = new Uint8Array(Math.min(byteLength, 4 * BAND_WEIGHTS));
      for (let at = 0; at < byteLength; at += chunk.length) {
        const piece = chunk.subarray(0, Math.min(chunk.length, byteLength - at));
        store.readInto(tensor, start + at, piece.length, piece);
        writer.write(planned.name, piece);
      }
      continue;
    }
    const columns = elementCount(shape.slice(1));
    for (const [first, rows] of bands(shape[0], columns, interleave ?? 1)) {
      const band = new Float32Array(rows * columns);
      reader.read({ store, tensor, start, byteLength, shape }, band, first, rows);
      const ordered = interleave === undefined ? band : interleaveRows(band, rows, interleave);
      const bytes = new Uint8Array(ordered.length * DTYPE_BYTES[planned.dtype as DType]);
      narrowFromF32(ordered, planned.dtype as NarrowDType, bytes, threads);
      writer.write(planned.name, bytes);
    }
  }
}

function sizes(tensors: readonly FileTensor[]): { readonly tensorBytes: number; readonly weights: number } {
  let tensorBytes = 0;
  let weights = 0;
  for (const { planned } of tensors) {
    tensorBytes += byteLengthOf(planned.dtype, planned.shape);
    weights += elementCount(planned.shape);
  }
  return { tensorBytes, weights };
}
