import type { Command } from 'commander';
import type {
  CellResult,
  CellsArguments,
  ComparisonTask,
  PrepareArguments,
  PreparedComparison,
  PrepareProgress,
} from '../src/distillation/compare-job.js';
import {
  type Choice,
  COMPARE_COLUMNS,
  COMPARE_TABLE_COLUMNS,
  type ComparisonBody,
  type ComparisonPlan,
  comparisonBody,
  comparisonRows,
  comparisonTable,
  type LossFamily,
  plannedCells,
} from '../src/distillation/compare-report.js';
import { expandLosses, parseSweep } from '../src/distillation/loss-sweep.js';
import { InputError } from '../src/errors.js';
import { expandSources } from '../src/formats/inputs.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import { parseLosses } from '../src/training/losses/loss-text.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import {
  addClassTaskOptions,
  type ClassTaskOptions,
  classSource,
  classTaskParameters,
  modelFiles,
  parseClassModel,
  parseClassTeacher,
  parseShare,
  refuseModelOptions,
  teacherFiles,
} from './distill-classifier-options.js';
import { addStepOptions, parseSteps, type StepOptions, stepParameters } from './distill-options.js';
import { openCheckpoint } from './edge-checkpoint.js';
import { parseChoice, parseInteger } from './edge-values.js';
import { runInThread } from './run-in-thread.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption } from './shared-options.js';

const SHARED = [
  ...ANALYSIS_OPTIONS.filter((name) => name !== 'shard' && name !== 'maxMemory'),
  'data',
  'limit',
  'table',
  'resume',
] as const;

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

interface OwnOptions extends StepOptions, ClassTaskOptions {
  student?: string;
  teacher?: string;
  losses?: string[];
  sweep?: string[];
  seeds?: string;
  reference?: string;
  choose?: string;
  heldOutShare?: string;
  testShare?: string;
  testData?: string[];
  testLabels?: string;
  testTeacher?: string;
  evalEvery?: string;
}

/** What the specification of the first comparison names. */
const DEFAULT_LOSSES = [
  'ce',
  '0.1*ce + 0.9*kd(T=4)',
  'ce + dkd(warmup=20)',
  'ce + 2*dist',
  'listmle',
  'pld',
  'pld(tau={1,2,4})',
];

const DEFAULTS = {
  loss: 'pld',
  epochs: 30,
  batchSize: 64,
  learningRate: 3e-3,
  schedule: 'cosine',
  clipNorm: Infinity,
} as const;

/** Declares `surprisal distill-pld compare`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  const collect = (value: string, earlier: string[] | undefined): string[] => [...(earlier ?? []), value];
  addStepOptions(command)
    .option('--student <what>', 'network such as mlp:24 or cnn:16-32, or an .onnx file')
    .option(
      '--teacher <what>',
      'train:<network>, an .onnx file, or logits of the rows of --data (.npy .npz .safetensors)',
    )
    .option(
      '--losses <terms...>',
      "losses that are compared, one an argument; values in braces are chosen among: 'pld(tau={1,2,4})'; a name may stand before: 'DIST: ce + 2*dist'",
    )
    .option(
      '--sweep <parameter=values>',
      'values to choose among in all losses that take the parameter; repeatable',
      collect,
    )
    .option('--seeds <n>', 'trainings of every loss, with the seeds --seed, --seed + 1, ... (default 5)')
    .option('--reference <loss>', 'loss that the others are paired with (default: the first)')
    .option('--choose <figure>', 'what chooses among values, on held-out rows: accuracy or nll (default accuracy)')
    .option('--held-out-share <share>', 'share of --data on which values are chosen; it is not reported (default 0.1)')
    .option('--test-share <share>', 'share of --data that is reported where there is no --test-data (default 0.2)')
    .option('--test-data <file...>', 'rows that are reported')
    .option('--test-labels <file>', 'labels of --test-data')
    .option('--test-teacher <file>', "a teacher's logits of --test-data, where --teacher is a file of logits")
    .option('--eval-every <steps>', 'steps between points of the learning curves (default: every epoch)');
  addClassTaskOptions(command).action(async () => {
    process.exitCode = await run(await read(), command.opts<OwnOptions>());
  });
}

/** `name: terms`, or the terms as their own name. */
function namedLoss(text: string): { name: string; terms: string } {
  const match = /^([^:]+):(.+)$/.exec(text);
  return match ? { name: match[1].trim(), terms: match[2].trim() } : { name: text.trim(), terms: text.trim() };
}

function familiesOf(own: OwnOptions): LossFamily[] {
  const sweeps = (own.sweep ?? []).map(parseSweep);
  const families = (own.losses ?? DEFAULT_LOSSES).map((text): LossFamily => {
    const { name, terms } = namedLoss(text);
    return { name, members: expandLosses(terms, sweeps) };
  });
  for (const { members } of families) {
    for (const { text } of members) {
      const reads = parseLosses(text).find(({ loss }) => loss.reads.teacher !== 'none');
      if (reads && own.teacher === undefined) {
        throw new InputError(`loss ${reads.loss.label} needs a teacher; name one with --teacher, or choose --losses`);
      }
    }
  }
  const names = families.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new InputError(`--losses: "${twice}" stands twice`);
  return families;
}

