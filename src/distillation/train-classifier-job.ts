import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import { InputError } from '../errors.js';
import { encodeOnnxModel } from '../formats/onnx.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { openCheckpoints } from '../training/checkpoint.js';
import { type GradientGraphBody, gradientGraphBody } from '../training/grad-check-report.js';
import { openMetricsFile } from '../training/metrics-file.js';
import { type OnnxStudent, openOnnxStudent } from '../training/onnx-student.js';
import { type CurvePoint, readStepHistory } from '../training/training-curve.js';
import type { FeatureBatch } from '../training/types.js';
import type { ClassData, ClassDataSource } from './class-data.js';
import { type ClassGradCheck, checkClassGradients, classGradientGraph } from './class-gradients.js';
import { type ClassMetrics, measureClassifier } from './class-metrics.js';
import { type ClassModel, type ClassTeacher, checkClasses, planClassModel, teacherOutputs } from './class-models.js';
import { allRows, drawRows, readClassFiles, rowsOfSet, splitRows } from './class-splits.js';
import {
  type ClassOutputs,
  type ClassTraining,
  classObjective,
  evaluateClassifier,
  takeOutputs,
  trainOnRows,
} from './classifier-training.js';

/** A run of training a classifier, as the command describes it. */
export interface ClassifierArguments {
  readonly sources: readonly ClassDataSource[];
  /** Held-out rows; taken from the others by `evalShare` when absent. */
  readonly evalSources?: readonly ClassDataSource[];
  readonly evalShare?: number;
  readonly studentRows?: number;
  readonly student: ClassModel;
  readonly teacher?: ClassTeacher;
  readonly training: ClassTraining;
  readonly seed: number;
  readonly threads: number;
  readonly train?: readonly string[];
  readonly freeze?: readonly string[];
  readonly evalEvery?: number;
  readonly checkpointEvery?: number;
  readonly keep: 'best' | 'last';
  /** Folder of the checkpoints, and of the metrics where no other file is named. */
  readonly checkpoints: string;
  readonly identity: { readonly model: string; readonly configuration: Readonly<Record<string, unknown>> };
  readonly resume: boolean;
  readonly metrics?: { readonly path: string; readonly force: boolean };
  /** Where the trained student goes: an .onnx file. */
  readonly out?: string;
  readonly gradCheck?: boolean;
  readonly gradientGraph?: boolean;
}

/** What the command hears while a run lasts. */
export type ClassifierProgress =
  | { readonly kind: 'phase'; readonly name: string }
  | { readonly kind: 'step'; readonly step: number; readonly rows: number; readonly loss: number }
  | { readonly kind: 'warning'; readonly message: string };

/** Held-out figures behind a step, as the metrics tell them. */
export interface EvaluationPoint {
  readonly step: number;
  readonly accuracy: number;
  readonly nll_nats: number;
  readonly calibration_error: number;
  readonly agreement: number | null;
  readonly kl_nats: number | null;
}

export interface ClassifierResult {
  readonly rows: { readonly train: number; readonly student: number; readonly heldOut: number };
  readonly dims: readonly number[];
  /** Names of the classes; longer than those of the data where the models know more. */
  readonly classes: readonly string[];
  readonly weights: number;
  readonly steps: number;
  readonly stepsOfAnEpoch: number;
  readonly skippedSteps: number;
  readonly bestStep: number | null;
  readonly firstLoss: number;
  readonly lastLoss: number;
  /** Learnable scalars of activations behind the last step, by name. */
  readonly scalars: Readonly<Record<string, number>>;
  readonly before?: ClassMetrics;
  readonly after?: ClassMetrics;
  readonly training: ClassMetrics;
  readonly teacher?: { readonly training: ClassMetrics; readonly heldOut?: ClassMetrics };
  readonly gradCheck?: ClassGradCheck;
  /** The graph of gradients of the student before its first step. */
  readonly gradientGraph?: GradientGraphBody & { readonly bytes: Uint8Array };
  readonly curve: readonly CurvePoint[];
  /** Held-out figures behind each evaluation. */
  readonly evaluations: readonly EvaluationPoint[];
  readonly warnings: readonly string[];
}

/** Rows of a run, and what the teacher says of them. */
interface Rows {
  readonly all: number;
  readonly classes: number;
  readonly student: ClassData;
  readonly studentTeacher?: ClassOutputs;
  readonly heldOut?: ClassData;
  readonly heldOutTeacher?: ClassOutputs;
  readonly warnings: readonly string[];
}

