import type { HashedFile } from '../formats/hash.js';
import { editJson, type JsonChanges } from '../formats/json-edit.js';
import { MAX_SHARD_BYTES } from '../formats/safetensors-shards.js';
import { createSafetensorsWriter, type PlannedTensor } from '../formats/safetensors-writer.js';
import { DTYPE_BYTES, type DType, type TensorInfo, type TensorStore } from '../formats/tensor.js';
import { narrowFromF32, widenToF32 } from '../kernels/dtypes.js';
import type { Config } from '../models/config-reader.js';
import { copySmallFiles, hashedFile, tensorBytes, writeHashed } from '../models/model-directory.js';
import type { StudentDType, StudentModel } from './student-config.js';

export interface WriteModelOptions {
  /** Type of all weights; the student's own when absent. */
  readonly dtype?: StudentDType;
  /** Default 5 GB (5e9), as transformers does. */
  readonly maxShardBytes?: number;
  readonly threads?: number;
  /** Tensors of integers beside the weights. */
  readonly integers?: ReadonlyMap<string, Int32Array>;
  /** `__metadata__` of every file, beside the format. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Top-level keys of `config.json` that change. */
  readonly configChanges?: JsonChanges;
}

const TORCH_TYPE: Readonly<Record<StudentDType, string>> = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' };
/** Elements that are converted at a time. */
const PIECE = 1 << 20;

/**
 * Writes a student as a Hugging Face directory that transformers and this program open: weights, `config.json`, tokenizer
 * and generation settings of where it came from.
 *
 * @param directory exists; its manifest is the caller's
 * @param student what it started as
 * @param weights its tensors as they are now: `currentModel().store` of a decoder student
 * @returns the files that were written
 * @throws RunError when the disk is full
 */
export function writeModelDirectory(
  directory: string,
  student: StudentModel,
  weights: TensorStore,
  options: WriteModelOptions = {},
): HashedFile[] {
  const dtype = options.dtype ?? student.dtype;
  const written = student.companions === undefined ? [] : copySmallFiles(student.companions, directory);
  const { integers = new Map<string, Int32Array>(), metadata, configChanges = {} } = options;
  const configText = editJson(configWithType(student.configText, dtype), configChanges);
  written.push(writeHashed(directory, 'config.json', `${configText.trimEnd()}\n`));
  const tensors = [...weights.tensors.values()].filter(({ name }) => !carriedNames(student).has(name));
  const plan: PlannedTensor[] = tensors.map((info) => ({ name: info.name, dtype, shape: storedShape(student, info) }));
  for (const { name, dtype: own, shape } of student.carried) {
    plan.push({ name, dtype: own as PlannedTensor['dtype'], shape });
  }
  for (const [name, values] of integers) plan.push({ name, dtype: 'I32', shape: [values.length] });
  const writer = createSafetensorsWriter(directory, {
    plan,
    maxShardBytes: options.maxShardBytes ?? MAX_SHARD_BYTES,
    metadata: { format: 'pt', ...metadata },
  });
  try {
    for (const info of tensors) {
      for (const bytes of storedBytes(weights, info, student.turnedStacks.has(info.name), dtype, options.threads)) {
        writer.write(info.name, bytes);
      }
    }
    for (const info of student.carried) {
      if (student.carriedFrom === undefined) continue;
      for (const bytes of tensorBytes(student.carriedFrom, info)) writer.write(info.name, bytes);
    }
    for (const [name, values] of integers) {
      writer.write(name, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    }
    writer.commit();
  } catch (error) {
    writer.abort();
    throw error;
  }
  for (const file of writer.files) written.push(hashedFile(directory, file.slice(directory.length + 1)));
  return written;
}

const carriedNames = ({ carried }: StudentModel): ReadonlySet<string> => new Set(carried.map(({ name }) => name));

function storedShape({ turnedStacks }: StudentModel, { name, shape }: TensorInfo): readonly number[] {
  if (!turnedStacks.has(name)) return shape;
  const [experts, out, input] = shape;
  return [experts, input, out];
}

/** The configuration says what the weights are stored in; other text is kept. */
function configWithType(text: string, dtype: StudentDType): string {
  const config = JSON.parse(text) as Config;
  const name = TORCH_TYPE[dtype];
  const changesOf = (holder: Config): Record<string, string> =>
    Object.fromEntries(['dtype', 'torch_dtype'].flatMap((key) => (key in holder ? [[key, name]] : [])));
  const inner = config.text_config;
  const isNested = typeof inner === 'object' && inner !== null;
  const nested: Record<string, JsonChanges> = isNested ? { text_config: changesOf(inner as Config) } : {};
  const own = changesOf(config);
  const changes = Object.keys(own).length > 0 ? own : { dtype: name };
  return `${editJson(text, changes, nested)}\n`;
}

/** A tensor in the type that is written; each piece is valid until the next. */
function* storedBytes(
  store: TensorStore,
  info: TensorInfo,
  turned: boolean,
  dtype: StudentDType,
  threads?: number,
): Generator<Uint8Array, void, undefined> {
  const own = info.dtype as DType;
  const width = DTYPE_BYTES[own];
  const count = info.byteLength / width;
  const piece = turned ? matrixElements(info) : PIECE;
  for (let at = 0; at < count; at += piece) {
    const length = Math.min(piece, count - at);
    const raw = new Uint8Array(length * width);
    store.readInto(info, at * width, raw.length, raw);
    const values = new Float32Array(length);
    widenToF32(raw, own, values, threads);
    const bytes = new Uint8Array(length * DTYPE_BYTES[dtype]);
    narrowFromF32(turned ? turnedMatrix(values, info) : values, dtype, bytes, threads);
    yield bytes;
  }
}

const matrixElements = ({ shape }: TensorInfo): number => shape[1] * shape[2];

/** [out, in] as [in, out]. */
function turnedMatrix(values: Float32Array, { shape }: TensorInfo): Float32Array {
  const [, out, input] = shape;
  const result = new Float32Array(values.length);
  for (let o = 0; o < out; o++) for (let i = 0; i < input; i++) result[i * out + o] = values[o * input + i];
  return result;
}
