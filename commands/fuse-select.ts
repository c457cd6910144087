import type { Command } from 'commander';
import { didYouMean, InputError } from '../src/errors.js';
import { readRecords } from '../src/formats/documents.js';
import { numberOf } from '../src/formats/feature-table.js';
import type { InputLedger } from '../src/formats/inputs.js';
import { gateBytes } from '../src/fusion/knowledge/gate-file.js';
import { FEEDBACK_WEIGHT, SELECTION_THRESHOLD } from '../src/fusion/knowledge/selector.js';
import {
  fitSelector,
  SELECT_SCHEMA,
  selectBody,
  selectFigure,
  selectionColumns,
  selectionRows,
  selectSummary,
} from '../src/fusion/knowledge/selector-report.js';
import type { LikeliestTokens, SelectorSettings } from '../src/fusion/knowledge/train-selector.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { parseInteger, parseNumber } from './edge-values.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption } from './shared-options.js';

const SHARED = ANALYSIS_OPTIONS.filter((name) => name !== 'shard');
type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

interface OwnOptions {
  readonly trainGate?: string;
  readonly columns?: readonly string[];
  readonly positions?: string;
  readonly threshold?: string;
  readonly feedbackWeight?: string;
  readonly lambda?: string;
  readonly steps?: string;
  readonly batchSize?: string;
  readonly learningRate?: string;
  readonly nearTie?: string;
  readonly dropNan?: boolean;
  readonly gateOut?: string;
}

const COMMAND = 'fuse select';

/** Declares `surprisal fuse select`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--train-gate <scores>', 'table of cross-entropies, a row a sequence and a column a model (.csv, .jsonl)')
    .option('--columns <name...>', 'its columns, the pivot first (default: those that begin with ce)')
    .option('--positions <file>', 'table with sequence, label, argmax_0, p_0, argmax_1, ...: for the interference')
    .option('--threshold <x>', `models with a greater probability are kept (default ${SELECTION_THRESHOLD})`)
    .option('--feedback-weight <x>', `weight of the feedback loss (default ${FEEDBACK_WEIGHT})`)
    .option('--lambda <x>', 'cross-entropies count 1 - lambda (default 0.9)')
    .option('--steps <n>', 'steps of Adam (default 1000)')
    .option('--batch-size <n>', 'sequences of a step (default 64)')
    .option('--learning-rate <x>', 'of Adam (default 0.01)')
    .option('--near-tie <nats>', 'gap of cross-entropies that is reported as a near tie (default 0.008)')
    .option('--drop-nan', 'leave out sequences with a cross-entropy that is no number')
    .option('--gate-out <file.safetensors>', 'write the gate, for fuse knowledge --gate')
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

function settingsOf(own: OwnOptions, seed: number): SelectorSettings {
  return {
    threshold: parseNumber('--threshold', own.threshold ?? String(SELECTION_THRESHOLD), 0, 1),
    feedbackWeight: parseNumber('--feedback-weight', own.feedbackWeight ?? String(FEEDBACK_WEIGHT), 0),
    lambda: parseNumber('--lambda', own.lambda ?? '0.9', 0, 1),
    steps: parseInteger('--steps', own.steps ?? '1000', 1),
    batchSize: parseInteger('--batch-size', own.batchSize ?? '64', 1),
    learningRate: parseNumber('--learning-rate', own.learningRate ?? '0.01', 0),
    seed,
  };
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const file = requireOption(own.trainGate, '--train-gate', 'a table of cross-entropies');
  const settings = settingsOf(own, options.seed);
  const nearTie = parseNumber('--near-tie', own.nearTie ?? '0.008', 0);
  const columns = await columnsOf(file, own.columns);
  const { seed, ...rest } = settings;
  return runAnalysis(
    {
      name: SELECT_SCHEMA,
      command: COMMAND,
      columns: selectionColumns(columns.length),
      ...(own.gateOut !== undefined && { files: new Map([['--gate-out', own.gateOut]]) }),
      unit: 'sequences',
      inputs: [file, ...(own.positions === undefined ? [] : [own.positions])],
      parameters: {
        ...{ scores: file, columns, positions: own.positions ?? null, drop_nan: own.dropNan ?? false },
        ...{ threshold: rest.threshold, feedback_weight: rest.feedbackWeight, lambda: rest.lambda, steps: rest.steps },
        ...{ batch_size: rest.batchSize, learning_rate: rest.learningRate, near_tie_nats: nearTie, seed },
      },
      subtitle: `${file}, ${columns.length} models`,
    },
    { ...options, shard: undefined },
    {
      measure: (context) => measure(file, columns, settings, nearTie, own, context),
      async plan(context) {
        const { ces } = await readScores(file, columns, own.dropNan === true, context.ledger);
        return [
          ['models', columns.join(', ')],
          ['sequences', ces[0].length],
          ['steps', settings.steps],
        ];
      },
    },
  );
}

/** Columns of cross-entropies. @throws InputError for a name that is none */
async function columnsOf(file: string, wanted: readonly string[] | undefined): Promise<readonly string[]> {
  for await (const { record } of readRecords([file], { limit: 1 })) {
    const names = Object.keys(record);
    const stray = wanted?.find((name) => !names.includes(name));
    if (stray !== undefined) throw new InputError(`${file}: there is no column "${stray}"${didYouMean(stray, names)}`);
    const found = wanted ?? names.filter((name) => /^ce/i.test(name));
    if (found.length > 0) return found;
    throw new InputError(
      `${file}: no column begins with "ce" (columns ${names.join(', ')}); name those of the models with --columns`,
    );
  }
  throw new InputError(`${file}: holds no row`);
}

