import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  CLASSIFIER_SCHEMA,
  type ClassifierBody,
  classifierBody,
  classifierFigure,
  classifierSummary,
} from '../src/distillation/classifier-report.js';
import type { ClassifierArguments, ClassifierProgress } from '../src/distillation/train-classifier-job.js';
import { InputError } from '../src/errors.js';
import { createAtomicDirectory } from '../src/formats/atomic.js';
import { expandSources } from '../src/formats/inputs.js';
import { hashBytes } from '../src/formats/work-files.js';
import { buildReport, serializeReport } from '../src/report/json.js';
import { reportObject } from '../src/report/values.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import {
  type ClassifierOptions,
  classSource,
  classTaskParameters,
  modelFiles,
  parseClassModel,
  parseClassTeacher,
  parseShare,
  refuseModelOptions,
  teacherFiles,
} from './distill-classifier-options.js';
import {
  checkpointFolder,
  MANIFEST_SCHEMA,
  parseCadence,
  parseSteps,
  stepParameters,
  type TrainOptions,
  type TrainShared,
} from './distill-options.js';
import { parseInteger } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import { requireOption } from './shared-options.js';

const COMMAND = 'distill-pld train';
const GRADIENT_GRAPH = '--save-gradient-graph';
const DEFAULTS = {
  loss: 'pld',
  epochs: 30,
  batchSize: 64,
  learningRate: 3e-3,
  schedule: 'cosine',
  clipNorm: Number.POSITIVE_INFINITY,
} as const;

type Own = TrainOptions & ClassifierOptions;

/** What the options decide. */
interface Plan {
  readonly job: Omit<ClassifierArguments, 'identity'>;
  readonly out: string;
  readonly work: string;
  readonly student: string;
  readonly parameters: ReturnType<typeof parametersOf>;
  readonly inputs: readonly string[];
}

function checkOptions(own: Own): void {
  refuseModelOptions(own, [own.student, own.teacher]);
  if (own.evalTeacher !== undefined && (own.evalData ?? []).length === 0) {
    throw new InputError('--eval-teacher needs --eval-data');
  }
  const hasEval = (own.evalData ?? []).length > 0;
  if (own.evalLabels !== undefined && !hasEval) throw new InputError('--eval-labels needs --eval-data');
  if (own.evalShare !== undefined && hasEval) {
    throw new InputError('--eval-share: the held-out rows are those of --eval-data');
  }
}

function parametersOf(options: TrainShared, own: Own, steps: ReturnType<typeof parseSteps>, kept: string) {
  return {
    ...stepParameters(steps),
    ...classTaskParameters(own),
    data: [...options.data],
    limit: options.limit ?? null,
    eval_data: [...(own.evalData ?? [])],
    eval_labels: own.evalLabels ?? null,
    eval_share: own.evalShare ?? null,
    eval_teacher: own.evalTeacher ?? null,
    eval_every: own.evalEvery ?? null,
    student: own.student ?? null,
    teacher: own.teacher ?? null,
    train: own.train ? [...own.train] : null,
    freeze: own.freeze ? [...own.freeze] : null,
    keep: kept,
    seed: options.seed,
  };
}

const isFile = (out: string): boolean => out.toLowerCase().endsWith('.onnx');

async function planOf(options: TrainShared, own: Own): Promise<Plan> {
  checkOptions(own);
  const student = requireOption(own.student, '--student', 'the network that is trained, such as mlp:24');
  const out = requireOption(options.out, '--out', 'a directory, or an .onnx file, to write');
  const data = await expandSources(requireOption(options.data, '--data', 'rows of features with labels'));
  const evalFiles = own.evalData ? await expandSources([...own.evalData]) : [];
  const steps = parseSteps(own, DEFAULTS);
  const judged = evalFiles.length > 0 || own.evalShare !== undefined;
  const cadence = parseCadence(judged && evalFiles.length === 0 ? { ...own, evalData: ['a share'] } : own);
  const { limit, seed, threads } = options;
  const sources = data.map((path) => classSource(path, own, own.labels, limit));
  const evalSources = evalFiles.map((path) => classSource(path, own, own.evalLabels, undefined));
  const model = parseClassModel('--student', student, own);
  const teacher = own.teacher === undefined ? undefined : parseClassTeacher(own.teacher, own, steps, own.evalTeacher);
  const work = checkpointFolder(out);
  return {
    out,
    work,
    student,
    parameters: parametersOf(options, own, steps, cadence.keep),
    inputs: [
      ...[...sources, ...evalSources].flatMap(({ path, labels }) => (labels === undefined ? [path] : [path, labels])),
      ...modelFiles(model),
      ...(teacher ? teacherFiles(teacher) : []),
    ],
    job: {
      sources,
      ...(evalSources.length > 0 && { evalSources }),
      ...(own.evalShare !== undefined && { evalShare: parseShare('--eval-share', own.evalShare) }),
      ...(own.studentRows !== undefined && { studentRows: parseInteger('--student-rows', own.studentRows, 1) }),
      student: model,
      ...(teacher && { teacher }),
      training: steps,
      seed,
      threads,
      ...(own.train && { train: own.train }),
      ...(own.freeze && { freeze: own.freeze }),
      ...(cadence.evalEvery !== undefined && { evalEvery: cadence.evalEvery }),
      ...(cadence.checkpointEvery !== undefined && { checkpointEvery: cadence.checkpointEvery }),
      keep: cadence.keep,
      checkpoints: join(work, 'checkpoints'),
      resume: options.resume,
      metrics: { path: own.metrics ?? join(work, 'metrics.csv'), force: options.force || own.metrics === undefined },
      out: join(work, 'student.onnx'),
      ...(own.gradCheck === true && { gradCheck: true }),
      ...(own.saveGradientGraph !== undefined && { gradientGraph: true }),
    },
  };
}

