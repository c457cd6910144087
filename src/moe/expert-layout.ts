import fs from 'node:fs';
import path from 'node:path';
import { InputError } from '../errors.js';
import { quoted } from '../formats/files.js';
import { openSafetensors } from '../formats/safetensors.js';
import type { TensorStore } from '../formats/tensor.js';
import { type Config, type ConfigReader, configReader } from '../models/config-reader.js';
import { MERGED_MODEL_TYPE } from '../models/merged-experts.js';
import { readJson } from '../models/model-files.js';
import { openWeights } from '../models/pvq-store.js';
import { COUNT_KEYS, EXPERT_FAMILIES, type ExpertFamily, FAMILY_TYPES } from './expert-families.js';
import type { ExpertModel } from './expert-model.js';
import { denseModel, type Extension, locateExperts } from './expert-places.js';
import { findNamings, refuseQuantised } from './expert-tensors.js';

export { MERGED_MODEL_TYPE as EXTENSION_TYPE } from '../models/merged-experts.js';
export type { ExpertArrangement, ExpertLayer, ExpertModel, ExpertTensorNames } from './expert-model.js';

export interface ExpertModelOptions {
  /** What to do with a model that was already merged or factorised by this tool. Default `refuse`. */
  readonly merged?: 'refuse' | 'read';
}

/**
 * Opens a Hugging Face directory with routed experts of any family in {@link EXPERT_FAMILIES}: headers are read, the family
 * is taken from `config.json` and from the names of tensors, every expected tensor is found and its shape compared with
 * the config on all axes.
 * @throws InputError for a dense model, another format, an unknown family, config and names that disagree, quantised
 * tensors, tensors that are missing or unknown, shapes that do not fit, and models that this tool already merged or
 * factorised unless `merged` is `read`
 */
export function openExpertModel(location: string, options: ExpertModelOptions = {}): ExpertModel {
  const configPath = checkLocation(location);
  const config = readJson(configPath);
  const read = options.merged === 'read';
  const extension = readExtension(config, configPath, read);
  const { reader, configKey, family } = findFamily(location, configPath, extension ? withBaseType(config) : config);
  const store = read ? openWeights(location) : openSafetensors(location);
  try {
    if (!read) refuseMerged(store);
    refuseQuantised(location, store, read ? {} : config);
    const model = locateExperts({ location, reader, family, store, read, ...(extension && { extension }) });
    return {
      path: location,
      config,
      ...(configKey !== undefined && { configKey }),
      family: family.types[0],
      runs: family.runs,
      store,
      ...model,
      close: () => store.close(),
    };
  } catch (error) {
    store.close();
    throw error;
  }
}

/** The path of config.json. */
function checkLocation(location: string): string {
  if (!fs.existsSync(location)) throw new InputError(`${location}: no such model: pass a Hugging Face directory`);
  const needed = 'experts are merged in Hugging Face directories (config.json and *.safetensors)';
  if (!fs.statSync(location).isDirectory()) {
    const format = /\.(gguf|onnx|safetensors|bin|pt)$/i.exec(location)?.[1];
    throw new InputError(`${location}: is ${format ? `a .${format.toLowerCase()} file` : 'a file'}: ${needed}`);
  }
  const configPath = path.join(location, 'config.json');
  if (fs.existsSync(configPath)) return configPath;
  const other = fs.readdirSync(location).find((name) => /\.(gguf|onnx)$/i.test(name));
  throw new InputError(`${location}: ${other ? `holds ${other} and ` : ''}no config.json: ${needed}`);
}

function withBaseType(config: Config): Config {
  return { ...config, model_type: config.base_model_type };
}

/** @throws InputError for an extension that may not be read here, or that is malformed */
function readExtension(config: Config, configPath: string, read: boolean): Extension | undefined {
  if (config.model_type !== MERGED_MODEL_TYPE) return undefined;
  if (!read)
    throw new InputError(
      `${configPath}: the experts of this model were already merged by surprisal ("model_type": "${MERGED_MODEL_TYPE}"): merge the original model`,
    );
  const reader = configReader(config, configPath).object(MERGED_MODEL_TYPE);
  const version = reader?.number('version');
  const router = reader?.string('router', '');
  const list = reader?.config.experts_per_layer;
  const counts = Array.isArray(list) && list.every((g) => g === null || (Number.isSafeInteger(g) && g > 0));
  if (version !== 1 || (router !== 'remap' && router !== 'reduced') || !counts)
    throw new InputError(
      `${configPath}: "${MERGED_MODEL_TYPE}" is not {"version": 1, "router": "remap" or "reduced", "experts_per_layer": [...]}`,
    );
  return { router, expertsPerLayer: list as (number | null)[] };
}

interface FoundFamily {
  readonly reader: ConfigReader;
  readonly configKey?: string;
  readonly family: ExpertFamily;
}

const familyOf = (type: unknown): ExpertFamily | undefined =>
  EXPERT_FAMILIES.find(({ types }) => types.some((each) => each === type));

function findFamily(location: string, configPath: string, config: Config): FoundFamily {
  const top = configReader(config, configPath);
  const type = top.string('model_type', '');
  const architectures = top.strings('architectures') ?? [];
  const family = familyOf(type);
  if (family === undefined) throw unknownFamily(location, configPath, config, type);
  const named = EXPERT_FAMILIES.find((each) => architectures.some((name) => each.architectures.test(name)));
  if (named !== undefined && named !== family)
    throw new InputError(
      `${configPath}: "model_type" is ${quoted(type)} but "architectures" names ${quoted(architectures.join(', '))} (${named.types[0]}): correct the one that is wrong`,
    );
  const nested = top.object('text_config');
  return nested === undefined ? { reader: top, family } : { reader: nested, configKey: 'text_config', family };
}

function unknownFamily(location: string, configPath: string, config: Config, type: string): InputError {
  const families = FAMILY_TYPES.join(', ');
  if (type === 'gpt_oss')
    return new InputError(
      `${location}: the experts of gpt_oss have biases and gate and up rows in turn, mostly in MXFP4: they are not merged; families: ${families}`,
    );
  const store = openSafetensors(location);
  try {
    const found = findNamings(store);
    const example = [...found.values()][0];
    const key = COUNT_KEYS.find((each) => typeof config[each] === 'number');
    if (example === undefined && key === undefined) return denseModel(location, type);
    const seen = example === undefined ? `"${key}" in config.json` : `tensor ${quoted(example)}`;
    return new InputError(
      `${configPath}: "model_type" is ${quoted(type)}: the model has experts (${seen}), but of no family that is known: ${families}`,
    );
  } finally {
    store.close();
  }
}

function refuseMerged(store: TensorStore): void {
  for (const { name, file } of store.tensors.values()) {
    if (/\.(low_rank_left|low_rank_right|sparse_rows|sparse_values)$/.test(name))
      throw new InputError(
        `${file}: tensor ${quoted(name)}: the experts of this model were already compressed by surprisal (low rank and sparse rows): merge the original model first, then compress`,
      );
    if (name.endsWith('.expert_map'))
      throw new InputError(
        `${file}: tensor ${quoted(name)}: the experts of this model were already merged by surprisal: merge the original model`,
      );
  }
}
