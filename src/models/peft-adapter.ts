import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { InputError } from '../errors.js';
import { openSafetensors } from '../formats/safetensors.js';
import type { TensorInfo, TensorStore } from '../formats/tensor.js';
import type { Config } from './config-reader.js';
import { readJson } from './model-files.js';

export const ADAPTER_CONFIG = 'adapter_config.json';
export const ADAPTER_FILE = 'adapter_model.safetensors';
/** What stands before the names of the adapted model's modules in PEFT's files. */
export const PEFT_PREFIX = 'base_model.model.';

/** The low-rank term of one matrix: scale B A, with A [rank, in] and B [out, rank]. */
export interface PeftTerm {
  /** Module of the adapted model. */
  readonly module: string;
  /** Of an embedding the term is (B A)ᵀ: A is [rank, tokens], B [width, rank]. */
  readonly embedding: boolean;
  readonly a: TensorInfo;
  readonly b: TensorInfo;
  readonly rank: number;
  readonly scale: number;
  /** DoRA: lengths of the rows [out] (of an embedding of its columns). */
  readonly magnitude?: TensorInfo;
  /** Added to the module's bias, times scale. */
  readonly bias?: TensorInfo;
}

/** An opened LoRA adapter. Only headers are in memory. */
export interface PeftAdapter {
  readonly config: Config;
  readonly store: TensorStore;
  readonly terms: readonly PeftTerm[];
  /** Whole tensors of the model that the adapter has its own version of: biases, `modules_to_save`. By their name there. */
  readonly replaced: ReadonlyMap<string, TensorInfo>;
}

/**
 * alpha / rank, or alpha / sqrt(rank) of rank-stabilised adapters (Kalajdzievski 2023); `alpha_pattern` gives single modules
 * another alpha. Its keys are regular expressions for the end of a module's name, the first that matches counts.
 */
export function loraScale(config: Config, module: string, rank: number, path: string): number {
  const patterns = Object.entries((config.alpha_pattern ?? {}) as Record<string, unknown>);
  const own = patterns.find(([pattern]) => matchesEnd(module, pattern, path))?.[1];
  const alpha = own ?? config.lora_alpha;
  if (typeof alpha !== 'number')
    throw new InputError(`${path}: "lora_alpha" is ${JSON.stringify(alpha)}; expected a number`);
  return alpha / (config.use_rslora === true ? Math.sqrt(rank) : rank);
}

function matchesEnd(module: string, pattern: string, path: string): boolean {
  try {
    return new RegExp(`^(?:.*\\.)?(?:${pattern})$`).test(module);
  } catch {
    throw new InputError(`${path}: "alpha_pattern" has "${pattern}", which is no regular expression`);
  }
}

/** Keys of settings under which the term is another one than scale B A, or the base is not the model as it is stored. */
const UNREAD: readonly (readonly [key: string, why: string])[] = [
  ['layer_replication', 'adapters of repeated layers are not read: repeat the layers with "slices" first'],
  ['target_parameters', 'adapters of single parameters are not read'],
  ['trainable_token_indices', 'adapters of single tokens are not read'],
  ['megatron_config', 'adapters of parallel layers are not read'],
];

function checkConfig(config: Config, path: string): void {
  const refuse = (key: string, wanted: string): never => {
    throw new InputError(`${path}: "${key}" is ${JSON.stringify(config[key])}; ${wanted}`);
  };
  if (config.peft_type !== 'LORA') refuse('peft_type', 'only LORA adapters are read');
  for (const [key, why] of UNREAD) {
    const value = config[key];
    const empty =
      value === undefined || value === null || (typeof value === 'object' && Object.keys(value).length === 0);
    if (!empty) refuse(key, why);
  }
  const { init_lora_weights: initial } = config;
  if (typeof initial === 'string' && /^(pissa|olora|corda|loftq)/i.test(initial))
    refuse('init_lora_weights', 'such adapters belong to changed base weights: save them converted to plain LoRA');
}