/** What decides every number of a run, digests of its inputs among it. */
async function identityOf(plan: Plan, context: AnalysisContext): Promise<ClassifierArguments['identity']> {
  for (const path of plan.inputs) context.ledger.note(path);
  const digests = await context.ledger.digests();
  const configuration = Object.fromEntries(
    Object.entries(plan.parameters).filter(([name]) => name !== 'epochs' && name !== 'steps'),
  );
  const files = digests.map(({ sha256 }) => sha256);
  return { model: hashBytes(Buffer.from(plan.student)), configuration: { ...configuration, files } };
}

async function train(plan: Plan, options: TrainShared, context: AnalysisContext): Promise<AnalysisOutcome> {
  if (existsSync(plan.out) && !options.force) {
    throw new InputError(`${plan.out}: already exists: pass --force to replace it, or choose another path`);
  }
  if (!options.resume) rmSync(plan.work, { recursive: true, force: true });
  mkdirSync(plan.work, { recursive: true });
  const identity = await identityOf(plan, context);
  const warnings: string[] = [];
  const hear = (value: unknown): void => {
    const told = value as ClassifierProgress;
    if (told.kind === 'phase') context.timings.begin(told.name);
    else if (told.kind === 'step') context.progress.update(told.step, `loss ${told.loss.toPrecision(4)}`);
    else {
      warnings.push(told.message);
      context.warn(told.message);
    }
  };
  const { TRAIN_CLASSIFIER } = await import('../src/distillation/train-classifier-job.js');
  const result = await context.run(TRAIN_CLASSIFIER, { ...plan.job, identity }, hear);
  const { teacher } = plan.parameters;
  const body = classifierBody(result, {
    student: plan.student,
    ...(teacher !== null && { teacher }),
    kept: plan.job.keep,
    warnings,
  });
  for (const warning of result.warnings) context.warn(warning);
  if (!isFile(plan.out)) await writeDirectory(plan, options, body, context);
  if (body.grad_check?.agrees === false) {
    context.warn(`the gradients of ${body.grad_check.worst_parameter} differ from finite differences`);
  }
  return outcomeOf(plan, body, result.gradientGraph?.bytes);
}

/** student.onnx, metrics.csv, classes.json, and the manifest last. */
async function writeDirectory(
  plan: Plan,
  options: TrainShared,
  body: ClassifierBody,
  context: AnalysisContext,
): Promise<void> {
  const { hashedFile } = await import('../src/models/model-directory.js');
  const directory = createAtomicDirectory(plan.out, { force: options.force });
  try {
    for (const name of ['student.onnx', 'student.onnx.data']) {
      const from = join(plan.work, name);
      if (existsSync(from)) copyFileSync(from, join(directory.path, name));
    }
    if (plan.job.metrics) copyFileSync(plan.job.metrics.path, join(directory.path, 'metrics.csv'));
    writeFileSync(join(directory.path, 'classes.json'), `${JSON.stringify(body.classes)}\n`);
    const files = readdirSync(directory.path)
      .sort()
      .map((name) => hashedFile(directory.path, name));
    const head = {
      tool: { name: 'surprisal', version: toolVersion() },
      command: COMMAND,
      parameters: plan.parameters,
      inputs: await context.ledger.digests(),
    };
    const manifest = buildReport({ name: MANIFEST_SCHEMA, ...head }, reportObject({ files }));
    writeFileSync(join(directory.path, 'manifest.json'), serializeReport(manifest));
    directory.commit();
  } catch (error) {
    directory.abort();
    throw error;
  }
  rmSync(plan.work, { recursive: true, force: true });
}

function outcomeOf(plan: Plan, body: ClassifierBody, gradientGraph: Uint8Array | undefined): AnalysisOutcome {
  return {
    body,
    rows: () => [],
    figure: (subtitle) => classifierFigure(body, subtitle),
    summary: { header: ['run', 'value'], rows: classifierSummary(body) },
    files() {
      const files = new Map<string, Uint8Array>();
      if (gradientGraph) files.set(GRADIENT_GRAPH, gradientGraph);
      if (!isFile(plan.out)) return files;
      if (existsSync(join(plan.work, 'student.onnx.data'))) {
        throw new InputError(`${plan.out}: weights of over 2 GiB take two files; name a directory with --out`);
      }
      const bytes = readFileSync(join(plan.work, 'student.onnx'));
      rmSync(plan.work, { recursive: true, force: true });
      return files.set('--out', bytes);
    },
  };
}

/** Trains a classifier: from the options to the exit code. */
export async function trainClassifier(options: TrainShared, own: Own): Promise<number> {
  const plan = await planOf(options, own);
  const { parameters, job } = plan;
  return runAnalysis(
    {
      name: CLASSIFIER_SCHEMA,
      command: COMMAND,
      columns: [],
      files: new Map([
        ...(isFile(plan.out) ? [['--out', plan.out] as const] : []),
        ...(own.saveGradientGraph === undefined ? [] : [[GRADIENT_GRAPH, own.saveGradientGraph] as const]),
      ]),
      unit: 'steps',
      inputs: plan.inputs,
      parameters,
      subtitle: `${job.training.loss}, teacher ${parameters.teacher ?? 'none'}`,
    },
    { ...options, out: undefined, format: undefined, shard: undefined },
    {
      measure: (context) => train(plan, options, context),
      async plan() {
        return [
          ['files read', plan.inputs.join(', ')],
          ['student', plan.student],
          ['teacher', parameters.teacher ?? 'none'],
          ['loss', job.training.loss],
          ['epochs', job.training.epochs ?? 'by steps'],
          ['steps', job.training.steps ?? 'by epochs'],
          ['output', plan.out],
        ];
      },
    },
  );
}
