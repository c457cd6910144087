import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { type Document, readDocuments } from '../src/formats/documents.js';
import type { InputLedger } from '../src/formats/inputs.js';
import { placeOf } from '../src/formats/rows.js';
import { type ChatMessage, renderChat } from '../src/tokenizers/chat-template.js';
import type { Tokenizer } from '../src/tokenizers/tokenizer.js';
import { requireOption, type SharedOptions, TEXT_OPTIONS } from './shared-options.js';

/** A prompt as the model takes it. */
export interface Prompt {
  readonly id: string;
  readonly index: number;
  /** File and line, for messages. */
  readonly place: string;
  /** The text that was encoded; of token ids what they decode to. */
  readonly text: string;
  readonly tokens: Int32Array;
  /** The whole row, for other fields (run, step). */
  readonly record: Readonly<Record<string, unknown>>;
}

type PromptSharedName = Exclude<(typeof TEXT_OPTIONS)[number], 'shard' | 'textField'> | 'model';

/** Shared options of a command that gives prompts to a model. */
export const PROMPT_SHARED: readonly PromptSharedName[] = [
  'model',
  ...TEXT_OPTIONS.filter((name) => name !== 'shard' && name !== 'textField'),
];

/** Values of {@link PROMPT_SHARED}. */
export type PromptShared = Pick<SharedOptions, PromptSharedName | 'config' | 'debug'>;

/** Own options of a command that reads prompts. */
export interface PromptOptions {
  promptField?: string;
  chatTemplate?: boolean;
  idField?: string;
}

/** Declares how prompts are read. */
export function addPromptOptions(command: Command): Command {
  return command
    .option('--prompt-field <name>', 'field that holds the prompt (default prompt, else text)')
    .option('--chat-template', "give a prompt of plain text to the model's chat template as the user's turn")
    .option('--id-field <name>', 'field that names a prompt (default id)');
}

/** The options of {@link addPromptOptions} for the report. */
export const promptParameters = (own: PromptOptions): Record<string, string | boolean | null> => ({
  prompt_field: own.promptField ?? null,
  chat_template: own.chatTemplate === true,
  id_field: own.idField ?? null,
});

type Shared = Pick<SharedOptions, 'data' | 'dataFormat' | 'textSplit' | 'limit'>;

/**
 * Prompts of `--data`. A row gives `input_ids`, or `messages` (the chat template renders them and begins the
 * assistant's turn), or text. Text with the field `rendered: true` is a rendered conversation already: its special tokens
 * are read as such, and none are added.
 * @throws InputError for no rows, a row without a prompt, an empty prompt; the row is named
 */
export async function readPrompts(
  options: Shared,
  own: PromptOptions,
  tokenizer: Tokenizer | undefined,
  ledger: InputLedger,
): Promise<Prompt[]> {
  const prompts: Prompt[] = [];
  const data = requireOption(options.data, '--data', 'a file of prompts');
  const rows = readDocuments(data, {
    ledger,
    textSplit: options.textSplit,
    requireText: false,
    ...(options.dataFormat && { format: options.dataFormat }),
    ...(options.limit !== undefined && { limit: options.limit }),
    ...(own.idField !== undefined && { idField: own.idField }),
  });
  for await (const row of rows) prompts.push(promptOf(row, own, tokenizer));
  if (prompts.length === 0) throw new InputError(`${data.join(', ')}: no prompts; give at least one row`);
  return prompts;
}

/** The prompt of one row. @throws InputError as {@link readPrompts} */
export function promptOf(row: Document, own: PromptOptions, tokenizer: Tokenizer | undefined): Prompt {
  const place = placeOf(row);
  const shared = { id: row.id, index: row.index, place, record: row.record };
  if (row.inputIds) {
    if (row.inputIds.length === 0) throw new InputError(`${place}: the prompt has no tokens`);
    return { ...shared, text: tokenizer?.decode(row.inputIds) ?? '', tokens: row.inputIds };
  }
  if (!tokenizer) throw new InputError(`${place}: the model has no tokenizer; give input_ids`);
  const { text, rendered } = textOf(row, own, tokenizer, place);
  if (text.trim() === '') throw new InputError(`${place}: the prompt is empty; remove the row or give it text`);
  const tokens = rendered
    ? tokenizer.encode(text, { addSpecialTokens: false, parseSpecialTokens: true })
    : tokenizer.encode(text);
  if (tokens.length === 0) throw new InputError(`${place}: the prompt has no tokens`);
  return { ...shared, text, tokens };
}

function textOf(
  row: Document,
  own: PromptOptions,
  tokenizer: Tokenizer,
  place: string,
): { text: string; rendered: boolean } {
  const { record } = row;
  const render = (messages: readonly ChatMessage[]): { text: string; rendered: boolean } => ({
    text: renderChat(tokenizer, messages, { addGenerationPrompt: true }),
    rendered: true,
  });
  const field = own.promptField ?? ['prompt', 'messages', 'text'].find((name) => Object.hasOwn(record, name));
  const value = field === undefined ? undefined : record[field];
  if (Array.isArray(value)) return render(value as ChatMessage[]);
  if (typeof value !== 'string') {
    throw new InputError(
      `${place}: no ${own.promptField ?? 'prompt, messages or text'}; the row has ${Object.keys(record).join(', ')}`,
    );
  }
  if (record.rendered === true) return { text: value, rendered: true };
  return own.chatTemplate === true ? render([{ role: 'user', content: value }]) : { text: value, rendered: false };
}
