import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { InputError } from '../errors.js';
import { type AtomicOptions, createAtomicDirectory } from '../formats/atomic.js';
import { createSafetensorsWriter, type PlannedTensor } from '../formats/safetensors-writer.js';
import type { DType } from '../formats/tensor.js';
import type { Config } from '../models/config-reader.js';
import { copySmallFiles, tensorBytes } from '../models/model-directory.js';
import { type ModelFiles, readJson } from '../models/model-files.js';
import type { FusionPlan } from './rotation-fusion.js';

export interface FusedWriterOptions extends AtomicOptions {
  readonly maxShardBytes?: number;
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
    copySmallFiles(fused.path, directory.path);
    const dtype = store.tensors.get(fused.weights.embedding.tensor.name)?.dtype as DType | undefined;
    const config = fusedConfig(readJson(join(fused.path, 'config.json')), plan, dtype);
    writeFileSync(join(directory.path, 'config.json'), `${JSON.stringify(config, null, 2)}\n`);
    const { maxShardBytes } = options;
    const writer = createSafetensorsWriter(directory.path, {
      plan: tensors.map(({ name, dtype: type, shape }): PlannedTensor => ({ name, dtype: type as DType, shape })),
      ...(maxShardBytes !== undefined && { maxShardBytes }),
    });
    for (const tensor of tensors) for (const bytes of tensorBytes(store, tensor)) writer.write(tensor.name, bytes);
    writer.commit();
    directory.commit();
  } catch (error) {
    directory.abort();
    throw error;
  }
}
