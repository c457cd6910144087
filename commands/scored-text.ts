import type { Command } from 'commander';
import {
  checkTokenIds,
  type TokenisedDocument,
  type TokenisingOptions,
  tokeniseDocument,
} from '../src/entropy/tokenised-document.js';
import {
  effectiveContext,
  validateWindowOptions,
  WINDOW_CONVENTIONS,
  type WindowOptions,
} from '../src/entropy/windows.js';
import { InputError } from '../src/errors.js';
import { readDocuments } from '../src/formats/documents.js';
import type { InputLedger } from '../src/formats/inputs.js';
import type { ReportObject, ReportValue } from '../src/report/values.js';
import type { Tokenizer } from '../src/tokenizers/tokenizer.js';
import { parseChoice, parseInteger } from './edge-values.js';
import { prefixToken } from './model-session.js';
import type { SharedOptions } from './shared-options.js';

/** Options of every view that scores text token by token, as commander gives them. */
export interface ScoredTextOptions {
  convention?: string;
  contextLen?: string;
  prefixToken?: string;
  addBos?: boolean;
  bosEachWindow?: boolean;
  chatTemplate?: boolean;
  scoreOnly?: string;
  promptField?: string;
  answerField?: string;
  idField?: string;
}

type SharedText = Pick<
  SharedOptions,
  'dataFormat' | 'textSplit' | 'textField' | 'limit' | 'stride' | 'shard' | 'seed' | 'device'
>;

/** Declares how text is cut into windows and what of it is scored. */
export function addScoredTextOptions(command: Command): Command {
  return command
    .option('--convention <name>', `windows: ${WINDOW_CONVENTIONS.join(', ')} (default lm-eval)`)
    .option('--context-len <tokens>', 'lm-eval: tokens of context kept for every window after the first (default 1)')
    .option('--prefix-token <id>', 'token before the first one (default BOS, else EOS)')
    .option('--add-bos', 'hf, full: put BOS before each document')
    .option('--bos-each-window', 'hf: put BOS before every window')
    .option('--chat-template', "render the field messages by the model's chat template")
    .option('--score-only <part>', 'answer: score only the answer field of prompt and answer rows')
    .option('--prompt-field <name>', 'field of the prompt (default prompt)')
    .option('--answer-field <name>', 'field of the answer (default answer)')
    .option('--id-field <name>', 'field that names a document (default id)');
}

/** The model whose windows they will be. */
export interface WindowSubject {
  readonly name: string;
  readonly tokenizer?: Tokenizer;
  readonly vocabularySize: number;
  readonly maxPositions: number | null;
  /** Tokens of a window. */
  readonly context: number;
}

/** @throws InputError for options that contradict each other or the model */
export function windowOptions(
  options: Pick<SharedText, 'stride'>,
  own: ScoredTextOptions,
  subject: WindowSubject,
): WindowOptions {
  const convention = parseChoice('--convention', own.convention ?? 'lm-eval', WINDOW_CONVENTIONS);
  const { tokenizer, vocabularySize } = subject;
  const given = own.prefixToken === undefined ? undefined : parseInteger('--prefix-token', own.prefixToken);
  if (given !== undefined && given >= vocabularySize) {
    throw new InputError(`--prefix-token ${given} is outside the vocabulary of ${vocabularySize}`);
  }
  if (!tokenizer && given === undefined && convention === 'lm-eval') {
    throw new InputError(
      `${subject.name}: no tokenizer.json, so text cannot be read; for rows of input_ids give --prefix-token`,
    );
  }
  const adds = own.addBos === true || own.bosEachWindow === true || given !== undefined || tokenizer?.addBosDefault;
  const prefix = convention === 'lm-eval' || adds ? prefixToken(given, tokenizer) : undefined;
  const windows: WindowOptions = {
    convention,
    context: subject.context,
    ...(options.stride !== undefined && { stride: options.stride }),
    ...(own.contextLen !== undefined && { contextLength: parseInteger('--context-len', own.contextLen) }),
    ...(prefix !== undefined && { prefixToken: prefix }),
    ...(own.bosEachWindow === true && { prefixEachWindow: true }),
  };
  validateWindowOptions(windows, subject.maxPositions ?? undefined);
  return windows;
}

/** What of a row is read and scored. */
export function tokenisingOptions(options: Pick<SharedText, 'textField'>, own: ScoredTextOptions): TokenisingOptions {
  if (own.scoreOnly !== undefined) parseChoice('--score-only', own.scoreOnly, ['answer'] as const);
  return {
    textField: options.textField,
    chatTemplate: own.chatTemplate === true,
    ...(own.scoreOnly === 'answer' && {
      answerOnly: { promptField: own.promptField ?? 'prompt', answerField: own.answerField ?? 'answer' },
    }),
  };
}

/**
 * The documents of `--data`, tokenised, in order.
 * @param next documents before this index were done by an earlier run: they are read for their digest alone
 */
export async function* documentsOf(
  data: readonly string[],
  options: SharedText,
  own: ScoredTextOptions,
  ledger: InputLedger,
  subject: Pick<WindowSubject, 'tokenizer' | 'vocabularySize'>,
  next = 0,
): AsyncGenerator<TokenisedDocument, void, undefined> {
  const tokenising = tokenisingOptions(options, own);
  const documents = readDocuments(data, {
    ledger,
    textField: options.textField,
    textSplit: options.textSplit,
    requireText: !tokenising.chatTemplate && !tokenising.answerOnly,
    ...(options.dataFormat && { format: options.dataFormat }),
    ...(options.limit !== undefined && { limit: options.limit }),
    ...(options.shard && { shard: options.shard }),
    ...(own.idField !== undefined && { idField: own.idField }),
  });
  for await (const document of documents) {
    if (document.index < next) continue;
    const tokenised = tokeniseDocument(document, subject.tokenizer, tokenising);
    checkTokenIds(tokenised, subject.vocabularySize);
    yield tokenised;
  }
}

/** How the text was cut, for the body of a report. */
export function describeConvention(windows: WindowOptions, modelType: string): ReportObject {
  return {
    name: windows.convention,
    context_tokens: windows.context,
    window_tokens: effectiveContext(windows),
    stride_tokens: windows.stride ?? null,
    context_len: windows.convention === 'lm-eval' ? (windows.contextLength ?? 1) : null,
    prefix_token: windows.prefixToken ?? null,
    prefix_each_window: windows.prefixEachWindow ?? false,
    model_type: modelType,
  };
}

/** Parameters of a report that say what was scored. */
export function textParameters(
  data: readonly string[],
  options: SharedText,
  own: ScoredTextOptions,
  windows: WindowOptions,
): Record<string, ReportValue> {
  return {
    data: [...data],
    data_format: options.dataFormat ?? null,
    text_split: options.textSplit,
    text_field: options.textField,
    limit: options.limit ?? null,
    convention: windows.convention,
    context: windows.context,
    stride: options.stride ?? null,
    context_len: windows.contextLength ?? null,
    prefix_token: windows.prefixToken ?? null,
    bos_each_window: windows.prefixEachWindow ?? false,
    chat_template: own.chatTemplate === true,
    score_only: own.scoreOnly ?? null,
    seed: options.seed,
    device: options.device,
  };
}
