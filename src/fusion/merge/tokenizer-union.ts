import { InputError } from '../../errors.js';
import type { AddedToken } from '../../tokenizers/added-tokens.js';
import { effectivePipeline } from '../../tokenizers/huggingface.js';
import { chosenChatTemplate } from './chat-templates.js';
import { copiedFiles, extendedFiles, type OutputFile } from './tokenizer-files.js';
import {
  alphabetOf,
  configuredRows,
  hasTokenizerFiles,
  type ModelTokenizer,
  readModelTokenizer,
} from './tokenizer-vocabulary.js';
import type { MergeDType, MergeSource, MergeVariant, ModelReference, TokenizerSettings } from './types.js';
import { listed, planVocabulary, type TokenOrigin } from './vocabulary-plan.js';
import { withVocabulary } from './vocabulary-source.js';

export interface TokenizerRequest {
  readonly settings: TokenizerSettings;
  readonly references: readonly ModelReference[];
  /** How many of them, from the first, are merged; the others are named in the settings alone. Default all. */
  readonly merged?: number;
  /** In the order of `references`. */
  readonly sources: readonly MergeSource[];
  /** Where the config.json and the tokenizer of each model are. */
  readonly directories: readonly string[];
  /** Index of the base model. */
  readonly base?: number;
  /** Keeps embedding rows of the base beyond its tokens. */
  readonly keepPadding: boolean;
  /** Names of a model's tensors whose rows are tokens, the embedding first. */
  readonly vocabularyTensors: (source: MergeSource) => readonly string[];
  /** `chat_template` of the configuration: `auto`, a name, or the text of a template. */
  readonly chatTemplate?: string;
  /** Directory of the model that `settings.source` names where it is none of `references`. */
  readonly sourceDirectory?: string;
  /** Type in which the merge computes; means of rows are not rounded to less. Absent: the stored one. */
  readonly dtype?: MergeDType;
  /** `mergekit` makes every new token an added token, which is found in the raw text before anything else. */
  readonly variant?: MergeVariant;
}

export interface UnitedTokenizers {
  /** The models on the output vocabulary. */
  readonly sources: readonly MergeSource[];
  /** Tokenizer files of the output. */
  readonly files: readonly OutputFile[];
  /** Rows of the output's embedding: `vocab_size` of its config. */
  readonly vocabularySize: number;
  readonly origins: readonly TokenOrigin[];
  readonly notes: readonly string[];
}

/** A tokenizer to be, as vocabulary and as files. */
interface OutputTokenizer {
  readonly tokens: ReadonlyMap<string, number>;
  readonly files: readonly OutputFile[];
  readonly notes: readonly string[];
}

/**
 * Puts models with different tokenizers on one vocabulary, and writes its tokenizer. `union`: the base's vocabulary with its
 * ids, then tokens that it lacks in the order of the models by ascending id, then their added tokens; `base` or a model:
 * that one's vocabulary. Tokens whose id has no embedding row are ignored.
 * @throws InputError where tokenizers cannot be united, or a model has no readable one
 */
export function uniteTokenizers(request: TokenizerRequest): UnitedTokenizers {
  const { settings, references, sources, directories, base } = request;
  const tensors = sources.map((source) => {
    const names = request.vocabularyTensors(source);
    if (names.length === 0)
      throw new InputError(`${source.path}: no embedding found, so there is nothing to put on another vocabulary`);
    return names;
  });
  const embeddingRows = sources.map((source, i) => source.tensors.get(tensors[i][0])?.shape[0] ?? 0);
  const notes: string[] = [];
  const first = base ?? 0;
  const tokenizers = references.map((reference, i) => {
    const rows = Math.min(configuredRows(directories[i]) ?? embeddingRows[i], embeddingRows[i]);
    const stands = i !== first && !hasTokenizerFiles(directories[i]);
    if (stands) notes.push(`${reference.text} has no tokenizer: it is taken to have that of ${references[first].text}`);
    const tokenizer = readModelTokenizer(reference, directories[stands ? first : i], rows);
    if (tokenizer.beyond.length > 0)
      notes.push(
        `${reference.text}: ${tokenizer.beyond.length} token(s) have no embedding row (${rows} rows) and are ignored: ` +
          listed(tokenizer.beyond.map(({ token }) => token)),
      );
    return tokenizer;
  });
  const merged = tokenizers.slice(0, request.merged);
  const source = sourceTokenizer(request, tokenizers, first);
  const output =
    settings.source === 'union' ? unionTokenizer(request, merged, first) : keptTokenizer(request, source, merged);
  const plan = planVocabulary({
    output: output.tokens,
    models: tokenizers.map(({ reference, tokens }, i) => ({ reference, tokens, rows: embeddingRows[i] })),
    merged: request.merged,
    base,
    settings,
    leastRows: request.keepPadding ? embeddingRows[Math.max(0, tokenizers.indexOf(source))] : undefined,
  });
  return {
    sources: sources.map((_, i) => withVocabulary(i, sources, plan.maps[i], tensors, request.dtype)),
    files: output.files,
    vocabularySize: plan.size,
    origins: plan.origins,
    notes: [...notes, ...output.notes, ...disagreements(source, merged), ...plan.notes],
  };
}

