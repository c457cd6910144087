import { createHash } from 'node:crypto';
import { InputError } from '../errors.js';
import type { InputDigest } from '../formats/inputs.js';
import { isLlamaCppLogits, type LlamaCppLogits, openLlamaCppLogits } from '../formats/llama-cpp-logits.js';
import { isLogitDump, type LogitDump, openLogitDump } from '../formats/logit-dump.js';
import type { Tokenizer } from '../tokenizers/tokenizer.js';
import type { TokenisedDocument } from './tokenised-document.js';

/** A stored base: a dump of this program, or a base file of llama.cpp. */
export type StoredBase =
  | { readonly kind: 'dump'; readonly logits: LogitDump }
  | { readonly kind: 'llama.cpp'; readonly logits: LlamaCppLogits };

/** Opens whichever of the two the file is. @throws InputError for any other file */
export function openStoredBase(path: string): StoredBase {
  if (isLogitDump(path)) return { kind: 'dump', logits: openLogitDump(path) };
  if (isLlamaCppLogits(path)) return { kind: 'llama.cpp', logits: openLlamaCppLogits(path) };
  throw new InputError(
    `${path}: neither a dump of --save-logits nor a base file of llama.cpp's --kl-divergence; write one of them first`,
  );
}

/** One SHA-256 over the digests of several files, whatever their names. */
export function combinedSha256(digests: readonly InputDigest[]): string {
  const hash = createHash('sha256');
  for (const { sha256 } of digests) hash.update(`${sha256}\n`);
  return hash.digest('hex');
}

/** What the present run is, to be held against the header of a dump. */
export interface PresentRun {
  /** Absent when no base model was named beside the dump. */
  readonly modelSha256?: string;
  readonly dataSha256: string;
  readonly parameters: LogitDump['header']['parameters'];
}

/** @throws InputError naming the first thing in which the dump belongs to another run */
export function checkDump({ path, header }: LogitDump, present: PresentRun): void {
  if (present.modelSha256 !== undefined && present.modelSha256 !== header.modelSha256) {
    throw new InputError(`${path}: was saved from another model than --base; name that model, or drop --base`);
  }
  if (present.dataSha256 !== header.dataSha256) {
    throw new InputError(`${path}: was saved from other data than --data; give the same files in the same order`);
  }
  for (const key of new Set([...Object.keys(header.parameters), ...Object.keys(present.parameters)])) {
    const saved = header.parameters[key] ?? null;
    const now = present.parameters[key] ?? null;
    if (saved === now) continue;
    const option = `--${key.replaceAll('_', '-')}`;
    const named = (value: string | number | boolean | null): string =>
      value === null || value === false ? `without ${option}` : `with ${option} ${value}`;
    throw new InputError(`${path}: was saved ${named(saved)}, this run is ${named(now)}; use the same options`);
  }
}

/** The tokens of a base file of llama.cpp as one document. */
export function llamaCppDocument(base: LlamaCppLogits): TokenisedDocument {
  return { index: 0, id: base.path, source: base.path, tokens: base.tokens };
}

/**
 * The first tokens of a document must be those that the base file was made from; what follows its last whole chunk is left
 * out, as llama.cpp leaves it.
 * @throws InputError naming the first token that differs
 */
export function checkLlamaCppTokens(base: LlamaCppLogits, document: TokenisedDocument): TokenisedDocument {
  const { tokens } = base;
  for (let i = 0; i < tokens.length; i++) {
    if (document.tokens[i] === tokens[i]) continue;
    throw new InputError(
      `${base.path}: token ${i} is ${tokens[i]}, of ${document.source} it is ${document.tokens[i] ?? 'missing'}; ` +
        'give the text and the tokenizer that the base file was made from, or drop --data',
    );
  }
  return { index: 0, id: document.id, source: document.source, tokens };
}

/** A model whose vocabulary is held against another's. */
export interface VocabularyOwner {
  readonly name: string;
  readonly vocabularySize: number;
  readonly tokenizer?: Tokenizer;
}

/**
 * Probabilities can be compared token by token only over one vocabulary.
 * @throws InputError saying how the two differ
 */
export function checkSameVocabulary(base: VocabularyOwner, candidate: VocabularyOwner): void {
  if (base.vocabularySize !== candidate.vocabularySize) {
    throw new InputError(
      `${candidate.name}: predicts ${candidate.vocabularySize} tokens, ${base.name} ${base.vocabularySize}; ` +
        'base and candidate must share one vocabulary',
    );
  }
  const [a, b] = [base.tokenizer, candidate.tokenizer];
  if (!a || !b) return;
  const bytesOf = (tokenizer: Tokenizer, id: number): Buffer =>
    Buffer.from(id < tokenizer.vocabularySize ? tokenizer.tokenBytes(id) : []);
  let first = -1;
  let differing = 0;
  for (let id = 0; id < base.vocabularySize; id++) {
    if (bytesOf(a, id).equals(bytesOf(b, id))) continue;
    if (first < 0) first = id;
    differing++;
  }
  if (first < 0) return;
  const shown = (tokenizer: Tokenizer): string => JSON.stringify(bytesOf(tokenizer, first).toString('utf8'));
  throw new InputError(
    `${candidate.name}: token ${first} is ${shown(b)}, of ${base.name} it is ${shown(a)} (${differing} of ` +
      `${base.vocabularySize} tokens differ); base and candidate must share one vocabulary`,
  );
}