interface Scores {
  /** [models][sequences] */
  readonly ces: readonly Float64Array[];
  /** Rows of the file. */
  readonly kept: Int32Array;
  readonly dropped: number;
}

/** @throws InputError naming row and column of a cell that is no number from 0 on */
async function readScores(
  file: string,
  columns: readonly string[],
  dropNan: boolean,
  ledger: InputLedger,
): Promise<Scores> {
  const ces: number[][] = columns.map(() => []);
  const kept: number[] = [];
  let rows = 0;
  let missing = 0;
  for await (const { record, line, index } of readRecords([file], { ledger })) {
    const own = columns.map((name) => numberOf(record[name]) ?? Number.NaN);
    const negative = own.findIndex((ce) => ce < 0);
    if (negative >= 0) {
      throw new InputError(
        `${file}:${line ?? index}: ${columns[negative]} is ${own[negative]}; a cross-entropy is no less than 0`,
      );
    }
    rows++;
    if (own.some((ce) => !Number.isFinite(ce))) {
      missing++;
      continue;
    }
    own.forEach((ce, k) => {
      ces[k].push(ce);
    });
    kept.push(index);
  }
  if (missing > 0 && !dropNan) {
    throw new InputError(
      `${file}: ${missing} of ${rows} rows have a cross-entropy that is no number; pass --drop-nan to leave them out`,
    );
  }
  if (kept.length === 0) throw new InputError(`${file}: no row has all cross-entropies`);
  return { ces: ces.map((of) => Float64Array.from(of)), kept: Int32Array.from(kept), dropped: missing };
}

/** @throws InputError naming row and column of what is missing or is no sequence of the scores */
async function readPositions(
  file: string,
  models: number,
  kept: Int32Array,
  ledger: InputLedger,
): Promise<LikeliestTokens> {
  const placeOf = new Map([...kept].map((index, place) => [index, place]));
  const sequences: number[] = [];
  const labels: number[] = [];
  const tokens: number[][] = Array.from({ length: models }, () => []);
  const probabilities: number[][] = Array.from({ length: models }, () => []);
  let rows = 0;
  for await (const { record, line, index } of readRecords([file], { ledger })) {
    rows++;
    const cell = (name: string, fallback?: number): number => {
      const value = record[name] === undefined ? fallback : numberOf(record[name]);
      if (value !== undefined && Number.isFinite(value)) return value;
      throw new InputError(`${file}:${line ?? index}: the column "${name}" holds no number`);
    };
    const place = placeOf.get(cell('sequence'));
    if (place === undefined) continue;
    sequences.push(place);
    labels.push(cell('label'));
    for (let k = 0; k < models; k++) {
      tokens[k].push(cell(`argmax_${k}`));
      probabilities[k].push(cell(`p_${k}`, 1));
    }
  }
  if (sequences.length === 0) {
    throw new InputError(`${file}: none of its ${rows} rows is of a sequence of the scores (rows are counted from 0)`);
  }
  return {
    sequences: Int32Array.from(sequences),
    labels: Int32Array.from(labels),
    tokens: tokens.map((of) => Int32Array.from(of)),
    probabilities: probabilities.map((of) => Float64Array.from(of)),
  };
}

async function measure(
  file: string,
  columns: readonly string[],
  settings: SelectorSettings,
  nearTie: number,
  own: OwnOptions,
  context: AnalysisContext,
): Promise<AnalysisOutcome> {
  const { ces, kept, dropped } = await readScores(file, columns, own.dropNan === true, context.ledger);
  const positions =
    own.positions === undefined ? undefined : await readPositions(own.positions, columns.length, kept, context.ledger);
  if (positions && columns.length < 2) throw new InputError('--positions needs two models or more');
  context.timings.begin('fit the gate');
  const found = await context.run(
    { module: new URL('../src/fusion/knowledge/selector-report.js', import.meta.url).href, job: fitSelector },
    { ces, settings, nearTie, ...(positions && { positions }) },
  );
  const body = selectBody(found, columns, { sequences: kept.length, droppedNan: dropped }, settings);
  const { gate } = found.trained;
  return {
    body,
    rows: () => selectionRows(gate, ces, settings.threshold, kept),
    figure: (subtitle) => selectFigure(body, subtitle),
    summary: { header: ['selection', 'value'], rows: selectSummary(body) },
    files: () => new Map([['--gate-out', gateBytes(gate, columns.length)]]),
  };
}
