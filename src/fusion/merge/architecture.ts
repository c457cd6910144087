import { InputError } from '../../errors.js';
import type { Config } from '../../models/config-reader.js';
import { type LayerCount, layerCounts, stackCount } from './layer-counts.js';

/** One stack of layers of a model with the tensors around it. */
export interface ModelModule {
  /** `default` where a model has one, else `text_decoder`, `vision_tower`, `encoder`, `decoder`, `shared` ... */
  readonly name: string;
  /** `model.layers`; absent in a module without layers. */
  readonly prefix?: string;
  /** Of every layer: tensors by their name within it. */
  readonly layers: readonly ReadonlyMap<string, string>[];
  /** Tensors that come before the layers: embeddings. */
  readonly before: readonly string[];
  /** Tensors that come after them: norms and heads. */
  readonly after: readonly string[];
  /** Where config.json has the number of layers. */
  readonly layersKey?: readonly string[];
}

/** The structure of a model's weights, read off the names of its tensors. */
export interface Architecture {
  /** `architectures` of the config, else its model type. */
  readonly name: string;
  readonly modules: readonly ModelModule[];
  /** Tensors of layers beyond those that config.json counts (they predict further tokens). */
  readonly beyond: readonly string[];
  /** Buffers that every loader computes anew. */
  readonly buffers: readonly string[];
  /** Input embeddings, by which a model without a head makes its logits. */
  readonly embedding?: string;
}

const LAYER = /^(?:(.*?)\.)?(\d+)\.(.+)$/;
const BUFFERS: readonly RegExp[] = [
  /(^|\.)rotary_emb\.(inv_freq|cos_cached|sin_cached)$/,
  /\.attn\.(bias|masked_bias)$/,
  /\.attention\.(bias|masked_bias)$/,
  /(^|\.)position_ids$/,
];
const BRIDGE = /merger|projector|connector/;

const HEAD =
  /^(?:.+\.)?(?:lm_head(?:\.decoder|\.linear)?|embed_out|output_layer|proj_out|vocab_projector|predictions\.decoder)\.(?:weight|bias)$|^(?:model\.)?output\.weight$|^(?:lm_head|cls\.predictions)\.bias$/;
const EMBEDDING =
  /(?:^|\.)(?:embed_tokens(?:_per_layer)?|wte|word_embeddings|tok_embeddings|embed_in|shared|embedding\.word_embeddings)\.weight$|^(?:backbone\.)?embeddings\.weight$/;
const AFTER = /embed_out|lm_head|embedding_norm|post|proj_out|output/;
const BEFORE =
  /embed|wte\.|wpe\.|patch|(^|\.)conv[12]\.|pre_?(layer)?norm|(ln|layernorm|norm)_pre|relative_pe|relative_attention_bias|rotary|position|token_type|class_embedding|(^|\.)shared\./;

/** Rows of the tensor are tokens of the vocabulary: input embeddings, heads and their biases. */
export function isVocabularyTensor(name: string): boolean {
  return HEAD.test(name) || EMBEDDING.test(name);
}

/** A head, which a model may lack that makes its logits with the input embeddings. */
export function isHead(name: string): boolean {
  return HEAD.test(name) && name.endsWith('.weight');
}

/** The tensor that gives each token its vector. */
export function inputEmbedding(names: Iterable<string>): string | undefined {
  return [...names].find((name) => EMBEDDING.test(name) && !name.includes('per_layer'));
}

/** Those of a model's tensors whose rows are tokens, the input embeddings first. */
export function vocabularyTensors(names: Iterable<string>): string[] {
  const found = [...names].filter(isVocabularyTensor);
  return [...found.filter((name) => EMBEDDING.test(name)), ...found.filter((name) => !EMBEDDING.test(name))];
}

const isBefore = (name: string): boolean => BEFORE.test(name) && !AFTER.test(name);

interface Run {
  readonly prefix: string;
  readonly layers: Map<string, string>[];
}

