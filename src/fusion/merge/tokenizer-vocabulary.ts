import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { InputError } from '../../errors.js';
import type { AddedToken } from '../../tokenizers/added-tokens.js';
import {
  chatTemplateOf,
  effectivePipeline,
  readTokenizerFiles,
  specialTokensOf,
  type TokenizerFiles,
} from '../../tokenizers/huggingface.js';
import { asSettings, flatten, isSettings, type Settings, typeOf } from '../../tokenizers/settings.js';
import type { ModelReference } from './types.js';

/** Model kinds of tokenizer.json whose vocabularies can be extended. */
export type TokenizerKind = 'BPE' | 'Unigram' | 'WordPiece' | 'WordLevel';

/** A model's tokenizer, as far as it has embedding rows. */
export interface ModelTokenizer {
  readonly reference: ModelReference;
  readonly directory: string;
  readonly files: TokenizerFiles;
  readonly kind: TokenizerKind;
  /** Every token with a row, added ones included, by text. */
  readonly tokens: ReadonlyMap<string, number>;
  /** Added tokens with a row, ascending id. */
  readonly added: readonly AddedToken[];
  /** Named special tokens by role (`eos_token`). */
  readonly named: Readonly<Record<string, string>>;
  /** Log probabilities of a Unigram vocabulary. */
  readonly scores?: ReadonlyMap<string, number>;
  /** Tokens whose id has no embedding row; they are left out. */
  readonly beyond: readonly { readonly token: string; readonly id: number }[];
  readonly chatTemplate?: string;
}

/** Files that a tokenizer may consist of. */
export const TOKENIZER_FILES = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'tokenizer.model',
  'vocab.json',
  'vocab.txt',
  'merges.txt',
  'chat_template.jinja',
  'chat_template.json',
] as const;

/** Whether there is anything of a tokenizer in the directory. */
export function hasTokenizerFiles(directory: string): boolean {
  return TOKENIZER_FILES.some((name) => !name.startsWith('chat_template') && existsSync(join(directory, name)));
}

/**
 * The tokenizer of a model directory: every token with its id, as transformers sees them. Ids at or beyond `rows` are
 * tokens that the model has no embedding for; they are left out.
 * @param rows rows of the model's embedding
 * @throws InputError where tokenizer.json is missing (naming what is there and how to convert it), damaged or of an unknown kind
 */
export function readModelTokenizer(reference: ModelReference, directory: string, rows: number): ModelTokenizer {
  const files = readTokenizerFiles(directory);
  const what = files.source ?? directory;
  const model = asSettings(files.tokenizer.model, `${what}: model`);
  const kind = kindOf(model, what);
  const vocabulary = vocabularyOf(model, kind, `${what}: model`);
  const special = specialTokensOf(files, vocabulary);
  const all = new Map(vocabulary);
  for (const token of special.added) all.set(token.content, token.id);
  const tokens = new Map<string, number>();
  const beyond: { token: string; id: number }[] = [];
  for (const [token, id] of [...all].sort((a, b) => a[1] - b[1]))
    if (id < rows) tokens.set(token, id);
    else beyond.push({ token, id });
  return {
    reference,
    directory,
    files,
    kind,
    tokens,
    added: special.added.filter(({ id }) => id < rows).sort((a, b) => a.id - b.id),
    named: special.named,
    scores: kind === 'Unigram' ? scoresOf(model) : undefined,
    beyond,
    chatTemplate: chatTemplateOf(files),
  };
}

/** `vocab_size` of config.json, also of a nested text model; undefined where the file has none. */
export function configuredRows(directory: string): number | undefined {
  const file = join(directory, 'config.json');
  if (!existsSync(file)) return undefined;
  const config: unknown = JSON.parse(readFileSync(file, 'utf8'));
  if (!isSettings(config)) return undefined;
  for (const settings of [config, config.text_config, config.llm_config])
    if (isSettings(settings) && typeof settings.vocab_size === 'number') return settings.vocab_size;
  return undefined;
}

