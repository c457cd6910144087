import { statSync } from 'node:fs';
import { join } from 'node:path';
import { InputError } from '../errors.js';
import { createAtomicDirectory } from '../formats/atomic.js';
import { openGguf } from '../formats/gguf.js';
import { createGgufWriter } from '../formats/gguf-writer.js';
import type { HashedFile } from '../formats/hash.js';
import { SAFETENSORS_INDEX } from '../formats/safetensors.js';
import { encodeIndex, layOutSafetensors, type PlannedTensor } from '../formats/safetensors-writer.js';
import { DTYPE_BYTES, type DType, elementCount, type TensorInfo, type TensorStore } from '../formats/tensor.js';
import { narrowFromF32 } from '../kernels/dtypes.js';
import {
  changedConfig,
  copySmallFiles,
  createHashedOutput,
  hashedFile,
  tensorBytes,
  writeHashed,
} from '../models/model-directory.js';
import { GGUF_PVQ_KEY, openModelFiles, readJson } from '../models/model-files.js';
import { isPvqStore, openWeights, type PvqStore } from '../models/pvq-store.js';
import { createWeightReader } from '../models/weights.js';
import { buildReport, type Report, type ReportHead, serializeReport, validateReport } from '../report/json.js';
import { planPvqLayout } from './pvq-layout.js';
import { MANIFEST_FILE } from './pvq-manifest.js';

export const DEQUANTIZE_SCHEMA = 'quantize-pvq-dequantize';
export const DEQUANTIZED_DTYPES = ['bf16', 'f16', 'f32'] as const;
export type DequantizedDType = (typeof DEQUANTIZED_DTYPES)[number];

interface Target {
  readonly dtype: 'F32' | 'F16' | 'BF16';
  readonly torchName: string;
  /** `LLAMA_FTYPE` of a GGUF file whose matrices have this type. */
  readonly ggufFileType: number;
  /** Largest value; a larger one that would round to infinity is at least `overflow`. */
  readonly largest: number;
  readonly overflow: number;
}

const TARGETS: Readonly<Record<DequantizedDType, Target>> = {
  f32: { dtype: 'F32', torchName: 'float32', ggufFileType: 0, largest: Infinity, overflow: Infinity },
  f16: { dtype: 'F16', torchName: 'float16', ggufFileType: 1, largest: 65504, overflow: 65520 },
  bf16: {
    dtype: 'BF16',
    torchName: 'bfloat16',
    ggufFileType: 32,
    largest: 0xff * 2 ** 120,
    overflow: 0x1ff * 2 ** 119,
  },
};

const FLOATS: readonly string[] = ['F64', 'F32', 'F16', 'BF16', 'F8_E4M3', 'F8_E5M2'];

export interface DequantizeOptions {
  /** A quantised model: its directory, or the `model.gguf` in it. */
  readonly model: string;
  readonly out: string;
  readonly dtype: DequantizedDType;
  /** Values that the type cannot hold become its largest; without it they are an error. */
  readonly clamp?: boolean;
  readonly threads?: number;
  readonly force?: boolean;
  readonly head: Omit<ReportHead, 'name'>;
  /** Called before each tensor and waited for, so that signals are served in between. */
  readonly progress?: (done: number, total: number, name: string) => Promise<void>;
}

/** Values of one tensor that its new type cannot hold. */
interface Overflow {
  readonly tensor: string;
  values: number;
  largest: number;
}

/** Turns tensors into bytes of the target type, counting what does not fit. */
interface Converter {
  readonly overflows: readonly Overflow[];
  convert(info: TensorInfo): Generator<Uint8Array, void, undefined>;
}

/** Weights converted at a time, in whole rows where they fit. */
const STEP = 1 << 20;

function createConverter(store: TensorStore, target: Target, clamp: boolean, threads: number | undefined): Converter {
  const overflows: Overflow[] = [];
  const reader = createWeightReader(threads ?? 1);
  const note = (tensor: string, values: Float32Array): void => {
    let found: Overflow | undefined = overflows.at(-1)?.tensor === tensor ? overflows.at(-1) : undefined;
    for (let i = 0; i < values.length; i++) {
      const size = Math.abs(values[i]);
      if (!(size >= target.overflow) || size === Infinity) continue;
      if (found === undefined) {
        found = { tensor, values: 0, largest: 0 };
        overflows.push(found);
      }
      found.values++;
      found.largest = Math.max(found.largest, size);
      if (clamp) values[i] = Math.sign(values[i]) * target.largest;
    }
  };
  return {
    overflows,
    *convert(info) {
      const elements = elementCount(info.shape);
      const width = info.shape.at(-1) ?? 1;
      const step = width > STEP ? STEP : Math.max(width, STEP - (STEP % width));
      const values = new Float32Array(Math.min(step, elements));
      const bytes = new Uint8Array(values.length * DTYPE_BYTES[target.dtype]);
      const flat = { store, tensor: info, start: 0, byteLength: info.byteLength, shape: [elements] };
      for (let at = 0; at < elements; at += step) {
        const count = Math.min(step, elements - at);
        const part = values.subarray(0, count);
        reader.read(flat, part, at, count);
        if (target.overflow !== Infinity) note(info.name, part);
        const out = bytes.subarray(0, DTYPE_BYTES[target.dtype] * count);
        narrowFromF32(part, target.dtype, out, threads);
        yield out;
      }
    },
  };
}