/** Stacks by the first number in tensors' names. @throws InputError when a stack lacks a layer */
function findRuns(names: readonly string[], counts: readonly LayerCount[], path: string): Run[] {
  const byPrefix = new Map<string, Map<number, Map<string, string>>>();
  for (const name of names) {
    const match = LAYER.exec(name);
    if (match === null || BRIDGE.test(match[1] ?? '')) continue;
    const [, prefix = '', index, module] = match;
    const run = byPrefix.get(prefix) ?? new Map<number, Map<string, string>>();
    byPrefix.set(prefix, run);
    const layer = run.get(Number(index)) ?? new Map<string, string>();
    run.set(Number(index), layer);
    layer.set(module, name);
  }
  return [...byPrefix].flatMap(([prefix, run]) => {
    const layers = Array.from({ length: run.size }, (_, i) => run.get(i));
    if (layers.every((layer) => layer !== undefined)) return [{ prefix, layers }];
    const length = Math.max(...run.keys()) + 1;
    const missing = layers.indexOf(undefined);
    if (stackCount(counts, prefix, length) !== undefined && 2 * run.size > length)
      throw new InputError(`${path}: layer ${missing} of ${length} (${prefix}) has no tensors`);
    return [];
  });
}

interface Stack extends Run {
  readonly count?: LayerCount;
}

/** Runs whose length the config knows are stacks of layers, and so is the longest one. */
function stacksOf(
  runs: readonly Run[],
  counts: readonly LayerCount[],
  path: string,
): { stacks: Stack[]; beyond: string[] } {
  const stacks: Stack[] = runs.flatMap((run) => {
    const count = stackCount(counts, run.prefix, run.layers.length);
    return count === undefined ? [] : [{ ...run, count }];
  });
  const longest = runs.reduce<Run | undefined>(
    (best, run) => (best === undefined || run.layers.length > best.layers.length ? run : best),
    undefined,
  );
  if (longest === undefined || stacks.some(({ prefix }) => prefix === longest.prefix)) return { stacks, beyond: [] };
  const claimed = new Set(stacks.map(({ count }) => count?.key.join('.')));
  const [count] = counts.filter(({ key }) => !claimed.has(key.join('.')));
  if (count === undefined) return { stacks: [...stacks, longest], beyond: [] };
  const { prefix, layers } = longest;
  if (count.value > layers.length) {
    throw new InputError(
      `${path}: config.json has ${count.value} layers (${count.key.join('.')}), and the tensors have ${layers.length} (${prefix})`,
    );
  }
  const beyond = layers.slice(count.value).flatMap((layer) => [...layer.values()]);
  return { stacks: [...stacks, { prefix, layers: layers.slice(0, count.value), count }], beyond };
}

function nameOfStack(prefix: string, others: readonly Run[]): string {
  if (/vision|visual|image/.test(prefix)) return 'vision_tower';
  if (/audio|speech/.test(prefix)) return 'audio_tower';
  const pair = ['encoder', 'decoder'].every((part) => others.some((run) => run.prefix.split('.').includes(part)));
  if (pair) return prefix.split('.').includes('decoder') ? 'decoder' : 'encoder';
  return 'text_decoder';
}

/** Dotted parts that two names share at their beginning. */
function sharedParts(a: string, b: string): number {
  const [left, right] = [a.split('.'), b.split('.')];
  let shared = 0;
  while (shared < left.length && left[shared] === right[shared]) shared++;
  return shared;
}

function severalModules(stacks: readonly Stack[], loose: readonly string[]): ModelModule[] {
  const members = new Map<string, string[]>();
  const text = stacks.find(({ prefix }) => nameOfStack(prefix, stacks) === 'text_decoder');
  const put = (module: string, name: string): void => {
    members.set(module, [...(members.get(module) ?? []), name]);
  };
  const names = new Map<Stack, string>();
  for (const stack of stacks) {
    const name = nameOfStack(stack.prefix, stacks);
    names.set(stack, [...names.values()].includes(name) ? stack.prefix : name);
  }
  for (const name of loose) {
    const shared = stacks.map(({ prefix }) => sharedParts(prefix, name));
    const most = Math.max(...shared);
    const nearest = stacks.filter((_, i) => shared[i] === most);
    const home = most > 0 && nearest.length === 1 ? nearest[0] : text;
    if (BRIDGE.test(name)) put('multi_modal_projector', name);
    else put((home && names.get(home)) ?? 'shared', name);
  }
  const modules = stacks.map((stack) => moduleOf(names.get(stack) ?? stack.prefix, stack, members));
  for (const name of members.keys())
    if (!modules.some((module) => module.name === name)) modules.push(moduleOf(name, undefined, members));
  return modules;
}

