import type { Command } from 'commander';
import { didYouMean, InputError } from '../src/errors.js';
import { ENGINE_NAMES, loadEngine } from '../src/policy/lab/engines.js';
import { type LabResult, TRAIN_POLICIES } from '../src/policy/lab/lab-job.js';
import { parseMethods, SHARED_LOCK_METHODS } from '../src/policy/lab/lab-methods.js';
import {
  curveColumns,
  curveRows,
  LAB_SCHEMA,
  type LabOutcome,
  type LabSetting,
  labBody,
  labOutcome,
  TABLE_COLUMNS,
  tableRows,
  tableStepsOf,
} from '../src/policy/lab/lab-report.js';
import { seedMean } from '../src/policy/lab/summary.js';
import type { LabEngine, LabMethod, LabRunRequest, LabTask } from '../src/policy/lab/types.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { parseChoice, parseInteger, parseList, parseNumber } from './edge-values.js';
import { ANALYSIS_OPTIONS, attachShared } from './shared-options.js';

const SHARED = [...ANALYSIS_OPTIONS.filter((name) => name !== 'shard'), 'table'] as const;

interface OwnOptions {
  engine?: string;
  method?: string[];
  seeds?: string;
  steps?: string;
  task?: string[];
  tableSteps?: string;
  early?: string;
  level?: string;
  draws?: string;
}

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

/** Declares `surprisal analyze-policy lab`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  const collect = (text: string, previous: string[] = []): string[] => [...previous, text];
  command
    .option('--engine <name>', `where policies are trained: ${ENGINE_NAMES.join(', ')} (default tabular)`)
    .option(
      '--method <rule>',
      'training rule NAME, NAME:key=value,... or LABEL=NAME:key=value,...; repeatable (default: the seven of the published table)',
      collect,
    )
    .option('--seeds <n>', 'runs of every method, with the seeds --seed, --seed + 1, ... (default 5)')
    .option('--steps <n>', 'steps of a run (default: those of the engine)')
    .option('--task <sizes>', 'sizes and rates of the task, name=value, separated by commas; repeatable', collect)
    .option('--table-steps <numbers>', 'steps of the table (default 0,50,100,200,499 and the last)')
    .option('--early <n>', 'steps of the early fit of the law (default 15 % of the steps)')
    .option('--level <x>', 'coverage of the intervals of the law (default 0.9)')
    .option('--draws <n>', 'resamples of a bootstrap (default 1000)')
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

/** `--task` over the initial values of the engine. */
function parseTask(engine: LabEngine, texts: readonly string[]): LabTask {
  const names = Object.keys(engine.task);
  const task: Record<string, number> = {};
  for (const name of names) task[name] = engine.task[name].initial;
  for (const part of texts.flatMap(parseList)) {
    const [name, value, ...rest] = part.split('=');
    if (value === undefined || rest.length > 0) throw new InputError(`--task ${part}: must be name=value`);
    if (!Object.hasOwn(engine.task, name)) {
      throw new InputError(
        `--task ${part}: the engine ${engine.name} has no ${name}${didYouMean(name, names)}; it has ${names.join(', ')}`,
      );
    }
    const { least, most } = engine.task[name];
    task[name] = parseNumber(`--task ${name}`, value, least, most);
  }
  return task;
}

function parseTableSteps(text: string | undefined, steps: number): number[] {
  if (text === undefined) return tableStepsOf(steps);
  const listed = parseList(text).map((step) => parseInteger('--table-steps', step, 0, steps - 1));
  if (listed.length === 0) throw new InputError('--table-steps names no step');
  return [...new Set(listed)];
}

/** Steps of an early fit, as a part of all (spec 1.6), and the fewest that a line with an error needs. */
const EARLY_SHARE = 0.15;
const FEWEST_EARLY = 3;

interface Plan {
  readonly setting: LabSetting;
  readonly methods: readonly LabMethod[];
  /** Method by method, seeds within. */
  readonly runs: readonly LabRunRequest[];
}