async function readRows(args: ClassifierArguments, progress: (value: ClassifierProgress) => void): Promise<Rows> {
  const data = await readClassFiles(args.sources);
  const evalData = args.evalSources && (await readClassFiles(args.evalSources, data.classes));
  if (evalData && evalData.dims.join() !== data.dims.join()) {
    throw new InputError(
      `${evalData.name}: rows of [${evalData.dims.join(', ')}], those of ${data.name} are [${data.dims.join(', ')}]`,
    );
  }
  const [rest, carved] =
    args.evalShare === undefined
      ? [{ data }]
      : splitRows(data, [{ name: 'held-out', share: args.evalShare }], args.seed);
  const restRows = rest.rows ?? allRows(data.rows);
  const studentRows = args.studentRows === undefined ? restRows : drawRows(restRows, args.studentRows, args.seed);
  const student = rowsOfSet({ data, rows: studentRows });
  const heldOut = evalData ?? (carved && rowsOfSet(carved));
  const rows = { all: restRows.length, student, ...(heldOut && { heldOut }) };
  const warnings = [...data.warnings, ...(evalData?.warnings ?? [])];
  if (!args.teacher) return { ...rows, classes: data.classes.length, warnings };
  progress({ kind: 'phase', name: args.teacher.kind === 'trained' ? 'train the teacher' : 'ask the teacher' });
  const { classes, outputs } = await teacherOutputs(
    args.teacher,
    rowsOfSet(rest),
    evalData ? [data, evalData] : [data],
    {
      seed: args.seed,
      threads: args.threads,
      precision: args.training.precision,
      warn: (message) => warnings.push(`teacher: ${message}`),
    },
  );
  const [own, theirs] = outputs;
  const heldOutTeacher = carved?.rows ? takeOutputs(own, carved.rows, classes) : theirs;
  return {
    ...rows,
    classes,
    studentTeacher: takeOutputs(own, studentRows, classes),
    ...(heldOutTeacher && { heldOutTeacher }),
    warnings,
  };
}

/**
 * Trains a classifier: reads and splits the rows, asks the teacher once, trains, judges the student by the held-out rows,
 * and writes it. A run that finds its checkpoint goes on behind it.
 * @throws InputError for rows, labels, models or logits that do not fit; RunError when the run diverges
 */
export async function trainClassifierModel(
  args: ClassifierArguments,
  progress: (value: ClassifierProgress) => void,
): Promise<ClassifierResult> {
  progress({ kind: 'phase', name: 'read the rows' });
  const rows = await readRows(args, progress);
  const { training, seed, threads } = args;
  const plan = planClassModel(args.student, rows.student, rows.classes, {
    seed,
    threads,
    precision: training.precision,
    ...(args.train && { train: args.train }),
    ...(args.freeze && { freeze: args.freeze }),
  });
  const student = await openOnnxStudent<FeatureBatch>(plan.source, plan.settings);
  try {
    checkClasses(student.classes, rows.student, 'student');
    if (args.teacher && student.classes !== rows.classes) {
      throw new InputError(
        `the teacher has ${rows.classes} classes and the student ${student.classes}; they must be equal`,
      );
    }
    const judge = async (): Promise<ClassMetrics | undefined> =>
      rows.heldOut && evaluateClassifier(student, rows.heldOut, rows.heldOutTeacher);
    const gradientGraph = args.gradientGraph ? await classGradientGraph(student, plan, training.loss) : undefined;
    if (args.gradCheck) progress({ kind: 'phase', name: 'check the gradients' });
    const checked = args.gradCheck
      ? await checkClassGradients(plan, training.loss, rows.student, rows.studentTeacher)
      : undefined;
    const before = await judge();
    progress({ kind: 'phase', name: 'train' });
    const run = await runSteps(args, rows, student, progress);
    progress({ kind: 'phase', name: 'evaluate' });
    const after = await judge();
    if (args.out !== undefined) student.exportOnnx(args.out, true);
    const { student: own, studentTeacher, heldOut, heldOutTeacher, classes } = rows;
    const names = Array.from({ length: classes }, (_, c) => own.classes[c] ?? String(c));
    return {
      rows: { train: rows.all, student: own.rows, heldOut: heldOut?.rows ?? 0 },
      dims: own.dims,
      classes: names,
      weights: student.parameters.values.length,
      ...run,
      scalars: learnedScalars(student.parameters),
      ...(before && { before }),
      ...(after && { after }),
      ...(checked && { gradCheck: checked }),
      ...(gradientGraph && {
        gradientGraph: { ...gradientGraphBody(gradientGraph), bytes: encodeOnnxModel(gradientGraph.model) },
      }),
      training: await evaluateClassifier(student, own, studentTeacher),
      ...(studentTeacher && {
        teacher: {
          training: measureClassifier(studentTeacher.logits, own.labels, classes),
          ...(heldOut &&
            heldOutTeacher && { heldOut: measureClassifier(heldOutTeacher.logits, heldOut.labels, classes) }),
        },
      }),
      warnings: rows.warnings,
    };
  } finally {
    await student.close();
  }
}

