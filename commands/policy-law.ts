import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { readRecords } from '../src/formats/documents.js';
import { numberOf } from '../src/formats/feature-table.js';
import { expandSources } from '../src/formats/inputs.js';
import { DUMP_PERFORMANCES, type DumpPerformance, dumpSteps } from '../src/policy/law/dump-steps.js';
import { analyseLawsJob, type EarlyChoice, type LawAnalysis, type LawOptions } from '../src/policy/law/law-analysis.js';
import {
  COVARIANCE_COLUMNS,
  ENTROPY_COLUMNS,
  type EntropySteps,
  type JoinedRun,
  joinRun,
  readEvaluations,
  readSteps,
} from '../src/policy/law/law-data.js';
import { LAW_COLUMNS, LAW_SCHEMA, lawBody, lawRows } from '../src/policy/law/law-report.js';
import type { ReportValue } from '../src/report/values.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { flagOf, parseChoice, parseInteger, parseList, parseNumber } from './edge-values.js';
import {
  attachRollouts,
  ROLLOUT_OPTIONS,
  type RolloutOwnOptions,
  rolloutModelDigests,
  rolloutModels,
  rolloutParameters,
  rolloutRequest,
  withRollouts,
} from './policy-rollouts.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption } from './shared-options.js';

const SHARED = [...ANALYSIS_OPTIONS.filter((name) => name !== 'shard'), ...ROLLOUT_OPTIONS] as const;

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

interface OwnOptions extends RolloutOwnOptions {
  input?: string;
  evaluations?: string;
  stepColumn?: string;
  entropyColumn?: string;
  performanceColumn?: string;
  scoreColumn?: string;
  runColumn?: string;
  paramsColumn?: string;
  params?: string;
  predictParams?: string;
  early?: string;
  draws?: string;
  level?: string;
  block?: string;
  logX?: boolean;
}

const INPUTS = ['auto', 'steps', 'dump'] as const;
/** Of the paper: 36 of 236 steps. */
const DEFAULT_EARLY = '15%';

/** Declares `surprisal analyze-policy law`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--input <kind>', 'what --data is: auto, steps (a table with one row a step) or dump (default auto)')
    .option('--evaluations <file>', 'table of evaluations with columns step and score, joined on step')
    .option('--step-column <name>', 'column of the step (default step)')
    .option(
      '--entropy-column <name>',
      `column of the entropy in nats (default the first of ${ENTROPY_COLUMNS.join(', ')})`,
    )
    .option(
      '--performance-column <name>',
      'column of the performance, without --evaluations (default performance); of a dump reward or correct',
    )
    .option('--score-column <name>', 'column of the score in --evaluations (default score)')
    .option('--run-column <name>', 'column that names the run, in tables of several (default one run a file)')
    .option('--params-column <name>', 'column with the number of parameters of the model of a run')
    .option('--params <run=n,...>', 'numbers of parameters by run, such as small=5e8,large=7e9')
    .option('--predict-params <n,...>', 'sizes whose a and b the regression on ln(parameters) predicts')
    .option('--early <m>', `points of the early fit, or a share of them: 36, 15% or 0.15 (default ${DEFAULT_EARLY})`)
    .option('--draws <n>', 'resamples of the points for the intervals, 0 for none (default 1000)')
    .option('--level <x>', 'coverage of all intervals (default 0.9)')
    .option('--block <n>', 'points drawn together in the block bootstrap (default the cube root of their number)')
    .option('--log-x', 'logarithmic axis of the entropy in the figure');
  attachRollouts(command);
  command.action(async () => {
    process.exitCode = await run(await read(), command.opts<OwnOptions>());
  });
}

/** `36`, `15%` or `0.15`. @throws InputError */
function parseEarly(text: string): EarlyChoice {
  if (/^\d+$/.test(text.trim())) return { points: parseInteger('--early', text, 3) };
  const percent = text.trim().endsWith('%');
  const share = parseNumber('--early', percent ? text.trim().slice(0, -1) : text, 0) / (percent ? 100 : 1);
  if (share > 0 && share < 1) return { share };
  throw new InputError(`--early ${text}: a number of points, or a share above 0 and below 1 is needed`);
}

function lawOptions(options: Options, own: OwnOptions): LawOptions {
  const level = parseNumber('--level', own.level ?? '0.9');
  if (!(level > 0 && level < 1)) throw new InputError(`--level ${own.level}: a share above 0 and below 1 is needed`);
  const draws = parseInteger('--draws', own.draws ?? '1000');
  if (draws === 1) throw new InputError('--draws 1: one resample has no spread');
  return {
    early: parseEarly(own.early ?? DEFAULT_EARLY),
    earlyAsked: own.early !== undefined,
    seed: options.seed,
    draws,
    level,
    ...(own.block !== undefined && { block: parseInteger('--block', own.block, 1) }),
    predictParams: parseList(own.predictParams ?? '').map((size) => {
      const params = parseNumber('--predict-params', size, 0);
      if (params === 0) throw new InputError('--predict-params 0: a positive size is needed');
      return params;
    }),
  };
}