/** The model whose pipeline the output takes over. */
function sourceTokenizer(
  { settings, references, sourceDirectory }: TokenizerRequest,
  tokenizers: readonly ModelTokenizer[],
  base: number,
): ModelTokenizer {
  const { source } = settings;
  if (source === 'union' || source === 'base') return tokenizers[base];
  const index = references.findIndex(({ text }) => text === source.text);
  if (index >= 0) return tokenizers[index];
  if (sourceDirectory === undefined)
    throw new InputError(
      `tokenizer source ${source.text} is none of the models: ${references.map(({ text }) => text).join(', ')}`,
    );
  return readModelTokenizer(source, sourceDirectory, configuredRows(sourceDirectory) ?? Number.POSITIVE_INFINITY);
}

/** The vocabulary of one model, with the tokens that the settings add to it. */
function keptTokenizer(
  { settings, chatTemplate }: TokenizerRequest,
  source: ModelTokenizer,
  tokenizers: readonly ModelTokenizer[],
): OutputTokenizer {
  const notes: string[] = [];
  const alphabet = JSON.stringify(alphabetOf(source));
  for (const other of tokenizers) {
    if (other === source || JSON.stringify(alphabetOf(other)) === alphabet) continue;
    let shared = 0;
    for (const token of other.tokens.keys()) if (source.tokens.has(token)) shared++;
    notes.push(
      `${other.reference.text} writes its tokens otherwise than ${source.reference.text} (${difference(source, other)}): ` +
        `only ${shared} of its ${other.tokens.size} tokens are in the output`,
    );
  }
  const tokens = new Map(source.tokens);
  const added = [...source.added];
  addConfigured(settings, tokens, added);
  const template = chosenChatTemplate(chatTemplate, tokenizers);
  const unchanged = tokens.size === source.tokens.size && source.beyond.length === 0;
  const files = unchanged
    ? copiedFiles(source.directory, template)
    : extendedFiles(source, { tokens, ordinary: [], added }, template).files;
  return { tokens, files, notes };
}

function unionTokenizer(
  { settings, chatTemplate, variant }: TokenizerRequest,
  tokenizers: readonly ModelTokenizer[],
  first: number,
): OutputTokenizer {
  const base = tokenizers[first];
  const others = tokenizers.filter((tokenizer) => tokenizer !== base);
  for (const other of others) checkUnitable(base, other);
  const { tokens, added, ordinary, notes } = unionVocabulary([base, ...others]);
  const allAdded = [...added];
  if (variant === 'mergekit')
    for (const { token } of ordinary) allAdded.push(plainAdded(token, tokens.get(token) ?? 0));
  addConfigured(settings, tokens, allAdded);
  const template = chosenChatTemplate(chatTemplate, tokenizers);
  const unchanged =
    tokens.size === base.tokens.size && base.beyond.length === 0 && allAdded.length === base.added.length;
  if (unchanged) return { tokens, files: copiedFiles(base.directory, template), notes };
  const { files, unreachable } = extendedFiles(
    base,
    { tokens, ordinary: variant === 'mergekit' ? [] : ordinary, added: allAdded },
    template,
  );
  const all = [...notes, ...pipelineNotes(base, others)];
  if (unreachable.length > 0)
    all.push(
      `${unreachable.length} of ${ordinary.length} new tokens cannot come out of any text, since the base's merges cut them ` +
        `into three or more tokens: ${listed(unreachable)}`,
    );
  return { tokens, files, notes: all };
}

/** A vocabulary that holds those of several models. */
export interface UnionVocabulary {
  /** Token to id, added tokens included. */
  readonly tokens: Map<string, number>;
  /** Ordinary tokens that the base lacks, by ascending id, with their score where the vocabularies are Unigram. */
  readonly ordinary: readonly { readonly token: string; readonly score?: number }[];
  readonly added: readonly AddedToken[];
  readonly notes: readonly string[];
}

/**
 * The first vocabulary with its ids, then the others' ordinary tokens that it lacks in their order by ascending id, then the
 * others' added tokens likewise. A token that any model has as an added one is added in the union.
 */