function kindOf(model: Settings, what: string): TokenizerKind {
  // Files of before 2020 leave the type out: what else is there tells.
  const type = model.type ?? (Array.isArray(model.merges) ? 'BPE' : undefined);
  if (type === 'BPE' || type === 'Unigram' || type === 'WordPiece' || type === 'WordLevel') return type;
  throw new InputError(
    `${what}: model: the type ${JSON.stringify(typeOf(model, `${what}: model`))} is none of BPE, Unigram, WordPiece, WordLevel`,
  );
}

function vocabularyOf(model: Settings, kind: TokenizerKind, what: string): Map<string, number> {
  const entries: [unknown, unknown][] =
    kind === 'Unigram'
      ? (Array.isArray(model.vocab) ? (model.vocab as unknown[]) : []).map((entry, id) => [
          Array.isArray(entry) ? (entry[0] as unknown) : undefined,
          id,
        ])
      : Object.entries(asSettings(model.vocab, `${what}.vocab`));
  if (entries.length === 0) throw new InputError(`${what} has no "vocab"; save the tokenizer again`);
  const vocabulary = new Map<string, number>();
  for (const [token, id] of entries) {
    if (typeof token !== 'string' || typeof id !== 'number' || !Number.isInteger(id) || id < 0)
      throw new InputError(`${what}.vocab: ${JSON.stringify(token)} with the id ${JSON.stringify(id)} is no token`);
    vocabulary.set(token, id);
  }
  return vocabulary;
}

function scoresOf(model: Settings): Map<string, number> {
  const pieces = model.vocab as [string, number][];
  return new Map(pieces.map(([token, score]) => [token, score]));
}

/** In what a text must be written before tokens are looked up: tokens of two alphabets mean different texts. */
export interface TokenAlphabet {
  readonly kind: TokenizerKind;
  readonly bytes: string;
  readonly space: string;
  readonly letters: string;
  readonly wordParts: string;
}

/** The alphabet of a tokenizer's tokens, in words for messages. */
export function alphabetOf({ files, kind }: ModelTokenizer): TokenAlphabet {
  const pipeline = effectivePipeline(files);
  const normalizers = flatten(pipeline.normalizer, 'normalizers');
  const preTokenizers = flatten(pipeline.pre_tokenizer, 'pretokenizers');
  const stages = [...normalizers, ...preTokenizers];
  const model = asSettings(pipeline.model, 'model');
  const mark = stages.find(({ type }) => type === 'Metaspace')?.replacement ?? replacedSpace(normalizers);
  const bert = normalizers.find(({ type }) => type === 'BertNormalizer');
  const lower =
    normalizers.some(({ type }) => type === 'Lowercase') || (bert !== undefined && bert.lowercase !== false);
  const bare =
    normalizers.some(({ type }) => type === 'StripAccents') ||
    (bert !== undefined && (bert.strip_accents ?? bert.lowercase !== false) === true);
  const charsmap = normalizers.find(({ type }) => type === 'Precompiled')?.precompiled_charsmap;
  const prefix = model.continuing_subword_prefix ?? (kind === 'WordPiece' ? '##' : '');
  return {
    kind,
    bytes: stages.some(({ type }) => type === 'ByteLevel') ? 'byte-level tokens' : 'tokens of characters',
    space: typeof mark === 'string' ? `spaces written as "${mark}"` : 'no mark for spaces',
    letters: `${lower ? 'lower case' : 'case kept'}${bare ? ', accents stripped' : ''}${typeof charsmap === 'string' ? `, a character map of ${charsmap.length} bytes` : ''}`,
    wordParts: `prefix ${JSON.stringify(prefix)}, suffix ${JSON.stringify(model.end_of_word_suffix ?? '')} of parts of a word`,
  };
}

function replacedSpace(normalizers: readonly Settings[]): unknown {
  return normalizers.find(({ type, pattern }) => type === 'Replace' && isSettings(pattern) && pattern.String === ' ')
    ?.content;
}
