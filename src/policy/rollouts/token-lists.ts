import { InputError } from '../../errors.js';
import { type DumpRow, isNumberArray, requireNumbers } from './dump-rows.js';
import type { Field, FieldPicker } from './fields.js';
import { readTopTokens } from './top-tokens.js';
import type { TokenColumn, TopTokens } from './types.js';

/** Rounding of single precision may carry a log-probability this far above 0 (spec 0.1, rule 2). */
export const LOG_PROB_SLACK = 1e-6;
export const ENTROPY_SLACK = 1e-6;
const VOCABULARY_SLACK = 1e-3;

/** The largest entropy over so many tokens, nats, with room for rounding. */
export const mostEntropy = (vocabularySize: number | undefined): number =>
  vocabularySize === undefined ? Number.POSITIVE_INFINITY : Math.log(vocabularySize) + VOCABULARY_SLACK;

/** What a record says of its tokens, checked; masked-out positions hold 0. */
export interface TokenLists {
  readonly length: number;
  readonly counted: number;
  /** Absent when all tokens count. */
  readonly mask?: Uint8Array;
  readonly columns: Map<TokenColumn, Float64Array>;
  readonly tokens?: Int32Array;
  readonly texts?: readonly string[];
  readonly topTokens?: TopTokens;
  /** Column of the dump by what was taken from it. */
  readonly from: Readonly<Record<string, string>>;
  /** Sum of a list of rewards, one a token, over those that count. */
  readonly rewardSum?: number;
}

const FIELD_OF: Readonly<Record<'logProb' | 'oldLogProb' | 'referenceLogProb' | 'entropy', Field>> = {
  logProb: 'logprob',
  oldLogProb: 'old_logprob',
  referenceLogProb: 'ref_logprob',
  entropy: 'entropy',
};

interface Context {
  readonly row: DumpRow;
  readonly picker: FieldPicker;
  readonly place: string;
  readonly record: number;
  readonly vocabularySize?: number;
}

/** Holds the one length that all lists of a record have. */
interface Lengths {
  readonly length: number | undefined;
  check(column: string, length: number): void;
}

function createLengths({ place, record }: Context): Lengths {
  let first: { column: string; length: number } | undefined;
  return {
    get length() {
      return first?.length;
    },
    check(column, length) {
      if (first === undefined) first = { column, length };
      else if (first.length !== length)
        throw new InputError(
          `${place}: record ${record}: "${column}" has ${length} values and "${first.column}" ${first.length}; ` +
            'lists of one record have one value a token each',
        );
    },
  };
}

function readMask(context: Context, lengths: Lengths): Uint8Array | undefined {
  const { row, picker, place, record } = context;
  const picked = picker.pick(row.fields, 'mask');
  if (picked === undefined) return undefined;
  const values = requireNumbers(picked.value, picked.column, place);
  lengths.check(picked.column, values.length);
  const mask = new Uint8Array(values.length);
  for (let t = 0; t < values.length; t++) {
    if (values[t] !== 0 && values[t] !== 1)
      throw new InputError(
        `${place}: record ${record}: "${picked.column}" holds ${values[t]} at token ${t}; a mask is 0 or 1`,
      );
    mask[t] = values[t];
  }
  return mask;
}

/** Puts 0 where the mask is 0: a select, so that a NaN there goes nowhere. */
function clearMasked(values: Float64Array | Int32Array, mask: Uint8Array | undefined): void {
  if (mask === undefined) return;
  for (let t = 0; t < values.length; t++) if (mask[t] === 0) values[t] = 0;
}

function logProbFault(value: number, column: string, { place, record }: Context, t: number): InputError {
  const at = `${place}: "${column}" at record ${record} token ${t}`;
  if (Number.isNaN(value)) return new InputError(`${at} is NaN, and the mask counts this token`);
  if (value === Number.NEGATIVE_INFINITY)
    return new InputError(`${at} is -inf: a token that was sampled cannot have probability 0`);
  return new InputError(`${at}: log-probability must be <= 0; got ${value}: are these logits or probabilities?`);
}

function checkLogProbs(values: Float64Array, column: string, context: Context): void {
  for (let t = 0; t < values.length; t++) {
    const value = values[t];
    if (!(value <= LOG_PROB_SLACK && value > Number.NEGATIVE_INFINITY)) throw logProbFault(value, column, context, t);
  }
}

function checkEntropies(values: Float64Array, column: string, { place, record, vocabularySize }: Context): void {
  const most = mostEntropy(vocabularySize);
  for (let t = 0; t < values.length; t++) {
    const value = values[t];
    if (value >= -ENTROPY_SLACK && value <= most && value < Number.POSITIVE_INFINITY) continue;
    const at = `${place}: "${column}" at record ${record} token ${t}`;
    if (Number.isNaN(value)) throw new InputError(`${at} is NaN, and the mask counts this token`);
    if (value < 0) throw new InputError(`${at}: an entropy is not negative; got ${value}`);
    throw new InputError(
      `${at} is ${value}, above ln ${vocabularySize ?? 'V'} = ${most.toFixed(4)}: is it in bits, or the vocabulary larger (--vocab)?`,
    );
  }
}

function checkFinite(values: Float64Array, column: string, { place, record }: Context): void {
  for (let t = 0; t < values.length; t++) {
    if (values[t] - values[t] !== 0)
      throw new InputError(
        `${place}: "${column}" at record ${record} token ${t} is ${values[t]}, and the mask counts this token`,
      );
  }
}

