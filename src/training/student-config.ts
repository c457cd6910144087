import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { InputError } from '../errors.js';
import { editJson, type JsonChanges } from '../formats/json-edit.js';
import type { DType, TensorInfo, TensorStore } from '../formats/tensor.js';
import { describeModel } from '../models/architectures.js';
import type { Config } from '../models/config-reader.js';
import type { LayerDescription, ModelDescription } from '../models/description.js';
import { memoryStore } from '../models/memory-model.js';
import { MERGED_MODEL_TYPE } from '../models/merged-experts.js';
import { locateHuggingFace, type ModelFiles, openModelFiles, readJson } from '../models/model-files.js';
import { openWeights } from '../models/pvq-store.js';
import type { Random } from '../random.js';
import { initialWeights } from './initial-weights.js';

/** Element types that students are written in. */
export type StudentDType = 'F32' | 'F16' | 'BF16';

/** A decoder before its first step, and what a directory of it needs beside its weights. */
export interface StudentModel {
  readonly files: ModelFiles;
  /** Text of `config.json`. */
  readonly configText: string;
  /** Directory whose tokenizer and other small files go with the student; absent where there is none. */
  readonly companions?: string;
  /** What the weights were stored as; F32 for a random start. */
  readonly dtype: StudentDType;
  /** Layers of the teacher that became the student's, in order. */
  readonly layers?: readonly number[];
  /** Stacks of experts that are [experts, in, out] on disk, while `files` shows [experts, out, in]. */
  readonly turnedStacks: ReadonlySet<string>;
  /** Tensors that belong to the model and are nothing to learn (a vision tower, maps of merged experts), copied as they are. */
  readonly carried: readonly TensorInfo[];
  /** Where they are read. */
  readonly carriedFrom?: TensorStore;
}

const CARRIED = /^(model\.)?(vision_tower|multi_modal_projector|vision_model|visual)\.|\.expert_map$/;

const isStudentDType = (dtype: string): dtype is StudentDType => dtype === 'F32' || dtype === 'F16' || dtype === 'BF16';

/** The type that most elements of a decoder are stored in; F32 where that is none that students are written in. */
function storedDType({ weights }: ModelFiles): StudentDType {
  const dtype: DType | string = weights.embedding.tensor.dtype;
  return isStudentDType(dtype) ? dtype : 'F32';
}

/** What `files` shows otherwise than the disk has it. */
function storedLayout(files: ModelFiles, path: string): Pick<StudentModel, 'turnedStacks' | 'carried' | 'carriedFrom'> {
  const raw = openWeights(path);
  const turned = new Set<string>();
  for (const [name, shown] of files.store.tensors) {
    const stored = raw.tensors.get(name);
    if (!stored || `${stored.shape}` === `${shown.shape}`) continue;
    // Both stacks of a layer lie alike; the shape of one may be square.
    const layer = name.replace(/(gate_up_proj|down_proj)(\.weight)?$/, '');
    for (const other of raw.tensors.keys()) if (other.startsWith(layer)) turned.add(other);
  }
  const carried = [...raw.tensors.values()].filter(({ name }) => CARRIED.test(name));
  if (carried.length === 0) raw.close();
  return { turnedStacks: turned, carried, ...(carried.length > 0 && { carriedFrom: raw }) };
}

/**
 * A model directory as a student.
 * @throws InputError as `openModelFiles`, and for a GGUF file, which has no `config.json` to write
 */
export function existingStudent(path: string, threads?: number): StudentModel {
  const files = openModelFiles(path, threads);
  return { ...directoryOf(files), files, dtype: storedDType(files) };
}

function directoryOf(files: ModelFiles): Omit<StudentModel, 'files' | 'dtype'> {
  const { path } = files;
  if (files.format !== 'huggingface' || !statSync(path).isDirectory()) {
    throw new InputError(
      `${path}: a GGUF file has no config.json that a student could be written with; pass a model directory`,
    );
  }
  const configText = readFileSync(join(path, 'config.json'), 'utf8');
  return { configText, companions: path, ...storedLayout(files, path) };
}

/**
 * A decoder of a `config.json` with random weights, as transformers starts one of its family.
 * @param companions directory of the tokenizer; the configuration's own where it has one
 * @throws InputError for an unknown model type, a multimodal or merged model, or inconsistent values
 */
export function randomStudent(path: string, random: Random, companions?: string): StudentModel {
  const file = existsSync(path) && statSync(path).isDirectory() ? join(path, 'config.json') : path;
  if (!existsSync(file)) throw new InputError(`${file}: no such configuration`);
  const config = readJson(file);
  const description = describeModel(config, file);
  if (config.model_type === MERGED_MODEL_TYPE) {
    throw new InputError(`${file}: a model with merged experts cannot start at random; start its family and merge it`);
  }
  if (config.model_type !== description.modelType) {
    throw new InputError(
      `${file}: model_type ${JSON.stringify(config.model_type)} is more than a decoder; a random start needs the ` +
        'configuration of a language model alone, such as its text_config',
    );
  }
  const tensors = initialWeights(description, config, random);
  const own = dirname(file);
  const beside = ['tokenizer.json', 'tokenizer.model', 'vocab.json'].some((name) => existsSync(join(own, name)));
  const from = beside ? own : companions;
  const changes = Object.fromEntries(
    ['dtype', 'torch_dtype'].flatMap((key) => (key in config ? [[key, 'float32']] : [])),
  );
  return {
    files: locateHuggingFace(file, description, memoryStore(file, tensors)),
    configText: editJson(readFileSync(file, 'utf8'), changes),
    dtype: 'F32',
    turnedStacks: new Set(),
    carried: [],
    ...(from !== undefined && { companions: from }),
  };
}

