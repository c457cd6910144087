import { InputError } from '../errors.js';
import { requireField, requireText } from '../formats/documents.js';
import { placeOf, type Row } from '../formats/rows.js';
import type { Tokenizer } from '../tokenizers/tokenizer.js';
import { type ChoiceWindow, choiceWindow, encodePair } from './choices.js';
import { countBytes, countCodePoints } from './text-counts.js';

/** One multiple-choice question as its row gives it. */
export interface Question {
  readonly index: number;
  readonly id: string;
  /** File and line, for messages. */
  readonly place: string;
  readonly context: string;
  readonly choices: readonly string[];
  /** Indices of the right choices. */
  readonly gold: readonly number[];
}

/** Names of the fields of a row. */
export interface QuestionFields {
  readonly context: string;
  readonly choices: string;
  readonly answer: string;
  readonly id: string;
}

const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((entry) => typeof entry === 'string');

/**
 * Reads a row. Choices are a list of texts, or `{text: [...], label: [...]}` as ARC has them; the answer is an index from
 * 0, a choice's text, its label, or a list of these where several are right.
 * @throws InputError naming file, line and field
 */
export function readQuestion(row: Row, fields: QuestionFields): Question {
  const place = placeOf(row);
  const context = requireText(row, fields.context);
  const given = requireField(row, fields.choices);
  const parts = typeof given === 'object' && given !== null ? (given as Record<string, unknown>) : {};
  const choices = isTexts(given) ? given : parts.text;
  const labels = isTexts(given) ? undefined : parts.label;
  if (!isTexts(choices) || choices.length < 2) {
    throw new InputError(`${place}: field "${fields.choices}" must be a list of at least two texts`);
  }
  const empty = choices.indexOf('');
  if (empty >= 0) throw new InputError(`${place}: choice ${empty} of field "${fields.choices}" is empty`);
  const answer = requireField(row, fields.answer);
  const answers: unknown[] = Array.isArray(answer) ? answer : [answer];
  if (answers.length === 0) throw new InputError(`${place}: field "${fields.answer}" holds no answer`);
  const gold = answers.map((entry) => answerIndex(entry, choices, isTexts(labels) ? labels : undefined, place, fields));
  const id = row.record[fields.id];
  return {
    index: row.index,
    id: typeof id === 'string' || typeof id === 'number' ? String(id) : String(row.index),
    place,
    context,
    choices,
    gold: [...new Set(gold)],
  };
}

function answerIndex(
  answer: unknown,
  choices: readonly string[],
  labels: readonly string[] | undefined,
  place: string,
  fields: QuestionFields,
): number {
  if (typeof answer === 'number') {
    if (Number.isInteger(answer) && answer >= 0 && answer < choices.length) return answer;
    throw new InputError(
      `${place}: field "${fields.answer}": ${answer} is not an index of the ${choices.length} choices (from 0)`,
    );
  }
  if (typeof answer === 'string') {
    const among = labels?.includes(answer) ? labels : choices;
    const found = among.indexOf(answer);
    if (found >= 0 && among.indexOf(answer, found + 1) < 0) return found;
    const why = found < 0 ? 'is none of the choices' : 'is the text of two choices; give its index';
    throw new InputError(`${place}: field "${fields.answer}": ${JSON.stringify(answer)} ${why}`);
  }
  throw new InputError(`${place}: field "${fields.answer}" must be the index or the text of a choice`);
}

/** A question as the model reads it: one window a choice. */
export interface EncodedQuestion {
  readonly question: Question;
  readonly windows: readonly ChoiceWindow[];
  /** Lengths of the choices' texts, without the delimiter, and of what is scored in tokens. */
  readonly characters: readonly number[];
  readonly bytes: readonly number[];
  readonly tokens: readonly number[];
}

export interface QuestionEncoding {
  readonly tokenizer: Tokenizer;
  /** Token that stands for an empty context. */
  readonly prefixToken: number;
  /** What stands between context and choice. */
  readonly delimiter: string;
  /** Tokens that the model takes at once. */
  readonly maxLength: number;
  /** Whether the tokenizer's own special tokens go before the context. */
  readonly specialTokens: boolean;
}

/**
 * Tokenises a question as lm-evaluation-harness does. A context that does not fit is cut on the left.
 * @throws InputError naming the question when a choice adds no token or alone is too long
 */
export function encodeQuestion(question: Question, encoding: QuestionEncoding): EncodedQuestion {
  const { tokenizer, prefixToken, delimiter, maxLength, specialTokens } = encoding;
  // The harness leaves special tokens away where the text brings the prefix token along.
  const prefixText = tokenizer.tokenText(prefixToken);
  const begun = prefixText !== '' && question.context.startsWith(prefixText);
  const encode = (text: string): Int32Array =>
    tokenizer.encode(text, { addSpecialTokens: specialTokens && !begun, parseSpecialTokens: true });
  const encodePlain = (text: string): Int32Array =>
    tokenizer.encode(text, { addSpecialTokens: false, parseSpecialTokens: true });
  const windows = question.choices.map((choice, i) => {
    try {
      const pair = encodePair(question.context, `${delimiter}${choice}`, encode, prefixToken, encodePlain);
      return choiceWindow(pair.context, pair.continuation, maxLength);
    } catch (error) {
      if (error instanceof InputError) throw new InputError(`${question.place}: choice ${i}: ${error.message}`);
      throw error;
    }
  });
  return {
    question,
    windows,
    characters: question.choices.map(countCodePoints),
    bytes: question.choices.map(countBytes),
    tokens: windows.map(({ targets }) => targets.length),
  };
}