function moduleOf(
  name: string,
  stack: Stack | undefined,
  members: ReadonlyMap<string, readonly string[]>,
): ModelModule {
  const loose = members.get(name) ?? [];
  return {
    name,
    layers: stack?.layers ?? [],
    before: loose.filter(isBefore),
    after: loose.filter((tensor) => !isBefore(tensor)),
    ...(stack === undefined ? {} : { prefix: stack.prefix }),
    ...(stack?.count === undefined ? {} : { layersKey: stack.count.key }),
  };
}

/** The name under which architectures are compared. */
function architectureName(config: Config): string {
  const { architectures, model_type: type } = config;
  const first: unknown = Array.isArray(architectures) ? architectures[0] : undefined;
  if (typeof first === 'string') return first;
  return typeof type === 'string' ? type : 'unknown';
}

/**
 * Reads the structure of a model off the names of its tensors: a run of `.0.`, `.1.`, `.2.` ... is a stack of layers if the
 * config counts as many; what lies outside comes before the layers (embeddings) or after them (norms, heads).
 * @param path names the model in messages
 * @throws InputError when config.json counts more layers than there are
 */
export function inferArchitecture(tensors: Iterable<string>, config: Config, path: string): Architecture {
  const all = [...tensors];
  const isBuffer = (name: string): boolean => BUFFERS.some((pattern) => pattern.test(name));
  const names = all.filter((name) => !isBuffer(name));
  const counts = layerCounts(config);
  const { stacks, beyond } = stacksOf(findRuns(names, counts, path), counts, path);
  const placed = new Set([
    ...beyond,
    ...stacks.flatMap(({ layers }) => layers.flatMap((layer) => [...layer.values()])),
  ]);
  const loose = names.filter((name) => !placed.has(name));
  const modules =
    stacks.length > 1 ? severalModules(stacks, loose) : [moduleOf('default', stacks[0], new Map([['default', loose]]))];
  const embedding = inputEmbedding(loose);
  return {
    name: architectureName(config),
    modules,
    beyond,
    buffers: all.filter(isBuffer),
    ...(embedding === undefined ? {} : { embedding }),
  };
}

const WRAPPER =
  /^(?:model\.language_model|language_model\.model|model|transformer|gpt_neox|bert|roberta|distilbert|backbone)\./;
const WRAPPERS = ['', 'model.', 'transformer.', 'gpt_neox.', 'bert.', 'roberta.', 'distilbert.', 'backbone.'];
const SPELLINGS: readonly (readonly [RegExp, string])[] = [
  [/LayerNorm\.gamma$/, 'LayerNorm.weight'],
  [/LayerNorm\.beta$/, 'LayerNorm.bias'],
  [/LayerNorm\.weight$/, 'LayerNorm.gamma'],
  [/LayerNorm\.bias$/, 'LayerNorm.beta'],
];

/**
 * The name under which a model has a tensor that another one calls `name`: itself, with or without the prefix of the class that
 * wraps the layers, or in an older spelling.
 */
export function aliasIn(name: string, has: (name: string) => boolean): string | undefined {
  if (has(name)) return name;
  const spelled = SPELLINGS.flatMap(([pattern, other]) => (pattern.test(name) ? [name.replace(pattern, other)] : []));
  const bare = [name, ...spelled].map((text) => text.replace(WRAPPER, ''));
  const wrapped = bare.flatMap((text) =>
    [...WRAPPERS, 'model.language_model.', 'language_model.model.'].map((w) => w + text),
  );
  return [...spelled, ...wrapped].find(has);
}