/** Sizes by run. @throws InputError */
function parseParams(text: string | undefined): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const entry of parseList(text ?? '')) {
    const at = entry.lastIndexOf('=');
    const name = entry.slice(0, at).trim();
    if (at < 1) throw new InputError(`--params ${entry}: write run=number, for example small=5e8`);
    const params = parseNumber('--params', entry.slice(at + 1), 0);
    if (!(params > 0)) throw new InputError(`--params ${entry}: a positive number is needed`);
    if (sizes.has(name)) throw new InputError(`--params names ${name} twice`);
    sizes.set(name, params);
  }
  return sizes;
}

/** Whether the first record of a table has one number where an entropy is looked for: a dump has a list there. */
async function isStepTable(paths: readonly string[], own: OwnOptions): Promise<boolean> {
  if (own.input !== undefined && own.input !== 'auto') return own.input === 'steps';
  if (!/\.(csv|tsv|jsonl|ndjson|parquet)(\.gz)?$/i.test(paths[0]) && paths[0] !== '-') return false;
  if (paths[0] === '-') throw new InputError('--data -: say what it is with --input steps or --input dump');
  const names: readonly string[] = own.entropyColumn === undefined ? ENTROPY_COLUMNS : [own.entropyColumn];
  for await (const { record } of readRecords([paths[0]], { limit: 1 })) {
    const cells = names.filter((name) => Object.hasOwn(record, name)).map((name) => record[name]);
    const tokens = ['tokens', 'logprob', 'completion', 'output'].some((name) => Object.hasOwn(record, name));
    return cells.length > 0 ? cells.every((cell) => !Array.isArray(cell) && numberOf(cell) !== undefined) : !tokens;
  }
  return true;
}

const TABLE_ONLY = ['entropyColumn', 'runColumn', 'paramsColumn'] as const;
const DUMP_ONLY = [
  'map',
  'advantage',
  'thinkMarker',
  'marker',
  'exactLimit',
  'vocab',
  'oldModel',
  'temperature',
  'promptFormat',
  'workDir',
] as const;

/** Options that nothing would read are refused. */
function checkOptions(options: Options, own: OwnOptions, table: boolean): void {
  const stray = (table ? DUMP_ONLY : TABLE_ONLY).find((name) => own[name] !== undefined);
  if (stray !== undefined) {
    throw new InputError(
      `${flagOf(stray)} is for ${table ? 'rollout dumps' : 'tables of steps'}; --input says what --data is`,
    );
  }
  const model = (['model', 'context'] as const).find((name) => options[name] !== undefined);
  if (table && model !== undefined)
    throw new InputError(`--${model} is for re-scoring rollout dumps; --data is a table of steps`);
  if (!table && own.stepColumn !== undefined && own.evaluations === undefined)
    throw new InputError('--step-column is of tables; --map step=column names the column of a dump');
  if (own.block !== undefined && own.draws !== undefined && Number(own.draws) === 0)
    throw new InputError('--block is for the resamples, of which --draws 0 takes none');
  if (own.logX === true && options.plot === undefined)
    throw new InputError('--log-x is for the figure; name a file with --plot');
  if (own.scoreColumn !== undefined && own.evaluations === undefined) {
    throw new InputError(
      '--score-column is of the file of --evaluations; name the column of the table with --performance-column',
    );
  }
  if (own.performanceColumn !== undefined && own.evaluations !== undefined) {
    throw new InputError('--performance-column and --evaluations both say where the performance is; leave one out');
  }
}

async function readRuns(
  options: Options,
  own: OwnOptions,
  paths: readonly string[],
  table: boolean,
  context: AnalysisContext,
): Promise<EntropySteps[]> {
  if (table) {
    const limit = options.limit === undefined ? {} : { limit: options.limit };
    return readSteps(readRecords(paths, { ledger: context.ledger, ...limit }), {
      step: own.stepColumn ?? 'step',
      entropy: own.entropyColumn === undefined ? ENTROPY_COLUMNS : [own.entropyColumn],
      ...(own.evaluations === undefined && { performance: own.performanceColumn ?? 'performance' }),
      covariance: COVARIANCE_COLUMNS,
      ...(own.runColumn !== undefined && { run: own.runColumn }),
      ...(own.paramsColumn !== undefined && { params: own.paramsColumn }),
    });
  }
  const performance = dumpPerformance(own);
  const args = { run: options.data.join(', '), ...(performance !== undefined && { performance }) };
  const module = new URL('../src/policy/law/dump-steps.js', import.meta.url).href;
  const found = await withRollouts(context.ledger, rolloutRequest(options, own), (request) =>
    context.run({ module, job: dumpSteps }, { ...args, request }, (value) => {
      const { records } = value as { records: number };
      context.progress.update(records, 'records');
    }),
  );
  context.timings.count('tokens', found.tokens);
  for (const warning of found.warnings) context.warn(warning);
  return [found.steps];
}

