import { Template } from '@huggingface/jinja';
import { InputError } from '../errors.js';
import type { Tokenizer } from './tokenizer.js';

/** One turn of a conversation; templates may read other fields too. */
export interface ChatMessage {
  readonly role: string;
  readonly content: unknown;
  readonly [field: string]: unknown;
}

export interface RenderOptions {
  /** Whether to end with the beginning of the assistant's turn. Default false. */
  readonly addGenerationPrompt?: boolean;
  /** The date that templates write into their system prompt; without it such a template throws InputError. */
  readonly now?: Date;
  /** Further variables (`tools`, `enable_thinking`). */
  readonly variables?: Readonly<Record<string, unknown>>;
}

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const MONTHS = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
];

/** strftime in the locale "C", local time, for the directives that chat templates use. */
function strftime(date: Date, format: string): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  const directives: Readonly<Record<string, string>> = {
    a: DAYS[date.getDay()].slice(0, 3),
    A: DAYS[date.getDay()],
    b: MONTHS[date.getMonth()].slice(0, 3),
    B: MONTHS[date.getMonth()],
    d: two(date.getDate()),
    e: String(date.getDate()).padStart(2, ' '),
    F: `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`,
    H: two(date.getHours()),
    I: two(date.getHours() % 12 || 12),
    j: String(Math.round((startOfDay(date) - startOfYear(date)) / 86_400_000) + 1).padStart(3, '0'),
    m: two(date.getMonth() + 1),
    M: two(date.getMinutes()),
    p: date.getHours() < 12 ? 'AM' : 'PM',
    S: two(date.getSeconds()),
    T: `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`,
    y: two(date.getFullYear() % 100),
    Y: String(date.getFullYear()),
    '%': '%',
  };
  return format.replace(/%(-?)(.)/g, (whole, bare: string, letter: string) => {
    const text = directives[letter];
    if (text === undefined) return whole;
    return bare === '-' ? text.replace(/^[0 ]+(?=.)/, '') : text;
  });
}

const startOfDay = (date: Date): number => Date.UTC(date.getFullYear(), date.getMonth(), date.getDate());
const startOfYear = (date: Date): number => Date.UTC(date.getFullYear(), 0, 1);

/**
 * The text of a conversation by the tokenizer's chat template, as `apply_chat_template(..., tokenize=False)` of
 * transformers gives it. It holds its special tokens as text: encode it with `addSpecialTokens: false` and
 * `parseSpecialTokens: true`.
 *
 * Throws InputError where there is no template, it cannot be read, or it refuses the conversation.
 */
export function renderChat(
  tokenizer: Pick<Tokenizer, 'chatTemplate' | 'specialTokens'>,
  messages: readonly ChatMessage[],
  options: RenderOptions = {},
): string {
  const { chatTemplate } = tokenizer;
  if (chatTemplate === undefined) {
    throw new InputError('the tokenizer has no chat template; give text, or add chat_template.jinja to the model');
  }
  try {
    return compileTemplate(chatTemplate).render({
      messages,
      tools: null,
      documents: null,
      add_generation_prompt: options.addGenerationPrompt === true,
      [DATE_FUNCTION](format: string) {
        if (options.now !== undefined) return strftime(options.now, format);
        throw new Error('it asks for the date, and none was given');
      },
      ...tokenizer.specialTokens,
      ...options.variables,
    });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new InputError(`the chat template cannot render the conversation: ${reason}`);
  }
}

/**
 * The library's own `strftime_now` reads the clock, which is for the command line to do, and cannot be replaced from
 * outside; a statement in front of the template can. The line feed belongs to the statement and leaves no trace.
 */
const DATE_FUNCTION = 'strftime_of_given_date';
const USE_DATE_FUNCTION = `{% set strftime_now = ${DATE_FUNCTION} %}\n`;

let lastSource: string | undefined;
let lastTemplate: Template | undefined;

/** The template, parsed once for the many conversations of a run. */
function compileTemplate(source: string): Template {
  if (lastTemplate === undefined || lastSource !== source) {
    lastTemplate = new Template(USE_DATE_FUNCTION + source);
    lastSource = source;
  }
  return lastTemplate;
}
