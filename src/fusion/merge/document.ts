import { InputError } from '../../errors.js';
import type { MergeDType, MergeMethod, ModelReference, ParameterValue, TokenizerSettings } from './types.js';

/** A value, or a gradient over the layers of a slice. */
export type ScalarOrGradient = ParameterValue | readonly ParameterValue[];

/** A value for tensors whose name contains `filter`; absent or `*`: for all. */
export interface Conditional {
  readonly filter?: string;
  readonly value: ScalarOrGradient;
}

/** What a configuration may write as the value of a parameter; of a list of conditions the first that matches counts. */
export type ParameterSetting =
  | { readonly kind: 'plain'; readonly value: ScalarOrGradient }
  | { readonly kind: 'conditions'; readonly conditions: readonly Conditional[] };

/** By name of the parameter. */
export type ParameterSettings = ReadonlyMap<string, ParameterSetting>;

/** An entry of `models`. */
export interface DocumentModel {
  readonly reference: ModelReference;
  readonly parameters: ParameterSettings;
  /** Where it stands, for messages: `file:line:column`, or an option. */
  readonly place: string;
}

/** An entry of the `sources` of a slice: layers [from, to). */
export interface DocumentSource extends DocumentModel {
  readonly layerRange: readonly [from: number, to: number];
}

export interface DocumentSlice {
  readonly sources: readonly DocumentSource[];
  /** Instead of the document's base. */
  readonly base?: ModelReference;
  readonly parameters: ParameterSettings;
  readonly place: string;
}

/** Whole models, or pieces of their layers in the order of the output. */
export type DocumentContent =
  | { readonly kind: 'models'; readonly models: readonly DocumentModel[] }
  | { readonly kind: 'slices'; readonly slices: readonly DocumentSlice[] };

/** One part of a model with several stacks of layers. */
export interface DocumentModule {
  readonly name: string;
  readonly content: DocumentContent;
  readonly parameters: ParameterSettings;
  readonly place: string;
}

/** One merge as a configuration writes it: names are resolved, values checked, nothing is looked up in models yet. */
export interface MergeDocument {
  /** Where it stands, for messages. */
  readonly place: string;
  /** By which other documents of the same file name its result as a model. */
  readonly name?: string;
  readonly method: MergeMethod;
  readonly content: DocumentContent | { readonly kind: 'modules'; readonly modules: readonly DocumentModule[] };
  readonly base?: ModelReference;
  readonly parameters: ParameterSettings;
  readonly dtype?: MergeDType;
  readonly outDtype?: MergeDType;
  readonly tokenizer?: TokenizerSettings;
  /** Whether the settings were written as `tokenizer_source`. */
  readonly tokenizerSourceOnly?: boolean;
  readonly chatTemplate?: string;
  /** Sentences for the user: keys without effect. */
  readonly notes: readonly string[];
}

/** Names of element types in configurations; `torch.` may stand before them. */
export const DTYPE_NAMES: Readonly<Record<string, MergeDType>> = {
  bfloat16: 'BF16',
  float16: 'F16',
  float32: 'F32',
  float64: 'F64',
};

/** The name of an element type in configurations. */
export function dtypeName(dtype: MergeDType): string {
  return Object.keys(DTYPE_NAMES).find((name) => DTYPE_NAMES[name] === dtype) ?? dtype;
}

/** `path@revision`, or a path alone. */
function pathParts(text: string, place: string): { readonly path: string; readonly revision?: string } {
  const [path, revision, ...more] = text.split('@');
  if (more.length > 0) throw new InputError(`${place}: model "${text}" has more than one @`);
  if (path === '') throw new InputError(`${place}: model "${text}" has no path`);
  return revision === undefined ? { path } : { path, revision };
}

/**
 * Reads `path[@revision][+lora[@revision]]`.
 * @param place for messages
 * @throws InputError for more than one `+`, or more than one `@` in a part
 */