type Opened = OnnxStudent<FeatureBatch>;

async function runSteps(
  args: ClassifierArguments,
  rows: Rows,
  student: Opened,
  progress: (value: ClassifierProgress) => void,
) {
  const { training, seed } = args;
  const { terms } = classObjective(training.loss, student.classes, rows.studentTeacher);
  const { model, configuration } = args.identity;
  const checkpoints = openCheckpoints(args.checkpoints, { model, seed, configuration });
  const path = args.metrics?.path ?? join(args.checkpoints, 'metrics.csv');
  const figures = [
    'accuracy',
    'nll_nats',
    'calibration_error',
    ...(rows.heldOutTeacher ? ['agreement', 'kl_nats'] : []),
  ];
  const metrics = openMetricsFile(path, {
    terms,
    ...(rows.heldOut && { evaluation: figures }),
    force: args.metrics?.force ?? true,
    ...(args.resume && { resumeAt: checkpoints.last ?? 0 }),
  });
  let seen = 0;
  const result = await trainOnRows({
    student,
    data: rows.student,
    ...(rows.studentTeacher && { teacher: rows.studentTeacher }),
    training,
    seed,
    threads: args.threads,
    keepBest: args.keep === 'best',
    ...(args.checkpointEvery !== undefined && { checkpointEvery: args.checkpointEvery }),
    ...(rows.heldOut && {
      heldOut: {
        data: rows.heldOut,
        ...(rows.heldOutTeacher && { teacher: rows.heldOutTeacher }),
        ...(args.evalEvery !== undefined && { every: args.evalEvery }),
      },
    }),
    hooks: {
      checkpoints,
      warn: (message) => progress({ kind: 'warning', message }),
      onStep(record, evaluation) {
        metrics.append(record, evaluation);
        seen += record.validRows;
        progress({ kind: 'step', step: record.step, rows: seen, loss: record.loss });
      },
    },
  }).finally(() => metrics.close());
  const history = readStepHistory(path, terms);
  return {
    steps: result.steps,
    stepsOfAnEpoch: Math.ceil(Math.ceil(rows.student.rows / training.batchSize) / training.accumulate),
    skippedSteps: result.skipped,
    bestStep: result.best?.step ?? null,
    firstLoss: history.firstLoss,
    lastLoss: history.lastLoss,
    curve: history.points,
    evaluations: rows.heldOut ? readEvaluations(path) : [],
  };
}

/** Evaluations of a run from its metrics, those before a kill among them. */
function readEvaluations(path: string): EvaluationPoint[] {
  const records: Record<string, string>[] = parse(readFileSync(path), { columns: true });
  const optional = (text: string | undefined): number | null =>
    text === undefined || text === '' ? null : Number(text);
  return records
    .filter((record) => record.eval_accuracy !== '')
    .map((record) => ({
      step: Number(record.step),
      accuracy: Number(record.eval_accuracy),
      nll_nats: Number(record.eval_nll_nats),
      calibration_error: Number(record.eval_calibration_error),
      agreement: optional(record.eval_agreement),
      kl_nats: optional(record.eval_kl_nats),
    }));
}

/** Parameters of one entry: the learnable scalars of activations. */
function learnedScalars({ parameters, values }: Opened['parameters']): Record<string, number> {
  return Object.fromEntries(
    parameters.filter(({ length }) => length === 1).map(({ name, offset }) => [name, values[offset]]),
  );
}

export const TRAIN_CLASSIFIER: ComputeReference<ClassifierArguments, ClassifierResult> = {
  module: import.meta.url,
  job: trainClassifierModel as (
    args: ClassifierArguments,
    progress: (value: unknown) => void,
  ) => Promise<ClassifierResult>,
};