function referenceOf(own: OwnOptions, families: readonly LossFamily[]): number {
  if (own.reference === undefined) return 0;
  const names = families.map(({ name }) => name);
  return names.indexOf(parseChoice('--reference', own.reference, names));
}

/** Everything that the options decide. */
interface Plan extends ComparisonPlan {
  readonly prepare: PrepareArguments;
  readonly cells: Omit<CellsArguments, 'task' | 'cells'>;
  readonly inputs: readonly string[];
}

async function planOf(options: Options, own: OwnOptions): Promise<Plan> {
  const student = requireOption(own.student, '--student', 'the network that is trained, such as mlp:24');
  const data = requireOption(options.data, '--data', 'rows of features with labels');
  const steps = parseSteps(own, DEFAULTS);
  const families = familiesOf(own);
  refuseModelOptions(own, [student, own.teacher]);
  if (own.choose !== undefined && families.every(({ members }) => members.length === 1)) {
    throw new InputError("--choose: no loss has values to choose among; write them in braces: 'pld(tau={1,2,4})'");
  }
  if (own.testTeacher !== undefined && own.testData === undefined) {
    throw new InputError('--test-teacher needs --test-data');
  }
  const count = parseInteger('--seeds', own.seeds ?? '5', 1, 10_000);
  const { limit, seed, threads } = options;
  const sources = (await expandSources(data)).map((path) => classSource(path, own, own.labels, limit));
  const testFiles = own.testData === undefined ? [] : await expandSources(own.testData);
  if (own.testLabels !== undefined && testFiles.length === 0) throw new InputError('--test-labels needs --test-data');
  if (own.testShare !== undefined && testFiles.length > 0) {
    throw new InputError('--test-share: the test rows are those of --test-data');
  }
  const testSources = testFiles.map((path) => classSource(path, own, own.testLabels, undefined));
  const model = parseClassModel('--student', student, own);
  const teacher = own.teacher === undefined ? undefined : parseClassTeacher(own.teacher, own, steps, own.testTeacher);
  return {
    families,
    seeds: Array.from({ length: count }, (_, i) => seed + i),
    chooseBy: parseChoice<Choice>('--choose', own.choose ?? 'accuracy', ['accuracy', 'nll']),
    reference: referenceOf(own, families),
    student,
    ...(own.teacher !== undefined && { teacher: own.teacher }),
    seed,
    prepare: {
      sources,
      ...(testSources.length > 0 && { testSources }),
      heldOutShare: parseShare('--held-out-share', own.heldOutShare ?? '0.1'),
      testShare: parseShare('--test-share', own.testShare ?? '0.2'),
      ...(own.studentRows !== undefined && { studentRows: parseInteger('--student-rows', own.studentRows, 1) }),
      ...(teacher && { teacher }),
      seed,
      threads,
      precision: steps.precision,
    },
    cells: {
      student: model,
      training: steps,
      ...(own.evalEvery !== undefined && { evalEvery: parseInteger('--eval-every', own.evalEvery, 1) }),
    },
    inputs: [
      ...[...sources, ...testSources].flatMap(({ path, labels }) => (labels === undefined ? [path] : [path, labels])),
      ...modelFiles(model),
      ...(teacher ? teacherFiles(teacher) : []),
    ],
  };
}

function parametersOf(options: Options, own: OwnOptions, plan: Plan) {
  const { loss: _, ...steps } = stepParameters({ ...plan.cells.training, loss: '' });
  return {
    ...steps,
    ...classTaskParameters(own),
    data: [...options.data],
    limit: options.limit ?? null,
    test_data: own.testData ? [...own.testData] : null,
    test_labels: own.testLabels ?? null,
    test_teacher: own.testTeacher ?? null,
    held_out_share: plan.prepare.heldOutShare,
    test_share: own.testData ? null : plan.prepare.testShare,
    student: plan.student,
    teacher: plan.teacher ?? null,
    losses: plan.families.map(({ name, members }) => ({ name, members: members.map(({ text }) => text) })),
    sweep: own.sweep ?? [],
    seeds: plan.seeds.length,
    choose: plan.chooseBy,
    reference: plan.families[plan.reference].name,
    eval_every: plan.cells.evalEvery ?? null,
    seed: options.seed,
  };
}

/** A task whose arrays all threads see without a copy each. */
function shared(task: ComparisonTask): ComparisonTask {
  const move = (value: unknown): unknown => {
    if (value instanceof Float32Array || value instanceof Float64Array) {
      const buffer = new SharedArrayBuffer(value.byteLength);
      const copy = value instanceof Float32Array ? new Float32Array(buffer) : new Float64Array(buffer);
      copy.set(value);
      return copy;
    }
    if (ArrayBuffer.isView(value) || typeof value !== 'object' || value === null || Array.isArray(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, move(inner)]));
  };
  return move(task) as ComparisonTask;
}

