import { didYouMean, InputError } from '../../errors.js';
import type { Placed, PlacedEntry, PlacedMapping } from '../../formats/placed-yaml.js';
import {
  type Conditional,
  DTYPE_NAMES,
  joinReference,
  modelReference,
  type ParameterSetting,
  type ParameterSettings,
  type ScalarOrGradient,
} from './document.js';
import { MERGE_METHODS } from './methods/registry.js';
import type {
  MergeDType,
  MergeMethod,
  ModelReference,
  ParameterDeclaration,
  ParameterValue,
  TokenizerSettings,
  TokenSettings,
} from './types.js';

/** What a value is, for messages. */
export function describe(value: Placed): string {
  if (value.kind === 'mapping') return 'a mapping';
  if (value.kind === 'list') return 'a list';
  return value.value === null ? 'empty' : JSON.stringify(value.source);
}

/** @throws InputError when the value is no mapping */
export function mappingOf(value: Placed, what: string): PlacedMapping {
  if (value.kind !== 'mapping')
    throw new InputError(`${value.place}: ${what} is ${describe(value)}; a mapping is needed`);
  return value;
}

/** @throws InputError when the value is no list */
export function listOf(value: Placed, what: string): readonly Placed[] {
  if (value.kind !== 'list') throw new InputError(`${value.place}: ${what} is ${describe(value)}; a list is needed`);
  return value.items;
}

/** Numbers and truth values are taken as they are written: a revision may be all digits. */
export function textOf(value: Placed, what: string): string {
  if (value.kind !== 'scalar' || value.value === null || value.source === '')
    throw new InputError(`${value.place}: ${what} is ${describe(value)}; a text is needed`);
  return typeof value.value === 'string' ? value.value : value.source;
}

/** @throws InputError when the value is no integer of at least `least` */
export function integerOf(value: Placed, what: string, least: number): number {
  const number = value.kind === 'scalar' && value.value !== null ? Number(value.value) : Number.NaN;
  if (!Number.isSafeInteger(number) || number < least)
    throw new InputError(`${value.place}: ${what} is ${describe(value)}; an integer of at least ${least} is needed`);
  return number;
}

function truthOf(value: Placed, what: string): boolean {
  const truth = value.kind === 'scalar' ? truthValue(value.value) : undefined;
  if (truth === undefined)
    throw new InputError(`${value.place}: ${what} is ${describe(value)}; true or false is needed`);
  return truth;
}

/** @throws InputError for a key that is not one of `keys`, with the nearest of them */
export function checkKeys(mapping: PlacedMapping, keys: readonly string[], what: string): void {
  for (const [key, { place }] of mapping.entries) {
    if (!keys.includes(key))
      throw new InputError(
        `${place}: unknown key "${key}" in ${what}${didYouMean(key, keys)}; keys: ${keys.join(', ')}`,
      );
  }
}

/** The value of a key; an empty one counts as absent, as mergekit reads it. */
export function optionalOf(mapping: PlacedMapping, key: string): Placed | undefined {
  const value = mapping.entries.get(key)?.value;
  return value === undefined || (value.kind === 'scalar' && value.value === null) ? undefined : value;
}

/** The value of a key that must be there. */
export function neededOf(mapping: PlacedMapping, key: string, what: string): Placed {
  const value = optionalOf(mapping, key);
  if (value === undefined) throw new InputError(`${mapping.place}: ${what} has no "${key}"`);
  return value;
}

/** @throws InputError for another name */
export function dtypeOf(value: Placed, key: string): MergeDType {
  return parseDtype(textOf(value, `"${key}"`), `${value.place}: ${key}`);
}

/** @param where begins the message */
export function parseDtype(text: string, where: string): MergeDType {
  const dtype = DTYPE_NAMES[text.replace(/^torch\./, '')];
  if (dtype === undefined) {
    const names = Object.keys(DTYPE_NAMES);
    throw new InputError(`${where} "${text}" is unknown${didYouMean(text, names)}; one of ${names.join(', ')}`);
  }
  return dtype;
}

const REFERENCE_KEYS = ['model', 'lora', 'override_architecture'];
const PATH_KEYS = ['path', 'revision'];

function pathOf(value: Placed, what: string): { readonly path: string; readonly revision?: string } {
  if (value.kind === 'mapping') {
    checkKeys(value, PATH_KEYS, what);
    const path = textOf(neededOf(value, 'path', what), `"path" of ${what}`);
    const revision = optionalOf(value, 'revision');
    return revision === undefined ? { path } : { path, revision: textOf(revision, `"revision" of ${what}`) };
  }
  const { model: path, revision, lora } = modelReference(textOf(value, what), value.place);
  if (lora !== undefined) throw new InputError(`${value.place}: ${what} is one path; "lora" is a key of its own`);
  return revision === undefined ? { path } : { path, revision };
}

