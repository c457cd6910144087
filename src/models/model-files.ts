import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { InputError } from '../errors.js';
import { type GgufStore, openGguf } from '../formats/gguf.js';
import { SAFETENSORS_FILE } from '../formats/safetensors.js';
import { elementCount, type TensorStore } from '../formats/tensor.js';
import { describeModel, MODEL_TYPES } from './architectures.js';
import type { Config } from './config-reader.js';
import type { ModelDescription } from './description.js';
import { turnFusedExperts } from './fused-experts.js';
import { describeGguf } from './gguf-model.js';
import { checkExpertMaps } from './merged-experts.js';
import { openWeights, overlayStore } from './pvq-store.js';
import { GGUF_NAMES, huggingFaceNames } from './weight-names.js';
import {
  createWeightReader,
  GGUF_IGNORED,
  HUGGING_FACE_IGNORED,
  HUGGING_FACE_RENAMINGS,
  locateWeights,
  type ModelWeights,
} from './weights.js';

/** An opened decoder model: what it computes and where its weights lie. Only headers are in memory. */
export interface ModelFiles {
  readonly path: string;
  readonly format: 'huggingface' | 'gguf';
  readonly description: ModelDescription;
  readonly weights: ModelWeights;
  readonly store: TensorStore;
  /** GGUF metadata, for the tokenizer. */
  readonly metadata?: ReadonlyMap<string, unknown>;
}

/**
 * Opens a Hugging Face directory or a GGUF file; quantised tensors of either are decoded as they are read.
 * @param threads that decode; all when absent. They do not change what is read.
 * @throws InputError naming the file, tensor or key that is missing or wrong.
 */
export function openModelFiles(path: string, threads?: number): ModelFiles {
  if (!existsSync(path)) throw new InputError(`${path}: no such model; pass a model directory or a .gguf file`);
  return statSync(path).isDirectory() ? openHuggingFace(path, threads) : openGgufModel(path, threads);
}

function openHuggingFace(path: string, threads: number | undefined): ModelFiles {
  const configPath = join(path, 'config.json');
  if (!existsSync(configPath)) {
    // A quantised GGUF model: a directory with model.gguf and what is quantised beside it.
    if (existsSync(join(path, 'model.gguf'))) return openGgufModel(join(path, 'model.gguf'), threads);
    throw new InputError(`${path}: no config.json; a model directory needs config.json and *.safetensors`);
  }
  const description = describeModel(readJson(configPath), configPath);
  return locateHuggingFace(path, description, openWeights(path, threads));
}

/** Finds a model's weights in a store that names them as Hugging Face checkpoints do. */
export function locateHuggingFace(path: string, description: ModelDescription, stored: TensorStore): ModelFiles {
  const store = turnFusedExperts(description, stored);
  const weights = locateWeights(description, store, {
    names: huggingFaceNames(description.modelType),
    ignored: description.tiedHead
      ? [...HUGGING_FACE_IGNORED, /(^|\.)(lm_head|embed_out)\.weight$/]
      : HUGGING_FACE_IGNORED,
    renamings: HUGGING_FACE_RENAMINGS,
  });
  checkExpertMaps(description, weights);
  return { path, format: 'huggingface', description, weights, store };
}

function openGgufModel(path: string, threads: number | undefined): ModelFiles {
  if (!path.toLowerCase().endsWith('.gguf')) {
    throw new InputError(
      `${path}: not a model this command can run layer by layer; pass a Hugging Face directory (${MODEL_TYPES.length} ` +
        'model types) or a .gguf file',
    );
  }
  const base = openGguf(path);
  const store = withOverlay(base, threads);
  const reader = createWeightReader(1);
  const { description, interleavedRoles } = describeGguf(path, base.kv, store.tensors, (name) => {
    const tensor = store.tensors.get(name);
    if (!tensor) return undefined;
    const values = new Float32Array(elementCount(tensor.shape));
    reader.read({ store, tensor, start: 0, byteLength: tensor.byteLength, shape: tensor.shape }, values);
    return [...values];
  });
  const weights = locateWeights(description, store, {
    names: GGUF_NAMES,
    interleavedRoles,
    ignored: GGUF_IGNORED,
    renamings: [],
  });
  return { path, format: 'gguf', description, weights, store, metadata: base.kv };
}

/** The key of a GGUF file whose quantised tensors lie in a safetensors file beside it, and the version of that format. */
export const GGUF_PVQ_KEY = 'pvq.version';

/** A GGUF file that says so is read together with the quantised tensors beside it. */
function withOverlay(base: GgufStore, threads: number | undefined): TensorStore {
  if (!base.kv.has(GGUF_PVQ_KEY)) return base;
  const beside = join(dirname(base.path), SAFETENSORS_FILE);
  if (!existsSync(beside)) {
    base.close();
    throw new InputError(
      `${base.path}: its quantised tensors lie in ${SAFETENSORS_FILE} beside it, which is missing: copy the whole directory`,
    );
  }
  return overlayStore(base, openWeights(beside, threads));
}

/** Reads a JSON object. */
export function readJson(path: string): Config {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new InputError(`${path}: not valid JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new InputError(`${path}: expected a JSON object`);
  }
  return value as Config;
}