function planOf(engine: LabEngine, own: OwnOptions, seed: number): Plan {
  const steps = own.steps === undefined ? engine.steps : parseInteger('--steps', own.steps, 1);
  const seeds = Array.from({ length: parseInteger('--seeds', own.seeds ?? '5', 1) }, (_, i) => seed + i);
  const early = own.early === undefined ? undefined : parseInteger('--early', own.early, FEWEST_EARLY);
  const task = parseTask(engine, own.task ?? []);
  const methods = parseMethods(own.method ?? SHARED_LOCK_METHODS);
  for (const { intervention } of methods) {
    if (engine.rules.includes(intervention)) continue;
    throw new InputError(
      `--method ${intervention}: the engine ${engine.name} cannot train under it; it can under ${engine.rules.join(', ')}`,
    );
  }
  const setting = {
    engine,
    task,
    steps,
    seeds,
    tableSteps: parseTableSteps(own.tableSteps, steps),
    early: early ?? Math.max(FEWEST_EARLY, Math.round(EARLY_SHARE * steps)),
    level: parseNumber('--level', own.level ?? '0.9', 0.5, 0.999),
    draws: parseInteger('--draws', own.draws ?? '1000', 100),
  };
  const runs = methods.flatMap((method) => seeds.map((one) => ({ method, seed: one, steps, task })));
  return { setting, methods, runs };
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const engine = await loadEngine(parseChoice('--engine', own.engine ?? 'tabular', ENGINE_NAMES));
  const plan = planOf(engine, own, options.seed);
  const { setting, methods } = plan;
  return runAnalysis(
    {
      name: LAB_SCHEMA,
      command: 'analyze-policy lab',
      columns: curveColumns(engine.measures),
      tableColumns: TABLE_COLUMNS,
      unit: 'steps',
      inputs: [],
      parameters: {
        engine: engine.name,
        methods: methods.map(({ label }) => label),
        task: setting.task,
        steps: setting.steps,
        seeds: setting.seeds,
        table_steps: setting.tableSteps,
        early: setting.early,
        level: setting.level,
        draws: setting.draws,
        seed: options.seed,
      },
      subtitle: `engine ${engine.name}, ${setting.steps} steps, seeds ${setting.seeds[0]} to ${setting.seeds[setting.seeds.length - 1]}`,
    },
    { ...options, shard: undefined },
    {
      measure: (context) => measure(plan, options, context),
      plan: async () => [
        ['engine', engine.title],
        ['methods', methods.map(({ label }) => label).join('; ')],
        ['runs', plan.runs.length],
        ['steps of a run', setting.steps],
        ['threads', Math.min(options.threads, plan.runs.length)],
        [
          'task',
          Object.entries(setting.task)
            .map(([name, value]) => `${name}=${value}`)
            .join(', '),
        ],
      ],
    },
  );
}

/** Trains all policies, runs dealt over threads; what a run gives does not depend on its thread. */
async function measure(
  { setting, runs }: Plan,
  { threads }: Options,
  context: AnalysisContext,
): Promise<AnalysisOutcome> {
  context.timings.begin('train');
  context.progress.setTotal(runs.length * setting.steps);
  const lanes = Math.min(threads, runs.length);
  let done = 0;
  const onProgress = (value: unknown): void => {
    done += value as number;
    context.progress.update(done);
  };
  const { early, level, draws, seeds } = setting;
  const law = { early, level, draws, seed: seeds[0] };
  const results = await Promise.all(
    Array.from({ length: lanes }, (_, lane) => {
      const own = runs.filter((_run, i) => i % lanes === lane);
      return context.run(TRAIN_POLICIES, { engine: setting.engine.name, runs: own, law }, onProgress);
    }),
  );
  // Back into the order in which they were asked for.
  const ordered = runs.map((_run, i): LabResult => results[i % lanes][Math.floor(i / lanes)]);
  context.timings.count('runs', runs.length);
  const outcome = labOutcome(setting, ordered);
  return {
    body: labBody(outcome),
    rows: () => curveRows(outcome),
    tableRows: () => tableRows(outcome),
    figure: async (subtitle) => (await import('../src/policy/lab/lab-plot.js')).drawLab(outcome, subtitle),
    summary: summaryOf(outcome),
  };
}

function summaryOf({ methods, setting }: LabOutcome): AnalysisOutcome['summary'] {
  const { tableSteps } = setting;
  return {
    header: [
      'method',
      ...tableSteps.map((step) => `H at ${step}`),
      ...tableSteps.slice(1).map((step) => `R at ${step}`),
    ],
    rows: methods.map(({ label, runs }): SummaryCell[] => [
      label,
      ...tableSteps.map((step) => seedMean(runs.map(({ curves }) => curves.entropy[step])).mean),
      ...tableSteps.slice(1).map((step) => seedMean(runs.map(({ curves }) => curves.success[step])).mean),
    ]),
  };
}