interface Parts {
  a?: TensorInfo;
  b?: TensorInfo;
  embedding: boolean;
  magnitude?: TensorInfo;
  bias?: TensorInfo;
}

const PART =
  /^(.*)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)(?:\.default)?(?:\.(weight|bias))?$/;

function sortTensors(store: TensorStore): { modules: Map<string, Parts>; replaced: Map<string, TensorInfo> } {
  const modules = new Map<string, Parts>();
  const replaced = new Map<string, TensorInfo>();
  for (const [stored, info] of store.tensors) {
    const name = stored.startsWith(PEFT_PREFIX) ? stored.slice(PEFT_PREFIX.length) : stored;
    const match = PART.exec(name);
    if (match === null) {
      if (/lora_|token_adapter|trainable_tokens/.test(name))
        throw new InputError(`${store.path}: tensor "${stored}" is no part of a LoRA adapter that is read here`);
      replaced.set(name.replace(/\.(modules_to_save(\.default)?|base_layer)\./, '.'), info);
      continue;
    }
    const [, module, part, kind] = match;
    const parts = modules.get(module) ?? { embedding: false };
    modules.set(module, parts);
    if (part === 'lora_magnitude_vector') parts.magnitude = info;
    else if (kind === 'bias') parts.bias = info;
    else if (part.endsWith('A')) parts.a = info;
    else parts.b = info;
    if (part.startsWith('lora_embedding')) parts.embedding = true;
  }
  return { modules, replaced };
}

/** 1x1 convolutions are matrices. */
function matrixOf(info: TensorInfo, path: string): readonly [number, number] {
  const [rows, columns, ...window] = info.shape;
  if (columns === undefined || window.some((extent) => extent !== 1))
    throw new InputError(
      `${path}: tensor "${info.name}" is [${info.shape}]; adapters of matrices are read, not of convolutions`,
    );
  return [rows, columns];
}

function termOf(module: string, parts: Parts, adapter: { config: Config; path: string; file: string }): PeftTerm {
  const { a, b, embedding, magnitude, bias } = parts;
  const { config, path, file } = adapter;
  if (a === undefined || b === undefined)
    throw new InputError(
      `${file}: module "${module}" has lora_${a === undefined ? 'B' : 'A'} without lora_${a === undefined ? 'A' : 'B'}`,
    );
  const [rank] = matrixOf(a, file);
  const [, columns] = matrixOf(b, file);
  if (rank !== columns || rank === 0)
    throw new InputError(
      `${file}: the adapter of "${module}" is [${a.shape}] and [${b.shape}]: its ranks differ or are zero`,
    );
  if (config.use_dora === true && magnitude === undefined)
    throw new InputError(`${file}: "use_dora" is true and module "${module}" has no lora_magnitude_vector`);
  return {
    ...{ module, embedding, a, b, rank, scale: loraScale(config, module, rank, path) },
    ...(magnitude === undefined ? {} : { magnitude }),
    ...(bias === undefined ? {} : { bias }),
  };
}

/**
 * Opens a LoRA adapter in PEFT's format.
 * @throws InputError for other kinds of adapters, settings that change more than scale B A says, and parts that are missing
 */
export function openPeftAdapter(directory: string): PeftAdapter {
  const path = join(directory, ADAPTER_CONFIG);
  if (!existsSync(path)) throw new InputError(`${directory}: no ${ADAPTER_CONFIG}; a LoRA adapter needs one`);
  const config = readJson(path);
  checkConfig(config, path);
  const weights = join(directory, ADAPTER_FILE);
  if (!existsSync(weights))
    throw new InputError(`${directory}: no ${ADAPTER_FILE}; adapters are read from safetensors`);
  const store = openSafetensors(weights);
  try {
    const { modules, replaced } = sortTensors(store);
    const adapter = { config, path, file: store.path };
    return { config, store, replaced, terms: [...modules].map(([module, parts]) => termOf(module, parts, adapter)) };
  } catch (error) {
    store.close();
    throw error;
  }
}
