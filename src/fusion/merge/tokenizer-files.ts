import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { AddedToken } from '../../tokenizers/added-tokens.js';
import { asSettings, isSettings, type Settings } from '../../tokenizers/settings.js';
import { type Merge, reachTokens } from './bpe-reach.js';
import { type ModelTokenizer, TOKENIZER_FILES } from './tokenizer-vocabulary.js';

/** A small file of the output. */
export interface OutputFile {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** A vocabulary that grew out of a base tokenizer's. */
export interface ExtendedVocabulary {
  /** Token to id, added tokens included. */
  readonly tokens: ReadonlyMap<string, number>;
  /** Tokens of the model's vocabulary that the base lacks, ascending id, with their score in a Unigram vocabulary. */
  readonly ordinary: readonly { readonly token: string; readonly score?: number }[];
  /** All added tokens. */
  readonly added: readonly AddedToken[];
}

/** The files as they stand in the directory, with another chat template where one is given. */
export function copiedFiles(directory: string, chatTemplate: string | undefined): OutputFile[] {
  const files = TOKENIZER_FILES.filter((name) => existsSync(join(directory, name))).map((name) => ({
    name,
    bytes: new Uint8Array(readFileSync(join(directory, name))),
  }));
  return chatTemplate === undefined ? files : withChatTemplate(files, chatTemplate);
}

/**
 * tokenizer.json, tokenizer_config.json and special_tokens_map.json of the base tokenizer with a larger vocabulary; its
 * pipeline stays. New ordinary tokens go into the model's vocabulary: with one merge each behind the base's merges (BPE), with
 * the score they have where they come from (Unigram), as they are (WordPiece, WordLevel). Added tokens stand in the model's
 * vocabulary too: a reader then gives them the ids of the file wherever they lie.
 * @returns the files, and the tokens that no text can give
 */
export function extendedFiles(
  base: ModelTokenizer,
  vocabulary: ExtendedVocabulary,
  chatTemplate: string | undefined,
): { files: OutputFile[]; unreachable: readonly string[] } {
  const model = asSettings(base.files.tokenizer.model, 'model');
  const { model: grown, unreachable } =
    base.kind === 'Unigram'
      ? { model: grownUnigram(model, base, vocabulary), unreachable: [] }
      : grownVocabulary(model, base, vocabulary);
  const added = [...vocabulary.added].sort((a, b) => a.id - b.id).map(addedEntry);
  const tokenizer = { ...base.files.tokenizer, added_tokens: added, model: grown };
  const files: OutputFile[] = [{ name: 'tokenizer.json', bytes: jsonBytes(tokenizer) }];
  const config = base.files.tokenizerConfig;
  if (config !== undefined) {
    const decoder = Object.fromEntries(added.map(({ id, ...flags }) => [String(id), flags]));
    files.push({
      name: 'tokenizer_config.json',
      bytes: jsonBytes(isSettings(config.added_tokens_decoder) ? { ...config, added_tokens_decoder: decoder } : config),
    });
  }
  const map = base.files.specialTokensMap ?? (config === undefined ? undefined : namedIn(config, base.named));
  if (map !== undefined) files.push({ name: 'special_tokens_map.json', bytes: jsonBytes(map) });
  for (const name of ['chat_template.jinja', 'chat_template.json'])
    if (existsSync(join(base.directory, name)))
      files.push({ name, bytes: new Uint8Array(readFileSync(join(base.directory, name))) });
  return { files: chatTemplate === undefined ? files : withChatTemplate(files, chatTemplate), unreachable };
}

function namedIn(config: Settings, named: Readonly<Record<string, string>>): Settings | undefined {
  const entries = Object.keys(named)
    .filter((role) => config[role] !== undefined)
    .map((role) => [role, config[role]]);
  return entries.length === 0 ? undefined : (Object.fromEntries(entries) as Settings);
}

/** The template in chat_template.jinja, where transformers looks first, and nowhere else. */
function withChatTemplate(files: readonly OutputFile[], chatTemplate: string): OutputFile[] {
  const kept = files.flatMap((file): OutputFile[] => {
    if (file.name.startsWith('chat_template')) return [];
    if (file.name !== 'tokenizer_config.json') return [file];
    const config = JSON.parse(new TextDecoder().decode(file.bytes)) as Settings;
    if (config.chat_template === undefined) return [file];
    const { chat_template: _replaced, ...rest } = config;
    return [{ name: file.name, bytes: jsonBytes(rest) }];
  });
  return [...kept, { name: 'chat_template.jinja', bytes: new TextEncoder().encode(chatTemplate) }];
}

function jsonBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
}

function addedEntry(token: AddedToken): Settings & { readonly id: number } {
  return {
    id: token.id,
    content: token.content,
    single_word: token.singleWord,
    lstrip: token.lstrip,
    rstrip: token.rstrip,
    normalized: token.normalized,
    special: token.special,
  };
}

function grownVocabulary(
  model: Settings,
  base: ModelTokenizer,
  { tokens, ordinary }: ExtendedVocabulary,
): { model: Settings; unreachable: readonly string[] } {
  const vocab = Object.fromEntries([...tokens].sort((a, b) => a[1] - b[1]));
  if (base.kind !== 'BPE') return { model: { ...model, vocab }, unreachable: [] };
  const stored = Array.isArray(model.merges) ? (model.merges as (string | [string, string])[]) : [];
  const prefix = typeof model.continuing_subword_prefix === 'string' ? model.continuing_subword_prefix : '';
  const suffix = typeof model.end_of_word_suffix === 'string' ? model.end_of_word_suffix : '';
  const pairs = stored.map((merge): Merge => {
    if (typeof merge !== 'string') return merge;
    const [left, right] = merge.split(' ');
    return [left, right];
  });
  // Tokens without an embedding row are gone, and so are the merges that need them.
  const kept = pairs.filter(
    ([left, right]) => tokens.has(left) && tokens.has(right) && tokens.has(left + right.slice(prefix.length)),
  );
  const known = new Set(tokens.keys());
  const reached = reachTokens(
    kept,
    known,
    ordinary.map(({ token }) => token),
    { prefix, suffix },
  );
  const all = [...kept, ...reached.merges];
  // As text a merge cannot hold tokens with spaces.
  const asText = typeof stored[0] === 'string' && all.every(([left, right]) => !`${left}${right}`.includes(' '));
  const merges = asText ? all.map(([left, right]) => `${left} ${right}`) : all;
  return { model: { ...model, vocab, merges }, unreachable: reached.unreachable };
}

/** A list by id: pieces with their scores; added tokens that are no pieces, and ids of none, at the lowest score. */
function grownUnigram(model: Settings, base: ModelTokenizer, vocabulary: ExtendedVocabulary): Settings {
  const scores = new Map(base.scores);
  const lowest = [...scores.values()].reduce((least, score) => Math.min(least, score), 0);
  for (const { token, score } of vocabulary.ordinary) scores.set(token, score ?? lowest);
  const pieces: [string, number][] = [];
  for (const [token, id] of vocabulary.tokens) pieces[id] = [token, scores.get(token) ?? lowest];
  const vocab = Array.from(pieces, (piece, id): [string, number] => piece ?? [`<no token ${id}>`, lowest]);
  return { ...model, vocab };
}
