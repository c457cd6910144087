import { existsSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { type AtomicDirectory, createAtomicDirectory } from '../src/formats/atomic.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { createInputLedger, expandSources, type InputDigest, type InputLedger } from '../src/formats/inputs.js';
import { checkGroups, checkProportions } from '../src/fusion/mixing/exponentiated-gradient.js';
import {
  LOG_COLUMNS,
  logRows,
  MIX_COLUMNS,
  mixRows,
  TRAIN_SCHEMA,
  type TrainBody,
  trainBody,
  trainFigure,
  trainSummary,
} from '../src/fusion/mixing/mix-report.js';
import { aioliRecipe } from '../src/fusion/mixing/rows/aioli.js';
import type { MixGroup, MixProgress, MixTraining } from '../src/fusion/mixing/training/mix-job.js';
import { splitWindows } from '../src/fusion/mixing/training/split-windows.js';
import type { StageSettings } from '../src/fusion/mixing/training/stages.js';
import type { MixingMethod } from '../src/fusion/mixing/types.js';
import { buildReport, serializeReport, writeReport } from '../src/report/json.js';
import { createProgress, type Progress } from '../src/report/progress.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import { type ReportValue, reportObject } from '../src/report/values.js';
import type { Tokenizer } from '../src/tokenizers/tokenizer.js';
import { checkVocabulary } from '../src/tokenizers/tokenizer.js';
import type { StudentStart } from '../src/training/language/language-student.js';
import type { TokenWindows } from '../src/training/language/token-data.js';
import {
  addStepOptions,
  checkpointFolder,
  parseSteps,
  type StepDefaults,
  type StepOptions,
  type StepSettings,
  stepParameters,
  totalSteps,
} from './distill-options.js';
import {
  addLearningTextOptions,
  type LearningSubject,
  type LearningTextOptions,
  learningTextParameters,
  readTokenWindows,
} from './distill-text.js';
import { prepareAsserts } from './edge-asserts.js';
import { openOutputs } from './edge-outputs.js';
import { flagOf, parseChoice, parseInteger, parseNumber } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import {
  checkPrior,
  type MixShared,
  methodOf,
  type ParameterOptions,
  parameterValues,
  parsePairs,
  parseParameters,
  parseShares,
} from './fuse-mix-options.js';
import { noticeSlowKernels } from './kernel-notice.js';
import { modelDigests } from './model-digests.js';
import { DEFAULT_CONTEXT } from './model-session.js';
import { runInThread } from './run-in-thread.js';
import { type RunTimings, startRunTimings } from './run-timings.js';
import { requireOption } from './shared-options.js';

const COMMAND = 'fuse mix';
const DEFAULTS: StepDefaults = {
  loss: 'ce',
  epochs: 1,
  batchSize: 8,
  learningRate: 3e-4,
  schedule: 'cosine',
  clipNorm: 1,
};
const DTYPES = { f32: 'F32', f16: 'F16', bf16: 'BF16' } as const;
const MIB = 2 ** 20;
/** Share of the windows of a group that is held out where no other text is named, and the fewest windows of it. */
const HELD_OUT = 0.1;

/** Own options of the form that trains, as commander gives them. */
export interface MixTrainOptions extends StepOptions, LearningTextOptions {
  readonly group?: readonly string[];
  readonly evalGroup?: readonly string[];
  readonly testGroup?: readonly string[];
  readonly heldOut?: string;
  readonly evalWindows?: string;
  readonly tokenizer?: string;
  readonly updateEvery?: string;
  readonly probeRounds?: string;
  readonly probeSteps?: string;
  readonly prior?: string;
  readonly priorSteps?: string;
  readonly budget?: string;
  readonly referenceSteps?: string;
  readonly proxySteps?: string;
  readonly graphSteps?: string;
  readonly sweepRuns?: string;
  readonly sweepSteps?: string;
  readonly sweepAlpha?: string;
  readonly keep?: string;
  readonly checkpointEvery?: string;
  readonly train?: readonly string[];
  readonly freeze?: readonly string[];
  readonly dtype?: string;
  readonly saveLosses?: string;
  readonly method?: string;
}

type Own = MixTrainOptions & ParameterOptions;

/** Declares them. */
export function addMixTrainOptions(command: Command): Command {
  addStepOptions(command)
    .option('--group <name=file...>', 'text of a group; several files of one group are several pairs joined by commas')
    .option('--eval-group <name=file...>', 'text that the losses of a group are measured on')
    .option('--test-group <name=file...>', 'text of a group that only the written model is judged by')
    .option('--held-out <share>', 'share of the windows of each group that losses are measured on (default 0.1)')
    .option(
      '--eval-windows <n>',
      'windows of each group that losses are measured on, evenly spread (default all held out)',
    )
    .option('--tokenizer <model>', 'directory of the tokenizer, for a model that starts from a config.json')
    .option('--update-every <steps>', 'steps of a round, probes included (default: the recipe)')
    .option('--probe-rounds <n>', 'aioli: sweeps over the probe mixtures in a round (default: the recipe)')
    .option('--probe-steps <n>', 'aioli: steps of each probe (default: the recipe)')
    .option('--prior <a=x,b=y>', 'proportions at the start (default uniform)')
    .option('--prior-steps <n>', 'steps on these before the first round (default 0)')
    .option('--budget <what>', 'final: --steps are those of the last run; total: of all runs (default final)')
    .option('--reference-steps <n>', 'doremi: steps of the reference run (default a quarter of the steps)')
    .option('--proxy-steps <n>', 'doremi, doge: steps of the run that learns proportions (default a quarter)')
    .option('--graph-steps <n>', 'skill-it: steps of the run on each group (default a twentieth)')
    .option('--sweep-runs <n>', 'dml: mixtures that are tried (default 4 k)')
    .option('--sweep-steps <n>', 'dml: steps on each (default a fortieth)')
    .option('--sweep-alpha <x>', 'dml: concentration of these mixtures (default 1.5)')
    .option('--keep <which>', 'weights that are written: best (mean loss of the groups) or last (default best)')
    .option('--checkpoint-every <steps>', 'steps between checkpoints (default: a round)')
    .option('--train <pattern...>', 'parameters that are trained, by name with * and ? (default all)')
    .option('--freeze <pattern...>', 'parameters that stay as they are')
    .option('--dtype <type>', 'type of the written weights: f32, bf16, f16 (default: as the model was stored)')
    .option('--save-losses <file.csv>', 'log of all measured losses, as --losses reads it');
  return addLearningTextOptions(command);
}

/** Trains on mixtures: from the options to the exit code. */
export async function trainMix(options: MixShared, own: Own): Promise<number> {
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings(COMMAND);
  const out = requireOption(options.out, '--out', 'the directory to write');
  checkMethodOptions(own, methodOf(own.method));
  const texts = await groupTexts(own);
  const inputs = texts.flatMap(({ train, evaluation, test }) => [...train, ...evaluation, ...test]);
  const outputs = openOutputs(inputs, { force: options.force, resume: options.resume });
  let directory: AtomicDirectory | undefined;
  try {
    const table = outputs.table('--table', options.table, MIX_COLUMNS, options.format);
    const logTable = outputs.table('--save-losses', own.saveLosses, LOG_COLUMNS);
    const reportFile = outputs.file('--report', options.report);
    const plotFile = outputs.file('--plot', options.plot);
    const timingsFile = outputs.file('--timings', options.timings);
    if (plotFile) (await import('../src/report/plots/figure.js')).plotExtension(options.plot as string);
    const work = checkTargets(out, options);
    noticeSlowKernels();
    timings.begin('read the text');
    const run = await prepare(options, own, texts, work);
    const { training, method } = run;
    const { stepsOfAll, trainMixture } = await import('../src/fusion/mixing/training/mix-job.js');
    const steps = stepsOfAll(training);
    if (options.dryRun) {
      process.stdout.write(summaryTable(['plan', 'value'], await planRows(run, steps, out)));
      return 0;
    }
    if (!options.resume) rmSync(work, { recursive: true, force: true });
    const progress = await createProgress({
      stream: process.stderr,
      quiet: options.quiet,
      unit: 'steps',
      total: steps,
      now: () => performance.now(),
    });
    const warnings: string[] = [];
    const module = new URL('../src/fusion/mixing/training/mix-job.js', import.meta.url).href;
    const result = await runInThread(
      { module, job: trainMixture },
      training,
      listener(options, progress, timings, warnings),
      options.threads,
    );
    progress.stop();
    timings.begin('summarise');
    directory = createAtomicDirectory(out, { force: options.force });
    for (const { name } of result.files) renameSync(join(training.target.path, name), join(directory.path, name));
    const body: TrainBody = trainBody(training, method, result, warnings);
    const head = {
      tool: { name: 'surprisal', version: toolVersion() },
      command: COMMAND,
      parameters: run.parameters,
      inputs: [...run.models, ...(await run.ledger.digests())],
    };
    const report = buildReport({ name: TRAIN_SCHEMA, ...head }, reportObject(body));
    const names = training.groups.map(({ name }) => name);
    const [moved] = result.runs.filter(({ kind }) => kind === 'proxy' || result.runs.length === 1);
    if (table) for (const row of mixRows(names, moved.rounds)) table.write(row);
    if (logTable) for (const row of logRows(names, moved.log)) logTable.write(row);
    if (reportFile) writeReport(report, reportFile);
    if (plotFile) {
      const { plotBytes } = await import('../src/report/plots/figure.js');
      plotFile.write(
        await plotBytes(await trainFigure(body, `${method.name} on ${options.model}`), options.plot as string),
      );
    }
    if (timingsFile) timings.write(timingsFile, options);
    const manifest = buildReport({ name: 'fuse-mix-manifest', ...head }, reportObject({ files: result.files }));
    const { writeHashed } = await import('../src/models/model-directory.js');
    writeHashed(directory.path, 'manifest.json', serializeReport(manifest));
    directory.commit();
    outputs.commit();
    rmSync(work, { recursive: true, force: true });
    if (!options.quiet) {
      process.stdout.write(summaryTable(['group', 'p', 'loss_nats', 'standard_error'], trainSummary(body)));
    }
    return asserts.check(report);
  } finally {
    directory?.abort();
    outputs.abort();
  }
}

/** Files of a group. */
interface GroupTexts {
  readonly name: string;
  readonly train: readonly string[];
  readonly evaluation: readonly string[];
  readonly test: readonly string[];
}

/** @throws InputError for groups without text to learn from, fewer than two, or none at all */
async function groupTexts(own: Own): Promise<GroupTexts[]> {
  const train = parsePairs('--group', requireOption(own.group, '--group', 'a group as name=FILE, two or more'));
  const evaluation = parsePairs('--eval-group', own.evalGroup ?? []);
  const test = parsePairs('--test-group', own.testGroup ?? []);
  const names = [...train.keys()];
  checkGroups(names, '--group');
  for (const [flag, pairs] of [
    ['--eval-group', evaluation],
    ['--test-group', test],
  ] as const) {
    for (const name of pairs.keys()) {
      if (!train.has(name))
        throw new InputError(`${flag} ${name}: there is no group ${name}; known: ${names.join(', ')}`);
    }
    const missing = names.find((name) => pairs.size > 0 && !pairs.has(name));
    if (missing !== undefined) throw new InputError(`${flag}: nothing is named for the group ${missing}`);
  }
  if (evaluation.size > 0 && own.heldOut !== undefined) {
    throw new InputError('--held-out and --eval-group both say what losses are measured on: pass one of them');
  }
  const files = (list: string | undefined): Promise<string[]> =>
    list === undefined ? Promise.resolve([]) : expandSources(list.split(','));
  const groups: GroupTexts[] = [];
  for (const name of names) {
    groups.push({
      name,
      train: await files(train.get(name)),
      evaluation: await files(evaluation.get(name)),
      test: await files(test.get(name)),
    });
  }
  return groups;
}

/**
 * The folder of the checkpoints, beside the output.
 * @throws InputError when the output is there, or what an interrupted run left and nothing says what to do with it
 */
function checkTargets(out: string, options: MixShared): string {
  const work = checkpointFolder(out);
  if (existsSync(out) && !statSync(out).isDirectory()) {
    throw new InputError(`${out}: exists and is not a directory; choose another path`);
  }
  if (existsSync(out) && !options.force) {
    throw new InputError(`${out}: exists; pass --force to replace it, or choose another path`);
  }
  if (existsSync(work) && !options.resume && !options.force && !options.dryRun) {
    throw new InputError(
      `${work}: an interrupted run left its checkpoints; pass --resume to continue it, or --force to begin anew`,
    );
  }
  return work;
}

interface PreparedMix {
  readonly training: MixTraining;
  readonly method: MixingMethod;
  readonly parameters: Record<string, ReportValue>;
  readonly ledger: InputLedger;
  readonly models: readonly InputDigest[];
}

async function prepare(options: MixShared, own: Own, texts: readonly GroupTexts[], work: string): Promise<PreparedMix> {
  const method = methodOf(own.method);
  const names = texts.map(({ name }) => name);
  const k = names.length;
  const parameters = parseParameters(own, method, k);
  const steps = parseSteps(own, DEFAULTS);
  const subject = await openSubject(options, own);
  const ledger = createInputLedger();
  const groups = await readGroups(options, own, texts, subject, ledger);
  const batches = Math.ceil(groups.reduce((sum, { windows }) => sum + windows.count, 0) / steps.batchSize);
  const total = totalSteps(steps, batches);
  const course = courseOf(own, method, k);
  const stages = stagesOf(own, k, total);
  const keep = parseChoice('--keep', own.keep ?? 'best', ['best', 'last'] as const);
  const dtype = own.dtype === undefined ? undefined : DTYPES[parseChoice('--dtype', own.dtype, ['f32', 'f16', 'bf16'])];
  const initial =
    own.prior === undefined ? undefined : checkProportions(parseShares('--prior', own.prior, names), names, '--prior');
  const models = await hashModel(options.model ?? '', subject.start);
  const sweepAlpha = parseNumber('--sweep-alpha', own.sweepAlpha ?? '1.5', Number.MIN_VALUE);
  const { seed, threads } = options;
  const reported = reportParameters(options, own, { method, parameters, steps, course, stages, keep, texts });
  const training: MixTraining = {
    student: subject.start,
    groups,
    method: method.name,
    parameters,
    course,
    stages,
    sweepAlpha,
    ...(initial && { initial }),
    settings: {
      steps: total,
      optimizer: steps.optimizer,
      schedule: {
        schedule: steps.schedule,
        learningRate: steps.learningRate,
        warmupSteps: steps.warmupSteps,
        finalShare: steps.finalShare,
      },
      accumulate: steps.accumulate,
      ...(Number.isFinite(steps.clipNorm) && { clipNorm: steps.clipNorm }),
      evaluateEvery: course.updateEvery,
      checkpointEvery:
        own.checkpointEvery === undefined
          ? course.updateEvery
          : parseInteger('--checkpoint-every', own.checkpointEvery, 1),
      restoreBest: keep === 'best',
      threads,
    },
    batchSize: steps.batchSize,
    precision: steps.precision,
    seed,
    threads,
    maxMemoryBytes: options.maxMemory,
    ...(own.train && { train: own.train }),
    ...(own.freeze && { freeze: own.freeze }),
    checkpoints: work,
    identity: {
      model: models.map(({ sha256 }) => sha256).join(' '),
      configuration: { ...reported, tokens: groups.map(({ windows }) => windows.validLabels) },
    },
    target: { path: join(work, 'result'), form: 'model', ...(dtype && { dtype }), base: options.model ?? '' },
  };
  return { training, method, parameters: reported, ledger, models };
}

function courseOf(own: Own, method: MixingMethod, k: number): MixTraining['course'] {
  const recipe = aioliRecipe(k);
  const probes = method.evidence === 'probes';
  const count = (flag: string, text: string | undefined, fallback: number): number =>
    text === undefined ? fallback : parseInteger(flag, text, 1);
  const updateEvery = count('--update-every', own.updateEvery, recipe.updateEvery);
  const sweeps = count('--probe-rounds', own.probeRounds, recipe.sweeps);
  const probeSteps = count('--probe-steps', own.probeSteps, recipe.probeSteps);
  const ofProbes = sweeps * k * probeSteps;
  if (probes && ofProbes >= updateEvery) {
    throw new InputError(
      `${sweeps} sweeps over ${k} probes of ${probeSteps} steps take ${ofProbes} steps of a round of ${updateEvery}: ` +
        'raise --update-every, or lower --probe-rounds or --probe-steps',
    );
  }
  const priorSteps = own.priorSteps === undefined ? 0 : parseInteger('--prior-steps', own.priorSteps);
  return { updateEvery, sweeps, probeSteps, priorSteps };
}

/** Methods that read an option. */
const METHOD_OPTIONS = {
  probeRounds: ['aioli'],
  probeSteps: ['aioli'],
  referenceSteps: ['doremi'],
  proxySteps: ['doremi', 'doge'],
  graphSteps: ['skill-it'],
  sweepRuns: ['dml'],
  sweepSteps: ['dml'],
  sweepAlpha: ['dml'],
} as const;

/** @throws InputError for options that the method does not read */
function checkMethodOptions(own: Own, method: MixingMethod): void {
  checkPrior(own, method);
  for (const [name, readers] of Object.entries(METHOD_OPTIONS) as [keyof typeof METHOD_OPTIONS, readonly string[]][]) {
    if (own[name] !== undefined && !readers.includes(method.name)) {
      throw new InputError(`${flagOf(name)}: ${method.name} does not read it; it belongs to ${readers.join(' and ')}`);
    }
  }
}

function stagesOf(own: Own, groups: number, steps: number): StageSettings {
  const count = (flag: string, text: string | undefined, share: number): number =>
    text === undefined ? Math.max(1, Math.round(steps * share)) : parseInteger(flag, text, 1);
  return {
    groups,
    steps,
    budget: parseChoice('--budget', own.budget ?? 'final', ['final', 'total'] as const),
    referenceSteps: count('--reference-steps', own.referenceSteps, 1 / 4),
    proxySteps: count('--proxy-steps', own.proxySteps, 1 / 4),
    graphSteps: count('--graph-steps', own.graphSteps, 1 / 20),
    sweepSteps: count('--sweep-steps', own.sweepSteps, 1 / 40),
    sweepRuns: own.sweepRuns === undefined ? 4 * groups : parseInteger('--sweep-runs', own.sweepRuns, groups + 1),
  };
}

/** The model that is trained, and what its text is read with. */
interface Subject extends LearningSubject {
  readonly start: StudentStart;
  readonly context: number;
}

/** A directory goes on being trained; a config.json starts at random, with the tokenizer of another directory. */
async function openSubject(options: MixShared, own: Own): Promise<Subject> {
  const spec = requireOption(options.model, '--model', 'what is to be trained: a directory or a config.json');
  const { openModelFiles, readJson } = await import('../src/models/model-files.js');
  const { describeModel } = await import('../src/models/architectures.js');
  const isConfig = spec.toLowerCase().endsWith('.json');
  const path = isConfig ? spec : resolveModelPath(spec, process.env).path;
  if (!isConfig && own.tokenizer !== undefined) throw new InputError('--tokenizer goes with --model <config.json>');
  const home = own.tokenizer === undefined ? undefined : resolveModelPath(own.tokenizer, process.env).path;
  const description = isConfig ? describeModel(readJson(path), path) : openModelFiles(path).description;
  const start: StudentStart = isConfig
    ? { kind: 'config', path, ...(home !== undefined && { companions: home }) }
    : { kind: 'directory', path };
  const tokenizer = await openTokenizer(home ?? (isConfig ? dirname(path) : path));
  const { vocabularySize, maxPositions } = description;
  if (tokenizer) checkVocabulary(tokenizer, vocabularySize, `${spec}: the tokenizer`);
  const context = options.context ?? Math.min(maxPositions ?? DEFAULT_CONTEXT, DEFAULT_CONTEXT);
  if (maxPositions !== undefined && context > maxPositions) {
    throw new InputError(`--context ${context} is longer than the ${maxPositions} positions of ${spec}`);
  }
  return { start, name: spec, tokenizer, vocabularySize, context };
}

/** Rows of token ids need none. */
async function openTokenizer(home: string): Promise<Tokenizer | undefined> {
  const { openModelTokenizer } = await import('../src/models/model-tokenizer.js');
  try {
    return openModelTokenizer(home);
  } catch (error) {
    if (error instanceof InputError && /no tokenizer\.json|carries no tokenizer/i.test(error.message)) return undefined;
    throw error;
  }
}

async function readGroups(
  options: MixShared,
  own: Own,
  texts: readonly GroupTexts[],
  subject: Subject,
  ledger: InputLedger,
): Promise<MixGroup[]> {
  const share = parseNumber('--held-out', own.heldOut ?? String(HELD_OUT), 0, 0.5);
  const most = own.evalWindows === undefined ? undefined : parseInteger('--eval-windows', own.evalWindows, 1);
  const read = (files: readonly string[]): Promise<TokenWindows> =>
    readTokenWindows(files, options, own, subject, subject.context, ledger);
  const groups: MixGroup[] = [];
  for (const { name, train, evaluation, test } of texts) {
    const windows = await read(train);
    const split =
      evaluation.length > 0
        ? { rest: windows, taken: await read(evaluation) }
        : splitWindows(windows, Math.max(1, Math.round(share * windows.count)), `group ${name}`);
    const heldOut =
      most !== undefined && split.taken.count > most ? splitWindows(split.taken, most, name).taken : split.taken;
    groups.push({
      name,
      windows: split.rest,
      heldOut,
      ...(test.length > 0 && { test: await read(test) }),
    });
  }
  return groups;
}

async function hashModel(spec: string, start: StudentStart): Promise<InputDigest[]> {
  if (start.kind === 'directory') return [...(await modelDigests(spec, start.path)).digests];
  const ledger = createInputLedger();
  ledger.note(start.path);
  return [...(await ledger.digests())];
}

function reportParameters(
  options: MixShared,
  own: Own,
  of: {
    readonly method: MixingMethod;
    readonly parameters: MixTraining['parameters'];
    readonly steps: StepSettings;
    readonly course: MixTraining['course'];
    readonly stages: StageSettings;
    readonly keep: string;
    readonly texts: readonly GroupTexts[];
  },
): Record<string, ReportValue> {
  const { method, parameters, steps, course, stages, keep, texts } = of;
  const { data: _, ...text } = learningTextParameters({ ...options, data: [] }, own);
  const named = (list: (group: GroupTexts) => readonly string[]): ReportValue =>
    texts.map((group) => ({ name: group.name, files: [...list(group)] }));
  const probes = method.evidence === 'probes';
  return {
    model: options.model ?? null,
    tokenizer: own.tokenizer ?? null,
    method: method.name,
    ...parameterValues(method, parameters),
    groups: named(({ train }) => train),
    eval_groups: own.evalGroup ? named(({ evaluation }) => evaluation) : null,
    test_groups: own.testGroup ? named(({ test }) => test) : null,
    eval_windows: own.evalWindows === undefined ? null : Number(own.evalWindows),
    held_out: own.evalGroup ? null : Number(own.heldOut ?? HELD_OUT),
    ...text,
    ...stepParameters(steps),
    steps_or_budget: stages.steps,
    budget: stages.budget,
    update_every: course.updateEvery,
    probe_rounds: probes ? course.sweeps : null,
    probe_steps: probes ? course.probeSteps : null,
    prior: own.prior ?? null,
    prior_steps: course.priorSteps,
    train: own.train ? [...own.train] : null,
    freeze: own.freeze ? [...own.freeze] : null,
    dtype: own.dtype ?? null,
    sweep_alpha: method.name === 'dml' ? Number(own.sweepAlpha ?? 1.5) : null,
    keep,
    seed: options.seed,
  };
}

/** Shows what the job tells. */
function listener(
  options: MixShared,
  progress: Progress,
  timings: RunTimings,
  warnings: string[],
): (value: unknown) => void {
  let steps = 0;
  return (value) => {
    const event = value as MixProgress;
    if (event.kind === 'phase') timings.begin(event.name);
    if (event.kind === 'step')
      progress.update(++steps, Number.isFinite(event.loss) ? `loss ${event.loss.toPrecision(4)}` : '');
    if (event.kind === 'warning') {
      warnings.push(event.message);
      if (!options.quiet) process.stderr.write(`warning: ${event.message}\n`);
    }
    if (event.kind === 'plan' && !options.quiet) {
      process.stderr.write(`memory: about ${Math.ceil(event.plan.estimate.total / MIB)} MiB\n`);
    }
  };
}

/** Lines of `--dry-run`. */
async function planRows({ training, method }: PreparedMix, steps: number, out: string): Promise<SummaryCell[][]> {
  const { planMixture } = await import('../src/fusion/mixing/training/mix-job.js');
  const { planStages } = await import('../src/fusion/mixing/training/stages.js');
  const module = new URL('../src/fusion/mixing/training/mix-job.js', import.meta.url).href;
  const plan = await runInThread({ module, job: planMixture }, training, undefined, training.threads);
  return [
    ['method', method.name],
    ...training.groups.map(({ name, windows, heldOut }): SummaryCell[] => [
      `windows of ${name}`,
      `${windows.count}, and ${heldOut.count} to measure losses on`,
    ]),
    ...planStages(method, training.stages).map(({ kind, runs, steps: each }): SummaryCell[] => [
      `${kind} run${runs > 1 ? 's' : ''}`,
      runs > 1 ? `${runs} of ${each} steps` : `${each} steps`,
    ]),
    ['steps of all runs', steps],
    ...(plan ? [['peak memory in MiB, about', Math.ceil(plan.estimate.total / MIB)] as SummaryCell[]] : []),
    ['directory', out],
  ];
}
