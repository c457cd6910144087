import { didYouMean, InputError } from '../../errors.js';
import { type Placed, type PlacedMapping, readPlacedYaml } from '../../formats/placed-yaml.js';
import {
  checkKeys,
  dtypeOf,
  integerOf,
  knownParameters,
  listOf,
  mappingOf,
  neededOf,
  optionalOf,
  parametersOf,
  referenceOf,
  textOf,
  tokenizerOf,
  tokenizerSource,
} from './config-values.js';
import type {
  DocumentContent,
  DocumentModel,
  DocumentModule,
  DocumentSlice,
  DocumentSource,
  MergeDocument,
} from './document.js';
import { METHOD_NAMES, mergeMethod } from './methods/registry.js';
import type { MergeMethod, TokenizerSettings } from './types.js';

const CONTENT_KEYS = ['models', 'slices', 'modules'] as const;
const TOP_KEYS = [
  'merge_method',
  ...CONTENT_KEYS,
  'base_model',
  'parameters',
  'dtype',
  'out_dtype',
  'tokenizer_source',
  'tokenizer',
  'chat_template',
  'name',
];
/** Keys that configurations carry though mergekit never read them there. */
const IGNORED_KEYS: ReadonlySet<string> = new Set(['allow_crimes', 'embed_slerp', 'int8_mask', 'random_seed']);

interface Reading {
  readonly method: MergeMethod;
  readonly notes: string[];
}

function modelOf(value: Placed, { method, notes }: Reading): DocumentModel {
  const mapping = mappingOf(value, 'an entry of "models"');
  for (const [key, { place }] of mapping.entries)
    if (key === 'layer_range') notes.push(`${place}: "layer_range" has no effect in "models"; use "slices" for layers`);
  checkKeys(mapping, ['model', 'parameters', 'layer_range'], 'an entry of "models"');
  return {
    reference: referenceOf(neededOf(mapping, 'model', 'an entry of "models"'), '"model"'),
    parameters: parametersOf(optionalOf(mapping, 'parameters'), method, 'model', notes),
    place: mapping.place,
  };
}

function sourceOf(value: Placed, { method, notes }: Reading): DocumentSource {
  const what = 'a source of a slice';
  const mapping = mappingOf(value, what);
  checkKeys(mapping, ['model', 'layer_range', 'parameters'], what);
  const range = neededOf(mapping, 'layer_range', what);
  const limits = listOf(range, '"layer_range"').map((limit) => integerOf(limit, 'a limit of "layer_range"', 0));
  const [from, to] = limits;
  if (limits.length !== 2 || from >= to)
    throw new InputError(
      `${range.place}: "layer_range" is [${limits}]; [first, last + 1] is needed, first below last + 1`,
    );
  return {
    reference: referenceOf(neededOf(mapping, 'model', what), '"model"'),
    layerRange: [from, to],
    parameters: parametersOf(optionalOf(mapping, 'parameters'), method, 'model', notes),
    place: mapping.place,
  };
}

function sliceOf(value: Placed, reading: Reading): DocumentSlice {
  const mapping = mappingOf(value, 'an entry of "slices"');
  checkKeys(mapping, ['sources', 'base_model', 'residual_weight', 'parameters'], 'an entry of "slices"');
  const residual = mapping.entries.get('residual_weight');
  if (residual !== undefined) reading.notes.push(`${residual.place}: "residual_weight" has no effect`);
  const sources = neededOf(mapping, 'sources', 'an entry of "slices"');
  const items = listOf(sources, '"sources"');
  if (items.length === 0) throw new InputError(`${sources.place}: "sources" is empty`);
  const base = optionalOf(mapping, 'base_model');
  return {
    sources: items.map((item) => sourceOf(item, reading)),
    ...(base === undefined ? {} : { base: referenceOf(base, '"base_model"') }),
    parameters: parametersOf(optionalOf(mapping, 'parameters'), reading.method, 'wider', reading.notes),
    place: mapping.place,
  };
}

/** The one of `keys` that is there and not empty. */
function contentKey<K extends string>(mapping: PlacedMapping, keys: readonly K[], what: string): K {
  const present = keys.filter((key) => {
    const value = optionalOf(mapping, key);
    if (value === undefined) return false;
    return !(value.kind === 'list' && value.items.length === 0);
  });
  const list = keys.map((key) => `"${key}"`).join(', ');
  if (present.length === 1) return present[0];
  if (present.length === 0) throw new InputError(`${mapping.place}: ${what} needs one of ${list}`);
  const { place } = mapping.entries.get(present[1]) ?? mapping;
  throw new InputError(`${place}: ${what} has "${present[0]}" and "${present[1]}"; one of ${list} is needed`);
}

