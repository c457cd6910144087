import type { Command } from 'commander';
import { checkTokenIds, tokeniseDocument } from '../src/entropy/tokenised-document.js';
import { InputError } from '../src/errors.js';
import { type Document, readDocuments } from '../src/formats/documents.js';
import type { InputLedger } from '../src/formats/inputs.js';
import type { ReportObject, ReportValue } from '../src/report/values.js';
import type { ChatMessage } from '../src/tokenizers/chat-template.js';
import type { Tokenizer } from '../src/tokenizers/tokenizer.js';
import { answerTurns } from '../src/training/language/answer-turns.js';
import { packTexts, separateTexts, type TokenText, type TokenWindows } from '../src/training/language/token-data.js';
import { IGNORED } from '../src/training/types.js';
import { flagOf, parseChoice, parseInteger } from './edge-values.js';
import type { SharedOptions } from './shared-options.js';

/** Options of text that a model learns from, as commander gives them. */
export interface LearningTextOptions {
  readonly lossOn?: string;
  readonly chatTemplate?: boolean;
  readonly promptField?: string;
  readonly answerField?: string;
  readonly prefixToken?: string;
  readonly endToken?: boolean;
}

export const LEARNING_TEXT_SHARED = ['data', 'dataFormat', 'textSplit', 'textField', 'limit', 'context'] as const;

type SharedText = Pick<SharedOptions, 'dataFormat' | 'textSplit' | 'textField' | 'limit'>;

const LOSS_ON = ['all', 'answers'] as const;

/** Declares how text becomes windows to learn from. */
export function addLearningTextOptions(command: Command): Command {
  return command
    .option(
      '--loss-on <part>',
      'tokens that are learnt: all (texts packed into windows) or answers, one text a window (default all)',
    )
    .option('--chat-template', "render the field messages by the tokenizer's chat template")
    .option('--prompt-field <name>', 'field of the prompt, for --loss-on answers (default prompt)')
    .option('--answer-field <name>', 'field of the answer, for --loss-on answers (default answer)')
    .option('--prefix-token <id>', 'token before every text (default BOS where the tokenizer adds it)')
    .option('--no-end-token', 'put no end-of-sequence token behind every text');
}

/** @throws InputError for fields of questions and answers where all tokens are learnt */
function refuseFields(own: LearningTextOptions, answers: boolean): void {
  const stray = (['promptField', 'answerField'] as const).find((name) => own[name] !== undefined);
  if (!answers && stray) throw new InputError(`${flagOf(stray)} needs --loss-on answers`);
}

/** What a report says of the text and how it is read. */
export function learningTextParameters(
  options: Pick<SharedOptions, (typeof LEARNING_TEXT_SHARED)[number]>,
  own: LearningTextOptions,
): Record<string, ReportValue> {
  return {
    data: [...options.data],
    data_format: options.dataFormat ?? null,
    text_split: options.textSplit,
    text_field: options.textField,
    limit: options.limit ?? null,
    context: options.context ?? null,
    loss_on: own.lossOn ?? 'all',
    chat_template: own.chatTemplate ?? false,
    prompt_field: own.promptField ?? null,
    answer_field: own.answerField ?? null,
    prefix_token: own.prefixToken ?? null,
    end_token: own.endToken ?? true,
  };
}

/** The tokenizer that text is read with. */
export interface LearningSubject {
  readonly name: string;
  readonly tokenizer: Tokenizer | undefined;
  readonly vocabularySize: number;
}

/** @throws InputError for a prefix outside the vocabulary */
export function windowEnds(
  own: LearningTextOptions,
  { tokenizer, vocabularySize }: LearningSubject,
): { readonly prefix?: number; readonly end?: number } {
  const given = own.prefixToken === undefined ? undefined : parseInteger('--prefix-token', own.prefixToken);
  if (given !== undefined && given >= vocabularySize) {
    throw new InputError(`--prefix-token ${given} is outside the vocabulary of ${vocabularySize}`);
  }
  // A rendered conversation holds its own special tokens.
  const prefix = given ?? (tokenizer?.addBosDefault && own.chatTemplate !== true ? tokenizer.bosId : undefined);
  const end = own.endToken === false || own.chatTemplate === true ? undefined : tokenizer?.eosId;
  return { ...(prefix !== undefined && { prefix }), ...(end !== undefined && end < vocabularySize && { end }) };
}