/** Every k-th layer: 0, k, 2k, ... @throws InputError when k is not between 1 and the number of layers */
export function everyLayer(count: number, k: number): number[] {
  if (!Number.isInteger(k) || k < 1 || k > count) {
    throw new InputError(`every ${k}-th of ${count} layers: the step must be a whole number from 1 to ${count}`);
  }
  return Array.from({ length: Math.ceil(count / k) }, (_, i) => i * k);
}

/**
 * A smaller copy of a model: some of its layers in their order, embedding, head and norms as they are. What the
 * configuration says of single layers (windows, rotation, experts) follows them.
 *
 * @throws InputError for a layer that the teacher does not have or that is named twice, a GGUF file, and a configuration
 *   that cannot describe the chosen layers
 */
export function layerStudent(teacher: ModelFiles, layers: readonly number[]): StudentModel {
  const { description, path } = teacher;
  const count = description.layers.length;
  for (const [i, layer] of layers.entries()) {
    if (!Number.isInteger(layer) || layer < 0 || layer >= count) {
      throw new InputError(`layer ${layer}: ${path} has layers 0 to ${count - 1}`);
    }
    if (layers.indexOf(layer) !== i) throw new InputError(`layer ${layer} is chosen twice`);
  }
  if (layers.length === 0) throw new InputError('a student needs at least one layer');
  const directory = directoryOf(teacher);
  const configText = configOfLayers(directory.configText, description, layers, path);
  const config = JSON.parse(configText) as Config;
  const smaller = describeModel(config, path);
  const wanted = layers.map((layer) => description.layers[layer]);
  const differs = smaller.layers.findIndex((layer, i) => JSON.stringify(layer) !== JSON.stringify(wanted[i]));
  if (smaller.layers.length !== wanted.length || differs >= 0) {
    throw new InputError(
      `${path}: the configuration of a ${description.modelType} model cannot say what layer ${layers[Math.max(0, differs)]} ` +
        'does in another place; choose layers that keep the pattern',
    );
  }
  const store = storeOfLayers(teacher.store, layers);
  const renamed = (name: string): string[] => {
    const moved = movedName(name, layers);
    return moved === undefined ? [] : [moved];
  };
  return {
    ...directory,
    files: { ...locateHuggingFace(path, smaller, store.shown), path },
    configText,
    dtype: storedDType(teacher),
    layers,
    turnedStacks: new Set([...directory.turnedStacks].flatMap(renamed)),
  };
}

const LAYER = /^((?:.*\.)?(?:layers|h)\.)(\d+)(\..+)$/;

/** The name of a tensor in the smaller model; undefined where its layer is left out. */
function movedName(name: string, layers: readonly number[]): string | undefined {
  const [, before, layer, after] = LAYER.exec(name) ?? [];
  if (layer === undefined || CARRIED.test(name)) return name;
  const place = layers.indexOf(Number(layer));
  return place < 0 ? undefined : `${before}${place}${after}`;
}

function storeOfLayers(store: TensorStore, layers: readonly number[]): { readonly shown: TensorStore } {
  const tensors = new Map<string, TensorInfo>();
  const sources = new Map<string, TensorInfo>();
  for (const info of store.tensors.values()) {
    const name = movedName(info.name, layers);
    if (name === undefined) continue;
    tensors.set(name, { ...info, name });
    sources.set(name, info);
  }
  const shown: TensorStore = {
    ...store,
    tensors,
    readInto(tensor, start, length, target) {
      store.readInto(sources.get(tensor.name) ?? tensor, start, length, target);
    },
    close: () => store.close(),
  };
  return { shown };
}

const COUNT_KEYS = ['num_hidden_layers', 'n_layer', 'num_layers'];

/** The configuration with fewer layers; its text is kept where it does not speak of layers. */
function configOfLayers(text: string, description: ModelDescription, layers: readonly number[], path: string): string {
  const config = JSON.parse(text) as Config;
  const inner = config.text_config;
  const isNested = typeof inner === 'object' && inner !== null;
  const holder = (isNested ? inner : config) as Config;
  if (config.model_type === MERGED_MODEL_TYPE) {
    throw new InputError(`${path}: layers of a model with merged experts cannot be left out`);
  }
  const changes = layerChanges(holder, description, layers);
  return `${isNested ? editJson(text, {}, { text_config: changes }) : editJson(text, changes)}\n`;
}

function layerChanges(
  config: Config,
  { modelType, layers: all }: ModelDescription,
  chosen: readonly number[],
): JsonChanges {
  const layers = chosen.map((layer) => all[layer]);
  const changes: Record<string, unknown> = {};
  for (const key of COUNT_KEYS) if (key in config) changes[key] = layers.length;
  const pick = (list: readonly unknown[]): unknown[] => chosen.map((layer) => list[layer]);
  const windows = new Set(all.map(({ attention }) => attention.window));
  if (Array.isArray(config.layer_types)) changes.layer_types = pick(config.layer_types);
  else if (windows.size > 1) {
    changes.layer_types = layers.map((layer) =>
      layer.attention.window === undefined ? 'full_attention' : 'sliding_attention',
    );
  }
  if (modelType === 'smollm3') {
    changes.no_rope_layers = layers.map((layer) => (layer.attention.rope === undefined ? 0 : 1));
  }
  if (all.some((layer) => layer.mlp.kind !== all[0].mlp.kind)) {
    changes.decoder_sparse_step = 1;
    changes.mlp_only_layers = layers.flatMap((layer: LayerDescription, i) => (layer.mlp.kind === 'dense' ? [i] : []));
  } else if ('mlp_only_layers' in config) changes.mlp_only_layers = [];
  return changes;
}