function readTokens(context: Context, lengths: Lengths, mask: Uint8Array | undefined): Int32Array | undefined {
  const { row, picker, place, record } = context;
  const picked = picker.pick(row.fields, 'tokens');
  // verl stores ids under the name that others give to the text.
  if (picked === undefined || typeof picked.value === 'string') return undefined;
  const values = requireNumbers(picked.value, picked.column, place);
  lengths.check(picked.column, values.length);
  const ids = new Int32Array(values.length);
  for (let t = 0; t < values.length; t++) {
    if (mask !== undefined && mask[t] === 0) continue;
    const id = values[t];
    if (!(Number.isInteger(id) && id >= 0 && id <= 0x7fffffff))
      throw new InputError(
        `${place}: record ${record}: "${picked.column}" holds ${id} at token ${t}, which is no token id`,
      );
    ids[t] = id;
  }
  return ids;
}

function readTexts({ row, picker, place }: Context, lengths: Lengths): readonly string[] | undefined {
  const picked = picker.pick(row.fields, 'token_text');
  if (picked === undefined) return undefined;
  const { column, value } = picked;
  const empty = isNumberArray(value) && value.values.length === 0;
  const texts = empty ? [] : value;
  if (!Array.isArray(texts)) throw new InputError(`${place}: "${column}" is not a list of texts, one a token`);
  lengths.check(column, texts.length);
  for (const [t, text] of texts.entries()) {
    if (typeof text !== 'string' && text !== null)
      throw new InputError(`${place}: "${column}" holds ${String(text)} at token ${t}, a text is needed`);
  }
  return texts as string[];
}

function readLogProbs(
  context: Context,
  lengths: Lengths,
  mask: Uint8Array | undefined,
  from: Record<string, string>,
): Map<TokenColumn, Float64Array> {
  const { row, picker, place } = context;
  const columns = new Map<TokenColumn, Float64Array>();
  for (const name of ['logProb', 'oldLogProb', 'referenceLogProb', 'entropy'] as const) {
    const picked = picker.pick(row.fields, FIELD_OF[name]);
    if (picked === undefined) continue;
    const values = requireNumbers(picked.value, picked.column, place);
    lengths.check(picked.column, values.length);
    clearMasked(values, mask);
    if (name === 'entropy') checkEntropies(values, picked.column, context);
    else checkLogProbs(values, picked.column, context);
    columns.set(name, values);
    from[name] = picked.column;
  }
  return columns;
}

/** A field that is a number a record or a list, one a token. */
function listOf(context: Context, field: Field): { column: string; values: Float64Array } | undefined {
  const picked = context.picker.pick(context.row.fields, field);
  if (
    picked === undefined ||
    !(isNumberArray(picked.value) || Array.isArray(picked.value) || ArrayBuffer.isView(picked.value))
  )
    return undefined;
  return { column: picked.column, values: requireNumbers(picked.value, picked.column, context.place) };
}

/**
 * The lists of a record, checked by the rules of spec 0.1: one length (1), log-probabilities (2), entropies (3), no NaN where the
 * mask counts and none read where it does not (4).
 * @returns undefined where the record has no list of tokens at all
 * @throws InputError naming file, row, column and token
 */
export function readTokenLists(context: Context): TokenLists | undefined {
  const lengths = createLengths(context);
  const mask = readMask(context, lengths);
  const from: Record<string, string> = {};
  const columns = readLogProbs(context, lengths, mask, from);
  const tokens = readTokens(context, lengths, mask);
  if (tokens) from.tokens = context.picker.pick(context.row.fields, 'tokens')?.column ?? 'tokens';
  const texts = readTexts(context, lengths);
  const top = readTopTokens(context, mask, (column, length) => {
    from.topTokens = column;
    lengths.check(column, length);
  });
  const advantage = listOf(context, 'advantage');
  if (advantage) {
    lengths.check(advantage.column, advantage.values.length);
    clearMasked(advantage.values, mask);
    checkFinite(advantage.values, advantage.column, context);
    columns.set('advantage', advantage.values);
    from.advantage = advantage.column;
  }
  const reward = listOf(context, 'reward');
  let rewardSum: number | undefined;
  if (reward) {
    lengths.check(reward.column, reward.values.length);
    clearMasked(reward.values, mask);
    checkFinite(reward.values, reward.column, context);
    rewardSum = reward.values.reduce((sum, value) => sum + value, 0);
  }
  const { length } = lengths;
  if (length === undefined) return undefined;
  let counted = length;
  if (mask) counted = mask.reduce((sum, one) => sum + one, 0);
  const { place, record } = context;
  if (length === 0) throw new InputError(`${place}: record ${record} has no tokens; leave empty responses out`);
  if (counted === 0)
    throw new InputError(`${place}: record ${record}: the mask is 0 at all ${length} tokens; leave such records out`);
  if (mask && texts) for (let t = 0; t < length; t++) if (mask[t] === 0) (texts as string[])[t] = '';
  return {
    length,
    counted,
    columns,
    from,
    ...(counted < length && { mask }),
    ...(tokens && { tokens }),
    ...(texts && { texts }),
    ...(top && { topTokens: top }),
    ...(rewardSum !== undefined && { rewardSum }),
  };
}

/** Checks log-probabilities and entropies that a model gave. @throws InputError */
export function checkScored(columns: ReadonlyMap<TokenColumn, Float64Array>, context: Context): void {
  for (const [name, values] of columns) {
    if (name === 'entropy') checkEntropies(values, name, context);
    else checkLogProbs(values, name, context);
  }
}

export type { Context as RecordContext };