/** Trains the cells that are not done, dealt out to the threads; results come in the order of the cells. */
async function trainCells(
  plan: Plan,
  options: Options,
  prepared: PreparedComparison,
  context: AnalysisContext,
  parameters: object,
): Promise<CellResult[]> {
  const { RUN_CELLS } = await import('../src/distillation/compare-job.js');
  const cells = plannedCells(plan);
  const checkpoint = openCheckpoint<CellResult[]>(
    options.out ?? options.report,
    { ...parameters, digests: options.resume ? await context.ledger.digests() : [] },
    options.resume,
  );
  const results: CellResult[] = [];
  for (const found of checkpoint.found ?? []) results[found.index] = found;
  // A loss that stands in several families is trained once.
  const firstOf = cells.map(({ loss, seed }) => cells.findIndex((own) => own.loss === loss && own.seed === seed));
  const left = cells.filter(({ index }) => firstOf[index] === index && results[index] === undefined);
  const total = new Set(firstOf).size;
  let done = total - left.length;
  context.progress.setTotal(total);
  context.progress.update(done);
  const task = shared(prepared.task);
  const threads = Math.min(options.threads, left.length);
  const finished = (value: unknown): void => {
    const result = value as CellResult;
    results[result.index] = result;
    context.progress.update(++done);
    if (checkpoint.due()) checkpoint.save(results.filter((own) => own?.failed === undefined));
  };
  await Promise.all(
    Array.from({ length: threads }, (_, thread) => {
      const own = left.filter((__, i) => i % threads === thread);
      return runInThread(RUN_CELLS, { ...plan.cells, task, cells: own }, finished, 1);
    }),
  );
  checkpoint.remove();
  return cells.map(({ index }) => ({ ...results[firstOf[index]], index }));
}

async function measure(plan: Plan, options: Options, context: AnalysisContext, parameters: object) {
  for (const path of plan.inputs) context.ledger.note(path);
  const { PREPARE_COMPARISON } = await import('../src/distillation/compare-job.js');
  context.timings.begin('prepare');
  const prepared = await context.run(PREPARE_COMPARISON, plan.prepare, (value) => {
    const { step } = value as PrepareProgress;
    context.progress.update(0, `teacher, step ${step}`);
  });
  context.timings.begin('train');
  const results = await trainCells(plan, options, prepared, context, parameters);
  const body = comparisonBody(plan, prepared, results);
  for (const warning of body.warnings) context.warn(warning);
  return outcomeOf(plan, body, results);
}

function outcomeOf(plan: Plan, body: ComparisonBody, results: readonly CellResult[]): AnalysisOutcome {
  return {
    body,
    rows: () => comparisonRows(body),
    tableRows: () => comparisonTable(plan, body, results),
    figure: async (subtitle) => {
      const { comparisonFigure } = await import('../src/distillation/compare-plot.js');
      return comparisonFigure(plan, body, results, subtitle);
    },
    summary: { header: SUMMARY, rows: body.losses.map(summaryRow) },
  };
}

const SUMMARY = [
  'loss',
  'chosen',
  'accuracy',
  'sd',
  'nll, nats',
  'sd',
  'ece',
  'agreement',
  'accuracy - reference',
  'se',
];

function summaryRow({ name, choice, test, difference }: ComparisonBody['losses'][number]): SummaryCell[] {
  return [
    name,
    choice ?? 'none',
    test.accuracy?.mean,
    test.accuracy?.standard_deviation ?? undefined,
    test.nll_nats?.mean,
    test.nll_nats?.standard_deviation ?? undefined,
    test.calibration_error?.mean,
    test.agreement?.mean,
    difference?.accuracy?.mean,
    difference?.accuracy?.standard_error ?? undefined,
  ];
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const plan = await planOf(options, own);
  const parameters = parametersOf(options, own, plan);
  const cells = plannedCells(plan);
  return runAnalysis(
    {
      name: 'distill-compare',
      command: 'distill-pld compare',
      columns: COMPARE_COLUMNS,
      tableColumns: COMPARE_TABLE_COLUMNS,
      unit: 'trainings',
      inputs: plan.inputs,
      parameters,
      subtitle: `${plan.student}, ${plan.seeds.length} seeds, teacher ${plan.teacher ?? 'none'}`,
    },
    { ...options, maxMemory: 0, shard: undefined },
    {
      measure: (context) => measure(plan, options, context, parameters),
      async plan() {
        return [
          ['files read', plan.inputs.join(', ')],
          ['losses', plan.families.map(({ name }) => name).join('; ')],
          ['trainings', cells.length],
          ['at a time', Math.min(options.threads, cells.length)],
          ['teacher', plan.teacher ?? 'none'],
        ];
      },
    },
  );
}
