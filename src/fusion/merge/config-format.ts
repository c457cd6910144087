import { Document, isScalar, visit } from 'yaml';
import {
  type DocumentContent,
  type DocumentModel,
  dtypeName,
  type MergeDocument,
  modelReference,
  type ParameterSetting,
  type ParameterSettings,
} from './document.js';
import type { ModelReference, TokenizerSettings, TokenSettings } from './types.js';

type Plain = string | number | boolean | readonly Plain[] | { readonly [key: string]: Plain };

/** Keys whose value is undefined are left out. */
function mapping(entries: Readonly<Record<string, Plain | undefined>>): { [key: string]: Plain } {
  const present: { [key: string]: Plain } = {};
  for (const [key, value] of Object.entries(entries)) if (value !== undefined) present[key] = value;
  return present;
}

/** A reference as text where the text says all of it, else as a mapping. */
function plainReference(reference: ModelReference): Plain {
  if (reference.architecture === undefined && readsBack(reference)) return reference.text;
  const path = (name: string, revision: string | undefined): Plain => mapping({ path: name, revision });
  return mapping({
    model: path(reference.model, reference.revision),
    lora: reference.lora === undefined ? undefined : path(reference.lora, reference.loraRevision),
    override_architecture: reference.architecture,
  });
}

/** Paths with `+` or `@` do not survive as text. */
function readsBack({ text, model, revision, lora, loraRevision }: ModelReference): boolean {
  try {
    const read = modelReference(text, '');
    return (
      read.model === model && read.revision === revision && read.lora === lora && read.loraRevision === loraRevision
    );
  } catch {
    return false;
  }
}

function plainSetting(setting: ParameterSetting): Plain {
  if (setting.kind === 'plain') return setting.value;
  return setting.conditions.map(({ filter, value }) => mapping({ filter, value }));
}

function plainParameters(parameters: ParameterSettings): Plain | undefined {
  if (parameters.size === 0) return undefined;
  return Object.fromEntries([...parameters].map(([name, setting]) => [name, plainSetting(setting)]));
}

const plainModel = ({ reference, parameters }: DocumentModel): { [key: string]: Plain } =>
  mapping({ model: plainReference(reference), parameters: plainParameters(parameters) });

function plainContent(content: DocumentContent): { [key: string]: Plain } {
  if (content.kind === 'models') return { models: content.models.map(plainModel) };
  return {
    slices: content.slices.map(({ sources, base, parameters }) =>
      mapping({
        sources: sources.map((source) => ({ ...plainModel(source), layer_range: source.layerRange })),
        base_model: base === undefined ? undefined : plainReference(base),
        parameters: plainParameters(parameters),
      }),
    ),
  };
}

function plainToken({ source, force }: TokenSettings): Plain {
  const from = (): Plain | undefined => {
    if (source === undefined) return undefined;
    if (source.kind === 'zero') return { kind: 'zero' };
    if (source.kind === 'model') return plainReference(source.model);
    const { kind, model, token, tokenId } = source;
    return mapping({ kind, model: plainReference(model), token, token_id: tokenId });
  };
  return mapping({ source: from(), force: force ? true : undefined });
}

function plainTokenizer({ source, padToMultipleOf, tokens }: TokenizerSettings): Plain {
  return mapping({
    source: typeof source === 'string' ? source : plainReference(source),
    tokens:
      tokens.size === 0 ? undefined : Object.fromEntries([...tokens].map(([token, own]) => [token, plainToken(own)])),
    pad_to_multiple_of: padToMultipleOf,
  });
}

function plainDocument(document: MergeDocument): Plain {
  const { content, base, dtype, outDtype, tokenizer } = document;
  const inner =
    content.kind === 'modules'
      ? {
          modules: Object.fromEntries(
            content.modules.map((module) => [
              module.name,
              mapping({ ...plainContent(module.content), parameters: plainParameters(module.parameters) }),
            ]),
          ),
        }
      : plainContent(content);
  return mapping({
    name: document.name,
    ...inner,
    merge_method: document.method.name,
    base_model: base === undefined ? undefined : plainReference(base),
    parameters: plainParameters(document.parameters),
    dtype: dtype === undefined ? undefined : dtypeName(dtype),
    out_dtype: outDtype === undefined ? undefined : dtypeName(outDtype),
    tokenizer: tokenizer === undefined ? undefined : plainTokenizer(tokenizer),
    chat_template: document.chatTemplate,
  });
}

/** A document as a YAML that mergekit reads to the same effect; lists of plain values stand on one line. */
export function formatMergeDocument(document: MergeDocument): string {
  // Quotes as YAML 1.1 needs them: mergekit's reader takes a bare `yes` for true.
  const yaml = new Document(plainDocument(document), { version: '1.1' });
  visit(yaml, {
    Seq: (_, list) => {
      if (list.items.every(isScalar)) list.flow = true;
    },
  });
  return yaml.toString({ lineWidth: 0, flowCollectionPadding: false });
}