/** A model as text, or as mergekit's mapping `{model: {path, revision}, lora, override_architecture}`. */
export function referenceOf(value: Placed, what: string): ModelReference {
  if (value.kind !== 'mapping') return modelReference(textOf(value, what), value.place);
  checkKeys(value, REFERENCE_KEYS, what);
  const lora = optionalOf(value, 'lora');
  const architecture = optionalOf(value, 'override_architecture');
  return joinReference(
    pathOf(neededOf(value, 'model', what), `"model" of ${what}`),
    lora === undefined ? undefined : pathOf(lora, `"lora" of ${what}`),
    architecture === undefined ? undefined : textOf(architecture, '"override_architecture"'),
  );
}

const TRUE = /^(true|t|yes|y|on|1)$/i;
const FALSE = /^(false|f|no|n|off|0)$/i;

function truthValue(value: unknown): boolean | undefined {
  if (typeof value === 'boolean') return value;
  const text = String(value);
  return TRUE.test(text) ? true : FALSE.test(text) ? false : undefined;
}

function numberValue(value: unknown): number | undefined {
  if (typeof value === 'boolean') return Number(value);
  if (typeof value === 'string' && value.trim() === '') return undefined;
  const number = Number(value);
  return Number.isFinite(number) ? number : undefined;
}

/**
 * A value as a parameter declares it; texts of numbers are numbers, as mergekit reads them.
 * @param where begins the message: place and parameter
 * @throws InputError for another type, a value out of bounds, or one that is no choice
 */
export function parameterValue(value: unknown, declaration: ParameterDeclaration, where: string): ParameterValue {
  const { kind, choices, minimum, maximum } = declaration;
  const refuse = (wanted: string): never => {
    throw new InputError(`${where} is ${JSON.stringify(value) ?? 'empty'}; ${wanted} is needed`);
  };
  if (kind === 'boolean') return truthValue(value) ?? refuse('true or false');
  if (kind === 'string') {
    const text = typeof value === 'string' ? value : refuse('a text');
    if (choices !== undefined && !choices.includes(text))
      throw new InputError(`${where} is "${text}"${didYouMean(text, choices)}; one of ${choices.join(', ')}`);
    return text;
  }
  const number = numberValue(value) ?? refuse(kind === 'integer' ? 'an integer' : 'a number');
  if (kind === 'integer' && !Number.isInteger(number)) refuse('an integer');
  if (minimum !== undefined && number < minimum) refuse(`${minimum} or more`);
  if (maximum !== undefined && number > maximum) refuse(`${maximum} or less`);
  return number;
}

function scalarOrGradient(value: Placed, declaration: ParameterDeclaration): ScalarOrGradient {
  const name = `"${declaration.name}"`;
  const scalar = (item: Placed, what: string): ParameterValue => {
    if (item.kind !== 'scalar' || item.value === null)
      throw new InputError(`${item.place}: ${what} is ${describe(item)}; a value is needed`);
    const plain = declaration.kind === 'string' && typeof item.value !== 'string' ? item.source : item.value;
    return parameterValue(plain, declaration, `${item.place}: ${what}`);
  };
  if (value.kind === 'list') return value.items.map((item) => scalar(item, `an entry of the gradient of ${name}`));
  return scalar(value, name);
}

function conditionOf(value: Placed, declaration: ParameterDeclaration): Conditional {
  const what = `a condition of "${declaration.name}"`;
  const mapping = mappingOf(value, what);
  checkKeys(mapping, ['filter', 'value'], what);
  const filter = optionalOf(mapping, 'filter');
  return {
    ...(filter === undefined ? {} : { filter: textOf(filter, '"filter"') }),
    value: scalarOrGradient(neededOf(mapping, 'value', what), declaration),
  };
}

/** A value, a gradient, a condition, or a list of conditions. */
export function settingOf(value: Placed, declaration: ParameterDeclaration): ParameterSetting {
  if (value.kind === 'mapping') return { kind: 'conditions', conditions: [conditionOf(value, declaration)] };
  if (value.kind === 'list' && value.items.some(({ kind }) => kind === 'mapping'))
    return { kind: 'conditions', conditions: value.items.map((item) => conditionOf(item, declaration)) };
  return { kind: 'plain', value: scalarOrGradient(value, declaration) };
}

/** Parameters that a method declares, by name. */
export function declarationsOf(method: MergeMethod): ReadonlyMap<string, ParameterDeclaration> {
  return new Map([...method.global, ...method.perModel].map((declaration) => [declaration.name, declaration]));
}

/** Names that some method declares; in a configuration of another one they say nothing, and are no slip of the pen. */
export function knownParameters(): ReadonlySet<string> {
  return new Set(MERGE_METHODS.flatMap(({ global, perModel }) => [...global, ...perModel].map(({ name }) => name)));
}