export function modelReference(text: string, place: string): ModelReference {
  const [model, lora, ...more] = text.split('+');
  if (more.length > 0) throw new InputError(`${place}: model "${text}" has more than one +; write it as a mapping`);
  return joinReference(pathParts(model, place), lora === undefined ? undefined : pathParts(lora, place));
}

interface PathParts {
  readonly path: string;
  readonly revision?: string;
}

/** A reference from its parts, whatever characters their paths have. */
export function joinReference(model: PathParts, lora?: PathParts, architecture?: string): ModelReference {
  const text = (parts: PathParts): string =>
    parts.revision === undefined ? parts.path : `${parts.path}@${parts.revision}`;
  return {
    text: lora === undefined ? text(model) : `${text(model)}+${text(lora)}`,
    model: model.path,
    ...(model.revision === undefined ? {} : { revision: model.revision }),
    ...(lora === undefined ? {} : { lora: lora.path }),
    ...(lora?.revision === undefined ? {} : { loraRevision: lora.revision }),
    ...(architecture === undefined ? {} : { architecture }),
  };
}

/** Every content of a document, module by module. */
export function contentsOf(document: MergeDocument): readonly DocumentContent[] {
  const { content } = document;
  return content.kind === 'modules' ? content.modules.map((module) => module.content) : [content];
}

/** Models in the order in which the document names them; a base that stands in no list comes last. */
export function referencedModels(document: MergeDocument): ModelReference[] {
  const models = new Map<string, ModelReference>();
  const add = (reference: ModelReference | undefined): void => {
    if (reference !== undefined && !models.has(reference.text)) models.set(reference.text, reference);
  };
  const contents = contentsOf(document);
  for (const content of contents) {
    if (content.kind === 'models') for (const { reference } of content.models) add(reference);
    else for (const { sources } of content.slices) for (const { reference } of sources) add(reference);
  }
  for (const content of contents) if (content.kind === 'slices') for (const { base } of content.slices) add(base);
  add(document.base);
  return [...models.values()];
}

/** Models that only the tokenizer section names: their vocabularies are read, and single rows of their embeddings. */
export function tokenizerModels(document: MergeDocument): ModelReference[] {
  const { tokenizer } = document;
  if (tokenizer === undefined) return [];
  const known = new Set(referencedModels(document).map(({ text }) => text));
  const models = [...tokenizer.tokens.values()].flatMap(({ source }) =>
    source === undefined || source.kind === 'zero' ? [] : [source.model],
  );
  if (typeof tokenizer.source !== 'string') models.unshift(tokenizer.source);
  return models.filter(({ text }) => {
    const news = !known.has(text);
    known.add(text);
    return news;
  });
}

/**
 * The documents of a file in an order in which each comes behind those whose results it names as a model.
 * @throws InputError when two have one name, two have none, or they go in circles
 */
export function orderDocuments(documents: readonly MergeDocument[]): MergeDocument[] {
  const byName = new Map<string | undefined, MergeDocument>();
  for (const document of documents) {
    const before = byName.get(document.name);
    if (before !== undefined) {
      throw new InputError(
        document.name === undefined
          ? `${document.place}: only one document may be without "name", and ${before.place} is another`
          : `${document.place}: "${document.name}" is also the name of the document at ${before.place}`,
      );
    }
    byName.set(document.name, document);
  }
  const ordered: MergeDocument[] = [];
  const visit = (document: MergeDocument, path: readonly MergeDocument[]): void => {
    if (ordered.includes(document)) return;
    if (path.includes(document)) {
      const names = [...path.slice(path.indexOf(document)), document].map(({ name }) => `"${name ?? ''}"`);
      throw new InputError(`${document.place}: documents need each other's results: ${names.join(' needs ')}`);
    }
    for (const { model } of [...referencedModels(document), ...tokenizerModels(document)]) {
      const needed = byName.get(model);
      if (needed !== undefined) visit(needed, [...path, document]);
    }
    ordered.push(document);
  };
  for (const document of documents) visit(document, []);
  return ordered;
}
