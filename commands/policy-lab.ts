import type { Command } from 'commander';
import { didYouMean, InputError } from '../src/errors.js';
import { encodeNpy } from '../src/formats/npy.js';
import { ENGINE_NAMES, loadEngine } from '../src/policy/lab/engines.js';
import {
  type DumpPart,
  type DumpSettings,
  type LabJobRun,
  type LabProgress,
  type LabResult,
  TRAIN_POLICIES,
} from '../src/policy/lab/lab-job.js';
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
import type { LabEngine, LabMethod, LabTask } from '../src/policy/lab/types.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { flagOf, parseChoice, parseInteger, parseList, parseNumber } from './edge-values.js';
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
  dump?: string;
  dumpEvaluations?: string;
  dumpMethod?: string;
  dumpSeed?: string;
  dumpEvery?: string;
  dumpTop?: string;
  probeDump?: string;
  probeStates?: string;
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
    .option('--dump <file.jsonl>', 'rollouts of one run, as the other views read them')
    .option('--dump-evaluations <file.csv>', 'steps and success of the same run, for law --evaluations')
    .option('--dump-method <label>', 'method of the dumped run (default the first)')
    .option('--dump-seed <n>', 'seed of the dumped run (default --seed)')
    .option('--dump-every <n>', 'steps from one dumped step to the next (default 1)')
    .option('--dump-top <k>', 'likeliest tokens of every position in the dump (default 0: none)')
    .option(
      '--probe-dump <file.jsonl>',
      'responses of the finished policy to prompts of all difficulties (transformer)',
    )
    .option('--probe-states <file.npy>', 'its hidden states at the end of those prompts (transformer)')
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

const FILES = ['dump', 'dumpEvaluations', 'probeDump', 'probeStates'] as const;
const DUMP_ONLY = ['dumpMethod', 'dumpSeed', 'dumpEvery', 'dumpTop'] as const;

/** The run that is written out, and what of it. */
interface DumpPlan extends DumpSettings {
  readonly method: string;
  readonly seed: number;
}

function dumpPlanOf(own: OwnOptions, methods: readonly LabMethod[], seeds: readonly number[]): DumpPlan | undefined {
  if (FILES.every((name) => own[name] === undefined)) {
    const stray = DUMP_ONLY.find((name) => own[name] !== undefined);
    if (stray !== undefined) throw new InputError(`${flagOf(stray)} has no meaning without --dump`);
    return undefined;
  }
  const labels = methods.map(({ label }) => label);
  const seed = own.dumpSeed === undefined ? seeds[0] : parseInteger('--dump-seed', own.dumpSeed);
  if (!seeds.includes(seed)) {
    throw new InputError(`--dump-seed ${seed}: the seeds are ${seeds[0]} to ${seeds[seeds.length - 1]}`);
  }
  return {
    method: parseChoice('--dump-method', own.dumpMethod ?? labels[0], labels),
    seed,
    every: parseInteger('--dump-every', own.dumpEvery ?? '1', 1),
    top: parseInteger('--dump-top', own.dumpTop ?? '0'),
    probe: own.probeDump !== undefined || own.probeStates !== undefined,
  };
}

interface Plan {
  readonly dump: DumpPlan | undefined;
  readonly setting: LabSetting;
  readonly methods: readonly LabMethod[];
  /** Method by method, seeds within. */
  readonly runs: readonly LabJobRun[];
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
  const dump = dumpPlanOf(own, methods, seeds);
  const runs = methods.flatMap((method) =>
    seeds.map((one) => ({
      ...{ method, seed: one, steps, task },
      ...(dump?.method === method.label && dump.seed === one && { dump }),
    })),
  );
  return { dump, setting, methods, runs };
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
      files: new Map(FILES.flatMap((name) => (own[name] === undefined ? [] : [[flagOf(name), own[name]]]))),
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

const NOTHING = { records: 0, tokens: 0 };

/** Writes what threads tell of the dumped run into its files, in the order in which it comes. */
function dumpWriter(context: AnalysisContext) {
  const files = Object.fromEntries(FILES.map((name) => [name, context.file(flagOf(name))]));
  const counts = { dump: { ...NOTHING }, probeDump: { ...NOTHING } };
  const append = (name: keyof typeof counts, { lines, records, tokens }: DumpPart): void => {
    files[name]?.write(lines);
    counts[name].records += records;
    counts[name].tokens += tokens;
  };
  let probed = false;
  return {
    counts,
    take({ rollouts, probe }: LabProgress): void {
      if (rollouts) append('dump', rollouts);
      if (probe === undefined) return;
      probed = true;
      append('probeDump', probe);
      files.probeStates?.write(encodeNpy(probe.states, [probe.promptIds.length, probe.width]));
    },
    /** Evaluations of the dumped run, when it is there. */
    finish({ dump, setting }: Plan, { methods }: LabOutcome): void {
      if (dump?.probe && !probed) {
        throw new InputError(
          `--probe-dump and --probe-states: the engine ${setting.engine.name} asked no prompts of its finished policy`,
        );
      }
      const found = methods.find(({ label }) => label === dump?.method)?.runs.find(({ seed }) => seed === dump?.seed);
      if (dump === undefined || found === undefined) return;
      files.dumpEvaluations?.write('step,score\n');
      found.curves.success.forEach((score, step) => {
        if (step % dump.every === 0 && Number.isFinite(score)) files.dumpEvaluations?.write(`${step},${score}\n`);
      });
    },
  };
}

/** Trains all policies, runs dealt over threads; what a run gives does not depend on its thread. */
async function measure(plan: Plan, { threads }: Options, context: AnalysisContext): Promise<AnalysisOutcome> {
  const { setting, runs, dump } = plan;
  context.timings.begin('train');
  context.progress.setTotal(runs.length * setting.steps);
  const lanes = Math.min(threads, runs.length);
  const writer = dumpWriter(context);
  let done = 0;
  const onProgress = (value: unknown): void => {
    const told = value as LabProgress;
    done += told.steps ?? 0;
    context.progress.update(done);
    writer.take(told);
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
  writer.finish(plan, outcome);
  const { method, seed, every, top } = dump ?? {};
  const dumped = dump === undefined ? null : { ...{ method, seed, every, top }, ...writer.counts.dump };
  return {
    body: { ...labBody(outcome), dump: dumped },
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
