import { InputError } from '../errors.js';
import type { Document } from '../formats/documents.js';
import { renderChat } from '../tokenizers/chat-template.js';
import type { EncodeOptions, Tokenizer } from '../tokenizers/tokenizer.js';
import { splitContextContinuation } from './choices.js';
import { countBytes, countWords } from './text-counts.js';

/** A document as the model reads it. */
export interface TokenisedDocument {
  readonly index: number;
  readonly id: string;
  readonly source: string;
  readonly tokens: Int32Array;
  /** UTF-8 bytes and whitespace-separated words of what is scored; absent when only token ids are known. */
  readonly bytes?: number;
  readonly words?: number;
  /** Only tokens start..end-1 are scored (`--score-only`); absent for all. */
  readonly span?: readonly [start: number, end: number];
}

export interface TokenisingOptions {
  readonly textField: string;
  /** Render `messages` (or prompt and answer) by the model's chat template. */
  readonly chatTemplate: boolean;
  /** Score only the answer: needs the two fields. */
  readonly answerOnly?: { readonly promptField: string; readonly answerField: string };
}

/**
 * Tokenises one document, without special tokens at its ends: the window convention says what stands before it.
 * @throws InputError naming the file, the line and the field that is missing or empty
 */
export function tokeniseDocument(
  document: Document,
  tokenizer: Tokenizer | undefined,
  options: TokenisingOptions,
): TokenisedDocument {
  const { index, id, source } = document;
  const head = { index, id, source };
  if (document.inputIds && !options.answerOnly) return { ...head, tokens: document.inputIds };
  if (!tokenizer) throw new InputError(`${placed(document)}: text needs a tokenizer; pass rows with input_ids instead`);
  if (options.answerOnly) return tokeniseAnswer(document, tokenizer, options, options.answerOnly);

  const text = options.chatTemplate ? chatText(document, tokenizer) : document.text;
  if (text === undefined) throw new InputError(`${placed(document)}: there is no field "${options.textField}"`);
  const tokens = tokenizer.encode(text, encoding(options));
  return { ...head, tokens, bytes: countBytes(text), words: countWords(text) };
}

/** @throws InputError when a token id is not in the model's vocabulary, naming document and position */
export function checkTokenIds(document: TokenisedDocument, vocabularySize: number): void {
  const wrong = document.tokens.findIndex((id) => id < 0 || id >= vocabularySize);
  if (wrong < 0) return;
  throw new InputError(
    `${document.source}: document ${document.id}, position ${wrong}: token id ${document.tokens[wrong]} is outside the ` +
      `model's vocabulary of ${vocabularySize}; the rows were made with another tokenizer`,
  );
}

/** A rendered template holds special tokens; in plain text the tokenizer's own program decides. */
function encoding(options: TokenisingOptions): EncodeOptions {
  return { addSpecialTokens: false, ...(options.chatTemplate && { parseSpecialTokens: true }) };
}

function tokeniseAnswer(
  document: Document,
  tokenizer: Tokenizer,
  options: TokenisingOptions,
  fields: NonNullable<TokenisingOptions['answerOnly']>,
): TokenisedDocument {
  const prompt = stringField(document, fields.promptField);
  const answer = stringField(document, fields.answerField);
  if (answer === '') throw new InputError(`${placed(document)}: the field "${fields.answerField}" is empty`);
  const encode = (text: string): Int32Array => tokenizer.encode(text, encoding(options));
  const context = options.chatTemplate
    ? renderChat(tokenizer, [{ role: 'user', content: prompt }], { addGenerationPrompt: true })
    : prompt;
  const { context: before, continuation } = splitContextContinuation(context, answer, encode);
  const tokens = new Int32Array(before.length + continuation.length);
  tokens.set(before);
  tokens.set(continuation, before.length);
  return {
    index: document.index,
    id: document.id,
    source: document.source,
    tokens,
    bytes: countBytes(answer),
    words: countWords(answer),
    span: [before.length, tokens.length],
  };
}

function chatText(document: Document, tokenizer: Tokenizer): string {
  const messages = document.record.messages;
  if (!Array.isArray(messages)) {
    throw new InputError(`${placed(document)}: --chat-template needs a field "messages" with role and content`);
  }
  const turns = messages.map((message, i) => {
    const { role, content } = (message ?? {}) as Record<string, unknown>;
    if (typeof role !== 'string' || typeof content !== 'string') {
      throw new InputError(`${placed(document)}: message ${i} needs "role" and "content" as strings`);
    }
    return { role, content };
  });
  return renderChat(tokenizer, turns, { addGenerationPrompt: false });
}

function stringField(document: Document, field: string): string {
  const value = document.record[field];
  if (typeof value !== 'string') throw new InputError(`${placed(document)}: there is no text in the field "${field}"`);
  return value;
}

function placed(document: Document): string {
  return document.line === undefined
    ? `${document.source}, document ${document.index}`
    : `${document.source}:${document.line}`;
}
