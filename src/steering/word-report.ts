import { InputError } from '../errors.js';
import type { Cell } from '../report/csv.js';
import { type WordRatio, type WordRatios, wordRatios } from './word-ratio.js';

/** Name of the JSON report of `steer words`, without its prefix. */
export const WORDS_SCHEMA = 'steer-words';

/** English words without a content of their own. Parts of contractions are there too. */
export const STOP_WORDS: readonly string[] = (
  'a about above after again all also am an and any are as at be because been before being below between both but by can ' +
  "can't cannot could did do does doing don't down during each few for from further had has have having he her here hers " +
  "him his how i i'd i'll i'm i've if in into is isn't it it's its itself just let let's me more most my myself no nor not " +
  "now of off on once one only or other our ours out over own same she should so some such than that that's the their " +
  "theirs them then there there's these they they're this those through to too two under until up very was we we'll we're " +
  "were what when where which while who whom why will with won't would you you'll you're your yours s t ll re ve d m"
).split(' ');

/** The thought of a reply: what stands between `Thought:` and `Action:`, or all of it. */
export function thoughtOf(reply: string): string {
  const begin = /thought\s*:/i.exec(reply);
  const rest = begin ? reply.slice(begin.index + begin[0].length) : reply;
  const end = /action\s*:/i.exec(rest);
  return end ? rest.slice(0, end.index) : rest;
}

/**
 * Replies of a row of a log: its completions, else what was carried out.
 * @throws InputError for a row without either; `place` names it
 */
export function repliesOf(record: Readonly<Record<string, unknown>>, place: string): string[] {
  const { completions, reply } = record;
  if (Array.isArray(completions)) return completions.map(String);
  if (typeof reply === 'string') return [reply];
  if (reply === null) return [];
  throw new InputError(`${place}: neither completions nor reply; a log of steer bandit is needed`);
}

/** One word of the report. */
export type WordRow = {
  readonly word: string;
  readonly default_count: number;
  readonly steered_count: number;
  /** Smoothed relative frequency, steered over default. */
  readonly ratio: number;
  /** Standard error of ln ratio if words were drawn independently: sqrt(1/(c_s + a) + 1/(c_d + a)). */
  readonly log_ratio_se: number;
};

export interface WordsBody {
  readonly default_replies: number;
  readonly steered_replies: number;
  readonly default_words: number;
  readonly steered_words: number;
  readonly smoothing: number;
  readonly min_count: number;
  readonly stop_words: number;
  /** Words that are listed. */
  readonly words: number;
  /** Most frequent with steering against without, and the other way round. */
  readonly most_steered: readonly WordRow[];
  readonly most_default: readonly WordRow[];
}

export interface WordsSetting {
  readonly stopWords: readonly string[];
  readonly smoothing: number;
  readonly minimumCount: number;
  /** Words of each end in the report. */
  readonly top: number;
}

const rowOf = ({ word, defaultCount, steeredCount, ratio }: WordRatio, smoothing: number): WordRow => ({
  word,
  default_count: defaultCount,
  steered_count: steeredCount,
  ratio,
  log_ratio_se: Math.sqrt(1 / (steeredCount + smoothing) + 1 / (defaultCount + smoothing)),
});

/**
 * Words of thoughts with and without steering.
 * @throws InputError where a side is empty or says always the same, as the fixed thought of a forced choice does
 */
export function wordsBody(
  defaultReplies: readonly string[],
  steeredReplies: readonly string[],
  setting: WordsSetting,
): { readonly body: WordsBody; readonly rows: readonly WordRow[] } {
  const sides = { default: defaultReplies, steered: steeredReplies };
  for (const [name, replies] of Object.entries(sides)) {
    if (replies.length === 0) throw new InputError(`--${name}: no replies in the log`);
    if (replies.length > 1 && new Set(replies.map(thoughtOf)).size === 1) {
      throw new InputError(
        `--${name}: every reply has the same thought; words need sampled replies (steer bandit --entropy sampled)`,
      );
    }
  }
  const { smoothing, minimumCount } = setting;
  const ratios: WordRatios = wordRatios(defaultReplies.map(thoughtOf), steeredReplies.map(thoughtOf), {
    stopwords: setting.stopWords,
    smoothing,
    minimumCount,
  });
  const rows = ratios.words.map((word) => rowOf(word, smoothing));
  return {
    body: {
      default_replies: defaultReplies.length,
      steered_replies: steeredReplies.length,
      default_words: ratios.defaultWords,
      steered_words: ratios.steeredWords,
      smoothing,
      min_count: minimumCount,
      stop_words: setting.stopWords.length,
      words: rows.length,
      most_steered: rows.slice(0, setting.top),
      most_default: rows.slice(-setting.top).reverse(),
    },
    rows,
  };
}

export const WORD_COLUMNS = [
  'word',
  'default_count',
  'steered_count',
  'ratio',
  'log_ratio_se',
] as const satisfies readonly (keyof WordRow)[];

export function* wordRows(rows: readonly WordRow[]): Generator<Cell[]> {
  for (const row of rows) yield WORD_COLUMNS.map((column) => row[column]);
}