/** Opens a quantised model, of either format. */
function openQuantised(model: string, threads: number | undefined): { store: PvqStore; gguf: string | undefined } {
  const isDirectory = statSync(model, { throwIfNoEntry: false })?.isDirectory() ?? false;
  const gguf = isDirectory ? join(model, 'model.gguf') : model;
  const isGguf = statSync(gguf, { throwIfNoEntry: false })?.isFile() ?? false;
  const store = isGguf ? openModelFiles(gguf, threads).store : openWeights(model, threads);
  if (isPvqStore(store)) return { store, gguf: isGguf ? gguf : undefined };
  store.close();
  throw new InputError(`${model}: holds no quantised tensor of the format pvq-1: there is nothing to decode`);
}

/**
 * Writes a quantised model as a plain one: the same tensors under the same names with the same shapes, in the files of
 * the source (a GGUF source gives a `model.gguf`), rounded to nearest even. All floating-point tensors of a Hugging Face
 * model get the type; in a GGUF file those that were not quantised stay as they are, as its readers expect. Streams by
 * bands of rows; the directory appears when it is complete.
 * @returns the manifest
 * @throws InputError when values overflow the type and `clamp` is not set: how many, where, and the largest
 */
export async function dequantizeModel(options: DequantizeOptions): Promise<Report> {
  const { model, out, threads } = options;
  const target = TARGETS[options.dtype];
  const { store, gguf } = openQuantised(model, threads);
  try {
    const directory = createAtomicDirectory(out, { force: options.force });
    try {
      const converter = createConverter(store, target, options.clamp === true, threads);
      const files =
        gguf === undefined
          ? await writeSafetensors(directory.path, store, target, converter, options)
          : [await writeGguf(directory.path, store, gguf, target, converter, options)];
      refuseOverflow(model, options, converter.overflows);
      const manifest = describe(options, store, files, converter.overflows);
      validateReport(manifest, join(out, MANIFEST_FILE));
      writeHashed(directory.path, MANIFEST_FILE, serializeReport(manifest));
      directory.commit();
      return manifest;
    } catch (error) {
      directory.abort();
      throw error;
    }
  } finally {
    store.close();
  }
}

/** What a run would read, write and hold. */
export interface DequantizationPlan {
  readonly tensors: number;
  readonly decoded: number;
  readonly weights: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly peakBytes: number;
}

/** Plans {@link dequantizeModel} from the headers. Throws InputError for a model that is not quantised. */
export function planDequantization({
  model,
  dtype,
  threads,
}: Pick<DequantizeOptions, 'model' | 'dtype' | 'threads'>): DequantizationPlan {
  const { store, gguf } = openQuantised(model, threads);
  store.close();
  const target = TARGETS[dtype];
  let [weights, bytesRead, bytesWritten, turned] = [0, 0, 0, 0];
  for (const info of store.tensors.values()) {
    const stored = store.quantised.get(info.name);
    const parts = stored === undefined ? [info] : [...stored.parts.values()];
    bytesRead += parts.reduce((sum, part) => sum + part.byteLength, 0);
    const elements = elementCount(info.shape);
    const converted = stored !== undefined || (gguf === undefined && isConverted(info));
    bytesWritten += converted ? elements * DTYPE_BYTES[target.dtype] : info.byteLength;
    if (stored === undefined) continue;
    weights += elements;
    // A transposed matrix is decoded as a whole, everything else by bands.
    if (stored.tensor.transposed) turned = Math.max(turned, (4 * elements) / stored.matrix.matrices);
  }
  return {
    tensors: store.tensors.size,
    decoded: store.quantised.size,
    weights,
    bytesRead,
    bytesWritten,
    peakBytes: 16 * STEP + turned,
  };
}