/** What stands at the level of a model cannot be a parameter of the whole tensor. */
export type ParameterLevel = 'model' | 'wider';

/**
 * The `parameters` of a level of a configuration.
 * @param notes gets a sentence for every parameter that has no effect here
 * @throws InputError for a name that no method has, and for values that the method's declaration does not allow
 */
export function parametersOf(
  value: Placed | undefined,
  method: MergeMethod,
  level: ParameterLevel,
  notes: string[],
): ParameterSettings {
  const settings = new Map<string, ParameterSetting>();
  if (value === undefined) return settings;
  const declarations = declarationsOf(method);
  const perModel = new Set(method.perModel.map(({ name }) => name));
  for (const [name, entry] of mappingOf(value, '"parameters"').entries) {
    const declaration = declarations.get(name);
    if (declaration === undefined) notes.push(withoutEffect(name, entry, method));
    else if (level === 'model' && !perModel.has(name))
      notes.push(`${entry.place}: "${name}" of ${method.name} belongs to no single model; it has no effect here`);
    else if (entry.value.kind !== 'scalar' || entry.value.value !== null)
      settings.set(name, settingOf(entry.value, declaration));
  }
  return settings;
}

function withoutEffect(name: string, { place }: PlacedEntry, method: MergeMethod): string {
  if (knownParameters().has(name)) return `${place}: ${method.name} has no parameter "${name}"; it has no effect`;
  const names = [...declarationsOf(method).keys()];
  const list = names.length === 0 ? 'it has none' : `its parameters: ${names.join(', ')}`;
  throw new InputError(`${place}: ${method.name} has no parameter "${name}"${didYouMean(name, names)}; ${list}`);
}

function tokenSource(value: Placed, what: string): TokenSettings['source'] {
  if (value.kind !== 'mapping') return { kind: 'model', model: referenceOf(value, what) };
  if (!value.entries.has('kind')) return { kind: 'model', model: referenceOf(value, what) };
  const kind = textOf(neededOf(value, 'kind', what), `"kind" of ${what}`);
  if (kind === 'zero') {
    checkKeys(value, ['kind'], what);
    return { kind };
  }
  if (kind !== 'model_token') {
    const { place } = value.entries.get('kind') ?? value;
    const kinds = ['zero', 'model_token'];
    throw new InputError(
      `${place}: "kind" of ${what} is "${kind}"${didYouMean(kind, kinds)}; one of ${kinds.join(', ')}`,
    );
  }
  checkKeys(value, ['kind', 'model', 'token', 'token_id'], what);
  const model = referenceOf(neededOf(value, 'model', what), `"model" of ${what}`);
  const [token, id] = [optionalOf(value, 'token'), optionalOf(value, 'token_id')];
  if ((token === undefined) === (id === undefined))
    throw new InputError(`${value.place}: ${what} needs one of "token" and "token_id"`);
  return token === undefined
    ? { kind, model, tokenId: id === undefined ? 0 : integerOf(id, '"token_id"', 0) }
    : { kind, model, token: textOf(token, '"token"') };
}

function tokenSettings(token: string, value: Placed): TokenSettings {
  const what = `token ${JSON.stringify(token)}`;
  const mapping = mappingOf(value, what);
  checkKeys(mapping, ['source', 'force'], what);
  const source = optionalOf(mapping, 'source');
  const force = optionalOf(mapping, 'force');
  return {
    ...(source === undefined ? {} : { source: tokenSource(source, `the source of ${what}`) }),
    force: force === undefined ? false : truthOf(force, `"force" of ${what}`),
  };
}

/** `union`, `base` or a model. */
export function tokenizerSource(value: Placed, what: string): TokenizerSettings['source'] {
  if (value.kind === 'scalar' && (value.value === 'union' || value.value === 'base')) return value.value;
  return referenceOf(value, what);
}

/** The `tokenizer` section. */
export function tokenizerOf(value: Placed): TokenizerSettings {
  const mapping = mappingOf(value, '"tokenizer"');
  checkKeys(mapping, ['source', 'tokens', 'pad_to_multiple_of'], '"tokenizer"');
  const source = optionalOf(mapping, 'source');
  const tokens = optionalOf(mapping, 'tokens');
  const multiple = optionalOf(mapping, 'pad_to_multiple_of');
  const entries = tokens === undefined ? [] : [...mappingOf(tokens, '"tokens"').entries];
  return {
    source: source === undefined ? 'union' : tokenizerSource(source, '"source" of the tokenizer'),
    ...(multiple === undefined ? {} : { padToMultipleOf: integerOf(multiple, '"pad_to_multiple_of"', 1) }),
    tokens: new Map(entries.map(([token, entry]) => [token, tokenSettings(token, entry.value)])),
  };
}