function contentOf(mapping: PlacedMapping, key: 'models' | 'slices', reading: Reading): DocumentContent {
  const items = listOf(neededOf(mapping, key, key), `"${key}"`);
  return key === 'models'
    ? { kind: 'models', models: items.map((item) => modelOf(item, reading)) }
    : { kind: 'slices', slices: items.map((item) => sliceOf(item, reading)) };
}

function moduleOf(name: string, value: Placed, reading: Reading): DocumentModule {
  const what = `module "${name}"`;
  const mapping = mappingOf(value, what);
  checkKeys(mapping, ['models', 'slices', 'parameters'], what);
  return {
    name,
    content: contentOf(mapping, contentKey(mapping, ['models', 'slices'], what), reading),
    parameters: parametersOf(optionalOf(mapping, 'parameters'), reading.method, 'wider', reading.notes),
    place: mapping.place,
  };
}

function checkTopKeys(mapping: PlacedMapping, notes: string[]): void {
  const parameters = knownParameters();
  for (const [key, { place }] of mapping.entries) {
    if (TOP_KEYS.includes(key)) continue;
    if (parameters.has(key)) notes.push(`${place}: "${key}" has no effect here; parameters stand under "parameters"`);
    else if (IGNORED_KEYS.has(key)) notes.push(`${place}: "${key}" has no effect`);
    else
      throw new InputError(`${place}: unknown key "${key}"${didYouMean(key, TOP_KEYS)}; keys: ${TOP_KEYS.join(', ')}`);
  }
}

function methodOf(mapping: PlacedMapping): MergeMethod {
  const value = neededOf(mapping, 'merge_method', 'the configuration');
  const name = textOf(value, '"merge_method"');
  if (METHOD_NAMES.includes(name)) return mergeMethod(name);
  throw new InputError(
    `${value.place}: unknown merge_method "${name}"${didYouMean(name, METHOD_NAMES)}; known: ${METHOD_NAMES.join(', ')}`,
  );
}

function tokenizerSettings(mapping: PlacedMapping): TokenizerSettings | undefined {
  const [source, section] = [optionalOf(mapping, 'tokenizer_source'), optionalOf(mapping, 'tokenizer')];
  if (source !== undefined && section !== undefined) {
    const { place } = mapping.entries.get('tokenizer') ?? mapping;
    throw new InputError(`${place}: "tokenizer" and "tokenizer_source" exclude each other`);
  }
  if (section !== undefined) return tokenizerOf(section);
  if (source === undefined) return undefined;
  return { source: tokenizerSource(source, '"tokenizer_source"'), tokens: new Map() };
}

function documentOf(value: Placed): MergeDocument {
  const mapping = mappingOf(value, 'the configuration');
  const notes: string[] = [];
  checkTopKeys(mapping, notes);
  const method = methodOf(mapping);
  const reading: Reading = { method, notes };
  const text = (key: string): string | undefined => {
    const scalar = optionalOf(mapping, key);
    return scalar === undefined ? undefined : textOf(scalar, `"${key}"`);
  };
  const key = contentKey(mapping, CONTENT_KEYS, 'the configuration');
  const modules = key === 'modules' ? mappingOf(neededOf(mapping, key, key), '"modules"').entries : undefined;
  const content: MergeDocument['content'] =
    key === 'modules'
      ? { kind: key, modules: [...(modules ?? [])].map(([name, entry]) => moduleOf(name, entry.value, reading)) }
      : contentOf(mapping, key, reading);
  const [name, base, chatTemplate] = [text('name'), optionalOf(mapping, 'base_model'), text('chat_template')];
  const [dtype, outDtype, tokenizer] = [
    optionalOf(mapping, 'dtype'),
    optionalOf(mapping, 'out_dtype'),
    tokenizerSettings(mapping),
  ];
  return {
    place: mapping.place,
    method,
    content,
    parameters: parametersOf(optionalOf(mapping, 'parameters'), method, 'wider', notes),
    notes,
    ...(name === undefined ? {} : { name }),
    ...(base === undefined ? {} : { base: referenceOf(base, '"base_model"') }),
    ...(dtype === undefined ? {} : { dtype: dtypeOf(dtype, 'dtype') }),
    ...(outDtype === undefined ? {} : { outDtype: dtypeOf(outDtype, 'out_dtype') }),
    ...(tokenizer === undefined ? {} : { tokenizer }),
    ...(chatTemplate === undefined ? {} : { chatTemplate }),
  };
}

/**
 * Reads a merge configuration as mergekit 0.1.4 writes it: one document, or several that name each other's results.
 * @param file names the file in messages, which are all `file:line:column: what is wrong`
 * @throws InputError for what is no YAML, unknown keys, methods and parameters (with the nearest name), values of a wrong type or
 * out of bounds, and documents with one name
 */
export function parseMergeDocuments(text: string, file: string): MergeDocument[] {
  const documents = readPlacedYaml(text, file).map(documentOf);
  if (documents.length === 0) throw new InputError(`${file}: the configuration is empty`);
  return documents;
}