export function unionVocabulary(
  models: readonly Pick<ModelTokenizer, 'reference' | 'tokens' | 'added' | 'scores'>[],
): UnionVocabulary {
  const [base, ...others] = models;
  const notes: string[] = [];
  const tokens = new Map(base.tokens);
  let next = nextId(tokens);
  const added = new Map(base.added.map((token) => [token.content, token]));
  const addedAnywhere = new Set(models.flatMap((model) => model.added.map(({ content }) => content)));
  const ordinary: { token: string; score?: number }[] = [];
  for (const other of others)
    for (const [token] of byId(other.tokens)) {
      if (tokens.has(token) || addedAnywhere.has(token)) continue;
      ordinary.push({ token, score: other.scores?.get(token) });
      tokens.set(token, next++);
    }
  for (const other of others)
    for (const token of other.added) {
      const name = JSON.stringify(token.content);
      const known = added.get(token.content);
      if (known !== undefined) {
        if (!sameFlags(known, token))
          notes.push(`${name} is added with other flags by ${other.reference.text}; the first are kept`);
        continue;
      }
      if (tokens.has(token.content))
        notes.push(
          `${name} is an ordinary token of ${base.reference.text} and an added one of ${other.reference.text}: it is added ` +
            'in the output',
        );
      const id = tokens.get(token.content) ?? next++;
      tokens.set(token.content, id);
      added.set(token.content, { ...token, id });
    }
  return { tokens, ordinary, added: [...added.values()], notes };
}

function byId(tokens: ReadonlyMap<string, number>): [string, number][] {
  return [...tokens].sort((a, b) => a[1] - b[1]);
}

function nextId(tokens: ReadonlyMap<string, number>): number {
  let next = 0;
  for (const id of tokens.values()) next = Math.max(next, id + 1);
  return next;
}

function plainAdded(content: string, id: number): AddedToken {
  return { id, content, singleWord: false, lstrip: false, rstrip: false, normalized: true, special: false };
}

/** Tokens that the configuration names and no vocabulary has become added tokens. */
function addConfigured(settings: TokenizerSettings, tokens: Map<string, number>, added: AddedToken[]): void {
  let next = nextId(tokens);
  for (const token of settings.tokens.keys()) {
    if (tokens.has(token)) continue;
    tokens.set(token, next);
    added.push(plainAdded(token, next++));
  }
}

function sameFlags(a: AddedToken, b: AddedToken): boolean {
  return (
    a.singleWord === b.singleWord &&
    a.lstrip === b.lstrip &&
    a.rstrip === b.rstrip &&
    a.normalized === b.normalized &&
    a.special === b.special
  );
}

/** What is different in how two tokenizers write their tokens. */
function difference(a: ModelTokenizer, b: ModelTokenizer): string {
  const [one, other] = [alphabetOf(a), alphabetOf(b)];
  const keys = Object.keys(one) as (keyof typeof one)[];
  return keys
    .filter((key) => one[key] !== other[key])
    .map((key) => `${other[key]}, not ${one[key]}`)
    .join('; ');
}

function checkUnitable(base: ModelTokenizer, other: ModelTokenizer): void {
  const differs = difference(base, other);
  if (differs === '') return;
  throw new InputError(
    `the tokenizers of ${base.reference.text} and ${other.reference.text} cannot be united: the second has ${differs}. ` +
      `Take one vocabulary (tokenizer source: base), or teach one model by the other (surprisal fuse knowledge)`,
  );
}

/** Stages of the pipeline that differ though the tokens are written alike. */
function pipelineNotes(base: ModelTokenizer, others: readonly ModelTokenizer[]): string[] {
  const stages = ['normalizer', 'pre_tokenizer'] as const;
  const ours = effectivePipeline(base.files);
  return others.flatMap((other) => {
    const theirs = effectivePipeline(other.files);
    const different = stages.filter((stage) => canonical(ours[stage]) !== canonical(theirs[stage]));
    if (different.length === 0) return [];
    return [
      `${other.reference.text} has another ${different.join(' and ')} than ${base.reference.text}; the output takes that of ` +
        `${base.reference.text}`,
    ];
  });
}

function canonical(value: unknown): string {
  return JSON.stringify(value ?? null, (_, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

/** Roles that special tokens of two models fill differently; the output takes the source's. */
function disagreements(source: ModelTokenizer, tokenizers: readonly ModelTokenizer[]): string[] {
  return tokenizers.flatMap((other) => {
    const roles = Object.entries(other.named).filter(
      ([role, token]) => source.named[role] !== undefined && source.named[role] !== token,
    );
    return roles.map(
      ([role, token]) =>
        `${role} is ${JSON.stringify(token)} in ${other.reference.text}; the output has ${JSON.stringify(source.named[role])} of ` +
        `${source.reference.text}`,
    );
  });
}