function refuseOverflow(model: string, options: DequantizeOptions, overflows: readonly Overflow[]): void {
  if (overflows.length === 0 || options.clamp === true) return;
  const values = overflows.reduce((sum, overflow) => sum + overflow.values, 0);
  const worst = overflows.reduce((a, b) => (b.largest > a.largest ? b : a));
  throw new InputError(
    `${model}: ${values} values of ${overflows.length} tensors overflow ${options.dtype}, the largest ${worst.largest} in "${worst.tensor}": choose --dtype ${options.dtype === 'f16' ? 'bf16' : 'f32'}, or pass --clamp`,
  );
}

function isConverted(info: TensorInfo): boolean {
  return FLOATS.includes(info.dtype);
}

async function writeSafetensors(
  place: string,
  store: PvqStore,
  target: Target,
  converter: Converter,
  options: DequantizeOptions,
): Promise<HashedFile[]> {
  const { files, indexed } = planPvqLayout(store, 'huggingface', [], 0n);
  const planned = (info: TensorInfo): PlannedTensor => ({
    name: info.name,
    dtype: isConverted(info) ? target.dtype : (info.dtype as DType),
    shape: info.shape,
  });
  const written: HashedFile[] = [];
  let done = 0;
  let total = 0;
  for (const { fileName, tensors, metadata } of files) {
    const { header, order, byteLength } = layOutSafetensors(tensors.map(planned), metadata);
    total += byteLength - header.length;
    const output = createHashedOutput(place, fileName);
    output.write(header);
    for (const { name } of order) {
      await options.progress?.(done++, store.tensors.size, name);
      const info = store.tensors.get(name);
      if (info === undefined) continue;
      for (const bytes of isConverted(info) ? converter.convert(info) : tensorBytes(store, info)) output.write(bytes);
    }
    written.push(output.commit());
  }
  if (indexed) {
    const shards = files.map(({ fileName, tensors }) => ({ fileName, tensors: tensors.map(planned) }));
    written.push(writeHashed(place, SAFETENSORS_INDEX, encodeIndex(shards, total)));
  }
  const dtypeKey = Object.hasOwn(readConfig(options.model), 'dtype') ? 'dtype' : 'torch_dtype';
  const config = changedConfig(options.model, { quantization_config: undefined, [dtypeKey]: target.torchName });
  if (config !== undefined) written.push(writeHashed(place, 'config.json', config));
  written.push(...copySmallFiles(options.model, place));
  return written.sort((a, b) => (a.name < b.name ? -1 : 1));
}

function readConfig(model: string): object {
  const file = join(model, 'config.json');
  return statSync(file, { throwIfNoEntry: false }) === undefined ? {} : readJson(file);
}

async function writeGguf(
  place: string,
  store: PvqStore,
  source: string,
  target: Target,
  converter: Converter,
  options: DequantizeOptions,
): Promise<HashedFile> {
  const base = openGguf(source);
  const kv = new Map(
    [...base.kv].flatMap(([key, value]) => {
      const type = base.kvTypes.get(key);
      if (type === undefined || key === GGUF_PVQ_KEY) return [];
      return [[key, { type, value: key === 'general.file_type' ? target.ggufFileType : value }] as const];
    }),
  );
  base.close();
  const plan = [...store.tensors.values()].map(({ name, dtype, shape }) => ({
    name,
    shape,
    dtype: store.quantised.has(name) ? target.dtype : dtype,
  }));
  const writer = createGgufWriter(join(place, 'model.gguf'), { kv, plan, force: true });
  let done = 0;
  for (const info of store.tensors.values()) {
    await options.progress?.(done++, store.tensors.size, info.name);
    const pieces = store.quantised.has(info.name) ? converter.convert(info) : tensorBytes(store, info);
    for (const bytes of pieces) writer.write(info.name, bytes);
  }
  writer.commit();
  return hashedFile(place, 'model.gguf');
}

function describe(
  { head, dtype, clamp }: DequantizeOptions,
  store: PvqStore,
  files: readonly HashedFile[],
  overflows: readonly Overflow[],
): Report {
  return buildReport(
    { ...head, name: DEQUANTIZE_SCHEMA },
    {
      dtype,
      clamp: clamp === true,
      tensors: store.tensors.size,
      decoded_tensors: store.quantised.size,
      clamped_values: overflows.reduce((sum, overflow) => sum + overflow.values, 0),
      clamped: overflows.map(({ tensor, values, largest }) => ({ tensor, values, largest })),
      files: files.map(({ name, bytes, sha256 }) => ({ name, bytes, sha256 })),
    },
  );
}
