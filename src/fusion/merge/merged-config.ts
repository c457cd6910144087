import { join } from 'node:path';
import { InputError } from '../../errors.js';
import { elementCount } from '../../formats/tensor.js';
import type { Config } from '../../models/config-reader.js';
import { changedConfig } from '../../models/model-directory.js';
import { readJson } from '../../models/model-files.js';
import { isHead, isVocabularyTensor } from './architecture.js';
import { dtypeName, type MergeDocument } from './document.js';
import type { ModulePlan, PlanModel } from './plan-slices.js';
import type { ConfigChanges, MergeDType, MergePlan, PlannedTensor } from './types.js';

interface PlannedMerge {
  readonly document: MergeDocument;
  /** Whose config the output takes over. */
  readonly donor: PlanModel;
  readonly models: readonly PlanModel[];
  readonly modules: readonly ModulePlan[];
  readonly tensors: readonly PlannedTensor[];
}

/** Lists with an entry a layer are known by their length and by these words in their names. */
const PER_LAYER = /layer|block|expert/;
/** Lists of the numbers of layers. */
const LAYER_INDICES: ReadonlySet<string> = new Set([
  'mlp_only_layers',
  'full_attn_idxs',
  'attn_layer_indices',
  'global_attn_layers',
  'moe_layers',
]);
/** What a layer is follows from its number modulo one of these. */
const PERIODS = [
  'sliding_window_pattern',
  'no_rope_layer_interval',
  'decoder_sparse_step',
  'attn_layer_period',
  'expert_layer_period',
  'interleave_moe_layer_step',
  'full_attention_interval',
];
/** Layers beyond the last that predict further tokens. */
const BEYOND = ['num_nextn_predict_layers', 'num_mtp_layers'];

/** Where a layer of the output comes from: the first source of its slice. */
interface LayerOrigin {
  readonly model: PlanModel;
  readonly layer: number;
}

function originsOf({ slices }: ModulePlan): LayerOrigin[] {
  return slices.flatMap(({ sources: [{ model, from }], layers }) =>
    Array.from({ length: layers }, (_, i) => ({ model, layer: from + i })),
  );
}

/** The object of a config that a way leads to. */
function sectionOf(config: Config, way: readonly string[]): Config | undefined {
  const [key] = way;
  const section = key === undefined ? config : config[key];
  return typeof section === 'object' && section !== null ? (section as Config) : undefined;
}

/** The entry of a per-layer list of the model that a layer comes from. */
function entryOf({ model, layer }: LayerOrigin, way: readonly string[], key: string): unknown {
  const list = sectionOf(model.config, way)?.[key];
  return Array.isArray(list) ? (list as unknown[])[layer] : undefined;
}

/** Changes of the section that counts the layers of a part. */
function layerChanges(
  of: ModulePlan,
  donor: PlanModel,
  warnings: string[],
): [way: readonly string[], changes: Record<string, unknown>] {
  const key = of.module.layersKey ?? [];
  const [way, name] = [key.slice(0, -1), key.at(-1)];
  const changes: Record<string, unknown> = {};
  const section = sectionOf(donor.config, way);
  const origins = originsOf(of);
  const before = of.module.layers.length;
  const same = origins.length === before && origins.every(({ layer }, i) => layer === i);
  if (name === undefined || section === undefined || same) return [way, changes];
  changes[name] = origins.length;
  for (const [list, value] of Object.entries(section)) {
    if (!Array.isArray(value)) continue;
    if (LAYER_INDICES.has(list)) {
      const chosen = ({ model, layer }: LayerOrigin): boolean => {
        const indices = sectionOf(model.config, way)?.[list];
        return Array.isArray(indices) && indices.includes(layer);
      };
      changes[list] = origins.flatMap((origin, i) => (chosen(origin) ? [i] : []));
    } else if (value.length === before && PER_LAYER.test(list)) {
      const entries = origins.map((origin) => entryOf(origin, way, list));
      if (entries.every((entry) => entry !== undefined)) changes[list] = entries;
      else warnings.push(`config.json: "${list}" has an entry a layer, and not every model has it; it stays as it is`);
    }
  }
  for (const period of PERIODS) {
    const value = section[period];
    if (typeof value === 'number' && value > 1 && origins.some(({ layer }, i) => (layer - i) % value !== 0))
      warnings.push(`config.json: "${period}" is ${value}, and layers change their kind with their number`);
  }
  return [way, changes];
}

/** The type of most elements. */
function commonDtype(tensors: readonly PlannedTensor[]): MergeDType {
  const elements = new Map<MergeDType, number>();
  for (const { dtype, shape } of tensors) elements.set(dtype, (elements.get(dtype) ?? 0) + elementCount(shape));
  return [...elements].reduce((best, entry) => (entry[1] > best[1] ? entry : best))[0];
}