/**
 * Windows of `length` positions of all texts of `data`, in their order.
 * @throws InputError naming file and row for text that cannot be read or of which nothing is asked
 */
export async function readTokenWindows(
  data: readonly string[],
  options: SharedText,
  own: LearningTextOptions,
  subject: LearningSubject,
  length: number,
  ledger: InputLedger,
): Promise<TokenWindows> {
  const answers = parseChoice('--loss-on', own.lossOn ?? 'all', LOSS_ON) === 'answers';
  refuseFields(own, answers);
  const texts: TokenText[] = [];
  const documents = readDocuments(data, {
    ledger,
    textField: options.textField,
    textSplit: options.textSplit,
    requireText: own.chatTemplate !== true && !answers,
    ...(options.dataFormat && { format: options.dataFormat }),
    ...(options.limit !== undefined && { limit: options.limit }),
  });
  for await (const document of documents) texts.push(readText(document, options, own, subject, answers));
  const settings = { length, ...windowEnds(own, subject) };
  return answers ? separateTexts(texts, settings) : packTexts(texts, settings);
}

/**
 * A document as tokens, and which of them are asked for.
 * @throws InputError naming file and row
 */
export function readText(
  document: Document,
  options: SharedText,
  own: LearningTextOptions,
  subject: LearningSubject,
  answers: boolean,
): TokenText {
  const place = `${document.source}:${document.line ?? document.index}`;
  const { tokenizer, vocabularySize } = subject;
  if (answers && own.chatTemplate === true && Array.isArray(document.record.messages)) {
    if (!tokenizer) throw new InputError(`${subject.name}: no tokenizer, so that messages cannot be read`);
    return answerTurns(tokenizer, messagesOf(document.record.messages, place), place);
  }
  const tokenised = tokeniseDocument(document, tokenizer, {
    textField: options.textField,
    chatTemplate: own.chatTemplate === true,
    ...(answers && {
      answerOnly: { promptField: own.promptField ?? 'prompt', answerField: own.answerField ?? 'answer' },
    }),
  });
  checkTokenIds(tokenised, vocabularySize);
  const spans = tokenised.span ? [tokenised.span] : document.inputIds && labelledSpans(document, place);
  return { tokens: tokenised.tokens, place, ...(spans && { spans }) };
}

/** Of rows of token ids with `labels` beside them: what is asked for, where these are not -100. */
function labelledSpans({ inputIds, record }: Document, place: string): [number, number][] | undefined {
  const { labels } = record;
  if (!Array.isArray(labels)) return undefined;
  if (labels.length !== inputIds?.length) {
    throw new InputError(`${place}: ${labels.length} labels for ${inputIds?.length} input_ids`);
  }
  const spans: [number, number][] = [];
  labels.forEach((label, i) => {
    if (label === IGNORED) return;
    const last = spans.at(-1);
    if (last?.[1] === i) last[1] = i + 1;
    else spans.push([i, i + 1]);
  });
  return spans;
}

function messagesOf(messages: readonly unknown[], place: string): ChatMessage[] {
  return messages.map((message, i) => {
    const { role, content } = (message ?? {}) as Record<string, unknown>;
    if (typeof role === 'string' && typeof content === 'string') return { role, content };
    throw new InputError(`${place}: message ${i} needs "role" and "content" as strings`);
  });
}

/** What a report says of windows. */
export function describeWindows(windows: TokenWindows): ReportObject {
  return {
    windows: windows.count,
    positions_of_a_window: windows.length,
    tokens_learnt: windows.validLabels,
    texts_cut: windows.cutTexts,
  };
}
