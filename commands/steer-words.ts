import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { readRecords } from '../src/formats/documents.js';
import type { InputLedger } from '../src/formats/inputs.js';
import { placeOf } from '../src/formats/rows.js';
import {
  repliesOf,
  STOP_WORDS,
  WORD_COLUMNS,
  WORDS_SCHEMA,
  type WordRow,
  wordRows,
  wordsBody,
} from '../src/steering/word-report.js';
import { runAnalysis } from './analysis-run.js';
import { parseInteger, parseNumber } from './edge-values.js';
import { attachShared, requireOption, type SharedOptions } from './shared-options.js';

const SHARED = [
  'out',
  'format',
  'report',
  'seed',
  'threads',
  'maxMemory',
  'assert',
  'baseline',
  'timings',
  'quiet',
  'dryRun',
  'force',
] as const;

type Shared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

interface WordsOptions {
  default?: string[];
  steered?: string[];
  stopWords?: string;
  smoothing?: string;
  minCount?: string;
  top?: string;
}

const DEFAULTS = { smoothing: 0.5, minCount: 3, top: 20 } as const;

/** Declares `surprisal steer words`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--default <log...>', 'logs of steer bandit without steering')
    .option('--steered <log...>', 'logs with steering')
    .option('--stop-words <file>', 'words to leave out, one a line (default: English words without content)')
    .option('--smoothing <x>', `added to every count (default ${DEFAULTS.smoothing})`)
    .option('--min-count <n>', `occurrences that a word needs, both sides together (default ${DEFAULTS.minCount})`)
    .option('--top <n>', `words of each end that are shown and reported (default ${DEFAULTS.top})`)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<WordsOptions>());
    });
}

async function readReplies(files: readonly string[], ledger: InputLedger): Promise<string[]> {
  const replies: string[] = [];
  for await (const row of readRecords(files, { ledger })) replies.push(...repliesOf(row.record, placeOf(row)));
  return replies;
}

async function run(options: Shared, own: WordsOptions): Promise<number> {
  const before = requireOption(own.default, '--default', 'a log of steer bandit without steering');
  const after = requireOption(own.steered, '--steered', 'a log with steering');
  const setting = {
    smoothing: own.smoothing === undefined ? DEFAULTS.smoothing : parseNumber('--smoothing', own.smoothing, 0),
    minimumCount: own.minCount === undefined ? DEFAULTS.minCount : parseInteger('--min-count', own.minCount, 1),
    top: own.top === undefined ? DEFAULTS.top : parseInteger('--top', own.top, 1),
  };
  const view = {
    name: WORDS_SCHEMA,
    command: 'steer words',
    columns: WORD_COLUMNS,
    unit: 'replies',
    inputs: [...before, ...after, ...(own.stopWords === undefined ? [] : [own.stopWords])],
    parameters: {
      default: before,
      steered: after,
      stop_words: own.stopWords ?? null,
      smoothing: setting.smoothing,
      min_count: setting.minimumCount,
      top: setting.top,
    },
    subtitle: '',
  };
  return runAnalysis(
    view,
    { ...options, plot: undefined, shard: undefined },
    {
      async measure({ ledger }) {
        if (own.stopWords !== undefined) ledger.note(own.stopWords);
        const stopWords = own.stopWords === undefined ? STOP_WORDS : readWords(own.stopWords);
        const { body, rows } = wordsBody(await readReplies(before, ledger), await readReplies(after, ledger), {
          ...setting,
          stopWords,
        });
        const shown = ({ word, default_count, steered_count, ratio }: WordRow) => [
          word,
          default_count,
          steered_count,
          ratio,
        ];
        return {
          body,
          rows: () => wordRows(rows),
          summary: {
            header: ['word', 'default', 'steered', 'ratio'],
            rows: [...body.most_steered.map(shown), ...[...body.most_default].reverse().map(shown)],
          },
        };
      },
      plan: async () => [
        ['logs without steering', before.join(', ')],
        ['logs with steering', after.join(', ')],
      ],
    },
  );
}

function readWords(file: string): string[] {
  return readFileSync(file, 'utf8')
    .split(/\s+/)
    .filter((word) => word !== '');
}