const DTYPE_KEYS = ['torch_dtype', 'dtype'];

/** Sets keys of the top and of every object of the config that has them. */
function everywhere(config: Config, keys: readonly string[], value: unknown, into: Changes): void {
  for (const key of keys) if (config[key] !== undefined && config[key] !== null) into.top[key] = value;
  for (const [name, section] of Object.entries(config)) {
    if (typeof section !== 'object' || section === null || Array.isArray(section)) continue;
    for (const key of keys) {
      const present = (section as Config)[key];
      if (present === undefined || present === null) continue;
      into.nested[name] = { ...into.nested[name], [key]: value };
    }
  }
}

interface Changes {
  readonly top: Record<string, unknown>;
  readonly nested: Record<string, Record<string, unknown>>;
}

/** A model whose logits are made with its input embeddings: by its config, or by the lack of a head. */
function isTied({ config, source, reference }: PlanModel): boolean {
  const hasHead = [...source.tensors.keys()].some(isHead);
  // An adapter may change the one and not the other.
  return !hasHead || (config.tie_word_embeddings === true && reference.lora === undefined);
}

function vocabularyRows(tensors: readonly PlannedTensor[]): number | undefined {
  return tensors.find(({ name, vocabulary }) => vocabulary && !isHead(name) && isVocabularyTensor(name))?.shape[0];
}

/**
 * What a merge changes in the config.json that it takes over: numbers of layers and lists with an entry a layer (as in the models
 * that the layers come from), element type, vocabulary, tied embeddings.
 * @throws InputError for a model in a quantised form of other programs, which cannot be merged as it is
 */
export function mergedConfig(merge: PlannedMerge): { changes: ConfigChanges; warnings: string[] } {
  const { document, donor, models, modules, tensors } = merge;
  const { config, reference } = donor;
  const warnings: string[] = [];
  const changes: Changes = { top: {}, nested: {} };
  for (const of of modules) {
    const [[section], own] = layerChanges(of, donor, warnings);
    if (section === undefined) Object.assign(changes.top, own);
    else changes.nested[section] = { ...changes.nested[section], ...own };
  }
  for (const model of models) {
    const quantised = sectionOf(model.config, ['quantization_config'])?.quant_method;
    if (quantised !== undefined)
      throw new InputError(
        `${model.reference.text}: is quantised (${String(quantised)}): fetch the unquantised model, or dequantise it first`,
      );
  }
  if (config.quantization_config !== undefined) changes.top.quantization_config = undefined;
  const asked = document.outDtype ?? document.dtype;
  const dtype = dtypeName(asked ?? commonDtype(tensors));
  everywhere(config, DTYPE_KEYS, dtype, changes);
  if (asked !== undefined && DTYPE_KEYS.every((key) => changes.top[key] === undefined)) changes.top.torch_dtype = dtype;
  const rows = vocabularyRows(tensors);
  const stored = donor.architecture.embedding;
  if (rows !== undefined && stored !== undefined && donor.source.tensors.get(stored)?.shape[0] !== rows)
    everywhere(config, ['vocab_size'], rows, changes);
  const saysTied = config.tie_word_embeddings === true || isTied(donor);
  if (saysTied && tensors.some(({ name }) => isHead(name)) && !models.every(isTied)) {
    changes.top.tie_word_embeddings = false;
    everywhere(config, ['tie_word_embeddings'], false, changes);
    warnings.push(
      `${reference.text} makes its logits with its embeddings and another model has a head: the output has one, and tie_word_embeddings is false`,
    );
  }
  if (donor.architecture.beyond.length > 0 && document.content.kind !== 'models')
    everywhere(config, BEYOND, 0, changes);
  if (reference.architecture !== undefined) changes.top.architectures = [reference.architecture];
  return { changes, warnings };
}

/**
 * Text of the output's config.json: that of a directory with the plan's changes; what is not changed keeps its text.
 * @param vocabularySize of the output's tokenizer, where one was made: rows of the embeddings
 */
export function mergedConfigText(directory: string, plan: MergePlan, vocabularySize?: number): string {
  const { top, nested } = plan.configChanges;
  const changes: Changes = {
    top: { ...top },
    nested: Object.fromEntries(Object.entries(nested).map(([key, values]) => [key, { ...values }])),
  };
  if (vocabularySize !== undefined)
    everywhere(readJson(join(directory, 'config.json')), ['vocab_size'], vocabularySize, changes);
  const text = changedConfig(directory, changes.top, changes.nested);
  if (text === undefined) throw new InputError(`${directory}: no config.json`);
  return text;
}
