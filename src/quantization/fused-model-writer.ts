import { copyFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { InputError } from '../errors.js';
import { type AtomicOptions, createAtomicDirectory } from '../formats/atomic.js';
import { createSafetensorsWriter, type PlannedTensor } from '../formats/safetensors-writer.js';
import type { DType } from '../formats/tensor.js';
import type { Config } from '../models/config-reader.js';
import { type ModelFiles, readJson } from '../models/model-files.js';
import type { FusionPlan } from './rotation-fusion.js';

const CHUNK_BYTES = 4 << 20;

/** Weights in any format: they are written anew, all else in a model directory belongs to what is written. */
const WEIGHT_FILE =
  /\.(safetensors|safetensors\.index\.json|bin|bin\.index\.json|pt|pth|gguf|onnx|onnx_data|h5|msgpack)$/;

export interface FusedWriterOptions extends AtomicOptions {
  readonly maxShardBytes?: number;
}

/**
 * Files of a model directory that hold no weights (tokenizer, generation, templates, licence), `config.json` aside.
 * Directories within it and hidden files are left out.
 */
export function companionFiles(directory: string): string[] {
  return readdirSync(directory)
    .filter((name) => !name.startsWith('.') && name !== 'config.json' && !WEIGHT_FILE.test(name))
    .filter((name) => statSync(join(directory, name)).isFile())
    .sort();
}

/** The configuration of a fused model: the head has a matrix of its own, and the type of what is stored is named. */
export function fusedConfig(config: Config, plan: FusionPlan, dtype: DType | undefined): Config {
  const changed: Record<string, unknown> = { ...config };
  const nested = config.text_config;
  const isNested = typeof nested === 'object' && nested !== null;
  if (plan.untiedHead !== undefined) {
    changed.tie_word_embeddings = false;
    if (isNested) changed.text_config = { ...nested, tie_word_embeddings: false };
  }
  const name = dtype && TORCH_TYPE[dtype];
  for (const key of ['dtype', 'torch_dtype']) if (name && key in changed) changed[key] = name;
  return changed;
}

const TORCH_TYPE: Readonly<Partial<Record<DType, string>>> = {
  F64: 'float64',
  F32: 'float32',
  F16: 'float16',
  BF16: 'bfloat16',
};

/**
 * Writes a fused model (`fuseModel`) as a directory that any runtime reads: tensors as the fused store gives them,
 * `config.json` with an untied head, and the other files of the source's directory. Tensors are streamed.
 * @throws InputError when the source is a GGUF file, which has no config.json, or the target is there already
 */
export function writeFusedModel(
  fused: ModelFiles,
  plan: FusionPlan,
  target: string,
  options: FusedWriterOptions = {},
): void {
  if (fused.format !== 'huggingface') {
    throw new InputError(
      `${fused.path}: a GGUF file has no config.json for a model directory; pass the Hugging Face directory, or ` +
        'export to GGUF',
    );
  }
  const { store } = fused;
  const tensors = [...store.tensors.values()];
  const directory = createAtomicDirectory(target, options);
  try {
    for (const name of companionFiles(fused.path)) copyFileSync(join(fused.path, name), join(directory.path, name));
    const dtype = store.tensors.get(fused.weights.embedding.tensor.name)?.dtype as DType | undefined;
    const config = fusedConfig(readJson(join(fused.path, 'config.json')), plan, dtype);
    writeFileSync(join(directory.path, 'config.json'), `${JSON.stringify(config, null, 2)}\n`);
    const { maxShardBytes } = options;
    const writer = createSafetensorsWriter(directory.path, {
      plan: tensors.map(({ name, dtype: type, shape }): PlannedTensor => ({ name, dtype: type as DType, shape })),
      ...(maxShardBytes !== undefined && { maxShardBytes }),
    });
    const chunk = new Uint8Array(CHUNK_BYTES);
    for (const tensor of tensors) {
      for (let at = 0; at < tensor.byteLength; at += CHUNK_BYTES) {
        const length = Math.min(CHUNK_BYTES, tensor.byteLength - at);
        store.readInto(tensor, at, length, chunk);
        writer.write(tensor.name, chunk.subarray(0, length));
      }
    }
    writer.commit();
    directory.commit();
  } catch (error) {
    directory.abort();
    throw error;
  }
}
