import { InputError } from '../../errors.js';
import type { TopTokens } from './types.js';

/** One response in the terms of spec 0.1. Every array has one value a token; nats. */
export interface RolloutRecord {
  readonly step: number;
  readonly promptId: string;
  readonly responseId?: string;
  readonly prompt?: string;
  readonly tokens?: ArrayLike<number>;
  readonly tokenText?: readonly string[];
  readonly logProb: ArrayLike<number>;
  readonly oldLogProb?: ArrayLike<number>;
  readonly referenceLogProb?: ArrayLike<number>;
  readonly entropy?: ArrayLike<number>;
  readonly topTokens?: TopTokens;
  readonly mask?: ArrayLike<number>;
  /** Of the record, or of every token. */
  readonly advantage?: number | ArrayLike<number>;
  readonly reward?: number;
  readonly correct?: boolean;
  readonly difficulty?: string | number;
  /** Position of the last token of the end-of-thinking marker; -1 without. */
  readonly thinkEnd?: number;
  /** Spans [from, to) of the turns, one behind another. */
  readonly stepSpans?: ArrayLike<number>;
  /** Other numbers of the record by name, such as component rewards. */
  readonly numbers?: Readonly<Record<string, number>>;
}

/** Fields with one value a token. */
const LISTS = {
  tokens: 'tokens',
  logProb: 'logprob',
  oldLogProb: 'old_logprob',
  referenceLogProb: 'ref_logprob',
  entropy: 'entropy',
  mask: 'mask',
} as const;

type ListName = keyof typeof LISTS;
const LIST_NAMES = Object.keys(LISTS) as ListName[];

function checkLengths(record: RolloutRecord, written: number): void {
  const wanted = record.logProb.length;
  const check = (name: string, length: number | undefined): void => {
    if (length !== undefined && length !== wanted)
      throw new InputError(`record ${written}: ${name} has ${length} values and logprob ${wanted}`);
  };
  for (const name of LIST_NAMES) check(LISTS[name], record[name]?.length);
  check('token_text', record.tokenText?.length);
  if (typeof record.advantage === 'object') check('advantage', record.advantage.length);
  if (record.topTokens) check('topk', record.topTokens.ids.length / record.topTokens.k);
}

/** Numbers as JSON has them: what is not finite becomes null, which is NaN again where it is read. */
const listed = (values: ArrayLike<number>): number[] => Array.from(values);

/** Pairs of id and log-probability of every position, without those that fill up k. */
function pairs({ k, ids, logProbs }: TopTokens): [number, number][][] {
  return Array.from({ length: ids.length / k }, (_, t) => {
    const position: [number, number][] = [];
    for (let j = t * k; j < (t + 1) * k; j++)
      if (logProbs[j] > Number.NEGATIVE_INFINITY) position.push([ids[j], logProbs[j]]);
    return position;
  });
}

function spans(values: ArrayLike<number>): [number, number][] {
  return Array.from({ length: values.length / 2 }, (_, s) => [values[2 * s], values[2 * s + 1]]);
}

/** A record as an object of the fields of spec 0.1. */
function objectOf(record: RolloutRecord): Record<string, unknown> {
  const object: Record<string, unknown> = {
    step: record.step,
    prompt_id: record.promptId,
    response_id: record.responseId,
    prompt: record.prompt,
    reward: record.reward,
    correct: record.correct,
    difficulty: record.difficulty,
    think_end: record.thinkEnd,
    step_spans: record.stepSpans && spans(record.stepSpans),
    advantage: typeof record.advantage === 'object' ? listed(record.advantage) : record.advantage,
    ...record.numbers,
    token_text: record.tokenText,
    topk: record.topTokens && pairs(record.topTokens),
  };
  for (const name of LIST_NAMES) {
    const values = record[name];
    if (values) object[LISTS[name]] = listed(values);
  }
  return object;
}

/**
 * A record as a line of a JSON Lines dump.
 * @param written records before it, for messages
 * @throws InputError for lists of different lengths
 */
export function rolloutLine(record: RolloutRecord, written: number): string {
  checkLengths(record, written);
  return `${JSON.stringify(objectOf(record))}\n`;
}