function dumpPerformance(own: OwnOptions): DumpPerformance | undefined {
  if (own.evaluations !== undefined) return undefined;
  const asked = requireOption(
    own.performanceColumn,
    '--evaluations',
    'a table with columns step and score (or, for the performance in training, --performance-column reward or correct)',
  );
  return parseChoice('--performance-column', asked, DUMP_PERFORMANCES);
}

/** Runs with their evaluations. @throws InputError for a run of --params that is not there */
async function joinedRuns(
  runs: readonly EntropySteps[],
  own: OwnOptions,
  context: AnalysisContext,
): Promise<JoinedRun[]> {
  const sizes = parseParams(own.params);
  for (const name of sizes.keys()) {
    if (!runs.some(({ run }) => run === name)) {
      throw new InputError(`--params: no run "${name}"; the runs are ${runs.map(({ run }) => run).join(', ')}`);
    }
  }
  const evaluations =
    own.evaluations === undefined
      ? undefined
      : await readEvaluations(readRecords([own.evaluations], { ledger: context.ledger }), {
          step: own.stepColumn ?? 'step',
          score: own.scoreColumn ?? 'score',
          ...(own.runColumn !== undefined && { run: own.runColumn }),
        });
  if (evaluations !== undefined && own.runColumn === undefined && runs.length > 1) {
    throw new InputError('evaluations of several runs need --run-column in both tables');
  }
  return runs.map((steps) => {
    const params = sizes.get(steps.run);
    const sized = params === undefined ? steps : { ...steps, params };
    if (evaluations === undefined) return joinRun(sized);
    return joinRun(sized, evaluations.get(own.runColumn === undefined ? '' : steps.run) ?? new Map());
  });
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  parseChoice('--input', own.input ?? 'auto', INPUTS);
  const data = requireOption(options.data, '--data', 'a table with one row a step, or a rollout dump');
  const law = lawOptions(options, own);
  const paths = await expandSources(data);
  const table = await isStepTable(paths, own);
  checkOptions(options, own, table);
  const request = table ? undefined : rolloutRequest({ ...options, data: [...paths] }, own);
  const inputs = [
    ...[...paths, ...(request ? rolloutModels(request) : [])],
    ...(own.evaluations === undefined ? [] : [own.evaluations]),
  ];
  return runAnalysis(
    {
      name: LAW_SCHEMA,
      command: 'analyze-policy law',
      columns: LAW_COLUMNS,
      unit: table ? 'runs' : 'records',
      inputs,
      parameters: parametersOf(options, own, law, table),
      subtitle: data.join(', '),
    },
    { ...options, shard: undefined },
    {
      measure: async (context) => {
        const joined = await joinedRuns(await readRuns(options, own, paths, table, context), own, context);
        const module = new URL('../src/policy/law/law-analysis.js', import.meta.url).href;
        const found = await context.run({ module, job: analyseLawsJob }, { runs: joined, options: law });
        for (const warning of found.warnings) context.warn(warning);
        return { ...outcomeOf(found, law, own), ...(request && { digests: () => rolloutModelDigests(request) }) };
      },
      plan: async (context) => {
        if (!table)
          return [
            ['input', 'rollout dump'],
            ['files', paths.length],
          ];
        const joined = await joinedRuns(await readRuns(options, own, paths, table, context), own, context);
        return [
          ['input', 'table of steps'],
          ...joined.map(({ run: name, step, entropyOnly }) => [
            name,
            `${step.length} points, ${entropyOnly.length} steps without evaluation`,
          ]),
        ];
      },
    },
  );
}

function parametersOf(options: Options, own: OwnOptions, law: LawOptions, table: boolean): Record<string, ReportValue> {
  return {
    input: table ? 'steps' : 'dump',
    ...(table
      ? { data: [...options.data], limit: options.limit ?? null }
      : rolloutParameters(rolloutRequest(options, own))),
    evaluations: own.evaluations ?? null,
    step_column: own.stepColumn ?? 'step',
    entropy_column: own.entropyColumn ?? null,
    performance_column: own.performanceColumn ?? null,
    score_column: own.evaluations === undefined ? null : (own.scoreColumn ?? 'score'),
    run_column: own.runColumn ?? null,
    params_column: own.paramsColumn ?? null,
    params: own.params ?? null,
    predict_params: [...law.predictParams],
    early: own.early ?? DEFAULT_EARLY,
    draws: law.draws,
    level: law.level,
    block: law.block ?? null,
    seed: options.seed,
  };
}

function outcomeOf(found: LawAnalysis, law: LawOptions, own: OwnOptions): AnalysisOutcome {
  return {
    body: lawBody(found, law.level),
    rows: () => lawRows(found),
    figure: async (subtitle) =>
      (await import('../src/policy/law/law-plot.js')).lawFigure(found, subtitle, own.logX === true),
    summary: {
      header: ['run', 'points', 'a', 'b', 'ceiling', 'R2', 'early points', 'early ceiling', 'rmse of the rest'],
      rows: found.runs.map(({ joined, fit, early }) => [
        ...[joined.run, fit.points, fit.a, fit.b, fit.ceiling, fit.r2],
        ...[early?.points ?? '', early?.fit.ceiling ?? '', early?.rmse ?? ''],
      ]),
    },
  };
}
