import { InputError } from '../../errors.js';
import type { Rescored } from './types.js';

/** A conversation as trainers store it. */
export type ChatMessages = readonly Readonly<Record<string, unknown>>[];

/** A record of which the dump has text or token ids, but not what a policy says of them. */
export interface TextRecord {
  /** Number of the record, and where it stands, for messages. */
  readonly record: number;
  readonly place: string;
  readonly prompt?: string | ChatMessages;
  readonly response?: string | ChatMessages;
  /** Token ids of the response, where the dump has them: they are scored as they are. */
  readonly tokens?: Int32Array;
}

/** What teacher forcing says of a record: one value a token of the response each. */
export interface ScoredRecord {
  readonly tokens: Int32Array;
  readonly logProb?: Float64Array;
  readonly oldLogProb?: Float64Array;
  readonly entropy?: Float64Array;
}

/** Columns that a scorer can be asked for. */
export type ScoredColumn = 'logProb' | 'oldLogProb' | 'entropy';

/**
 * Fills what dumps of text lack. Whoever has a model beside the dump gives one to `openRollouts`; records come in batches, in the
 * order of the dump, and the answers in the same order.
 */
export interface TextScorer {
  score(records: readonly TextRecord[], wanted: ReadonlySet<ScoredColumn>): Promise<readonly ScoredRecord[]>;
  /** Columns that it can give: `oldLogProb` only with a model of the policy that sampled. */
  readonly gives: ReadonlySet<ScoredColumn>;
  readonly vocabularySize: number;
  /** Text of a token of the response. */
  textOf(token: number): string;
  /** What was done, after the last record. */
  rescored(): readonly Rescored[];
  warnings(): readonly string[];
}

/** The error of a dump without log-probabilities where no model was given. */
export function textOnlyError(place: string, kind: string, hasRewards: boolean): InputError {
  const views = hasRewards
    ? 'law and reward read its scores; dynamics, interventions and difficulty need log-probabilities'
    : 'dynamics, interventions and difficulty need log-probabilities';
  return new InputError(
    `${place}: ${kind}, without log-probabilities: ${views}: give the policy with --model (and the one that sampled with --old-model) to re-score it, ` +
      'or name the column with --map logprob=COLUMN',
  );
}

/** A prompt or response; undefined when the value is neither text nor a conversation. */
export function textOrMessages(value: unknown): string | ChatMessages | undefined {
  if (typeof value === 'string') return value;
  const isMessage = (entry: unknown): boolean =>
    typeof entry === 'object' && entry !== null && !Array.isArray(entry) && 'content' in entry;
  return Array.isArray(value) && value.length > 0 && value.every(isMessage) ? (value as ChatMessages) : undefined;
}
