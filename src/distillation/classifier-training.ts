import { InputError } from '../errors.js';
import { createDataOrder } from '../training/data-order.js';
import { parseLosses, termWeight } from '../training/losses/loss-text.js';
import { createObjective, type Objective } from '../training/objective.js';
import type { OnnxStudent } from '../training/onnx-student.js';
import type { OptimizerSettings } from '../training/optimizer.js';
import type { PerturbedSource } from '../training/perturbed-batches.js';
import type { ScheduleName } from '../training/schedules.js';
import { type Evaluation, type TrainHooks, type TrainResult, type TrainSettings, train } from '../training/trainer.js';
import type { BatchSource, FeatureBatch, Floats, Precision, Student } from '../training/types.js';
import type { ClassData } from './class-data.js';
import { type ClassMetrics, measureClassifier } from './class-metrics.js';

/** How a classifier learns. */
export interface ClassTraining {
  /** Terms as `parseLosses` reads them. */
  readonly loss: string;
  /** Passes over the rows, or steps of the optimiser: one of the two. */
  readonly epochs?: number;
  readonly steps?: number;
  readonly batchSize: number;
  readonly accumulate: number;
  readonly optimizer: OptimizerSettings;
  readonly learningRate: number;
  readonly schedule: ScheduleName;
  readonly warmupSteps: number;
  readonly finalShare: number;
  /** Greatest norm of the gradient; Infinity for no limit. */
  readonly clipNorm: number;
  readonly precision: Precision;
}

/** What a classifier says of rows. */
export interface ClassOutputs {
  /** [rows, classes] */
  readonly logits: Floats;
  /** [rows, featureWidth]: what the head reads, where the model shows it. */
  readonly features?: Floats;
  readonly featureWidth?: number;
}

/** Rows of an evaluation that run together. */
const EVALUATION_ROWS = 512;

/** The rows `items` as a batch. */
export function featureBatch(data: ClassData, items: Int32Array, precision: Precision): FeatureBatch {
  const width = data.features.length / data.rows;
  const cells = items.length * width;
  const features = precision === 'f32' ? new Float32Array(cells) : new Float64Array(cells);
  items.forEach((row, i) => {
    features.set(data.features.subarray(row * width, (row + 1) * width), i * width);
  });
  const labels = Int32Array.from(items, (row) => data.labels[row]);
  return { features, rows: items.length, labels, indices: items };
}

/** Micro-batches of the rows, shuffled anew in every epoch by the seed. */
export function classBatches(
  data: ClassData,
  batchSize: number,
  seed: number,
  precision: Precision,
): BatchSource<FeatureBatch> {
  const order = createDataOrder({ count: data.rows, batchSize: Math.min(batchSize, data.rows), seed });
  return {
    perEpoch: order.perEpoch,
    batch: (index) => featureBatch(data, order.items(index), precision),
  };
}

/** Steps of the optimiser; at least one. */
export function stepsOf({ epochs, steps, accumulate }: ClassTraining, perEpoch: number): number {
  return steps ?? Math.max(1, Math.ceil(((epochs ?? 1) * perEpoch) / accumulate));
}

/** Rows of a matrix [all, width] by their numbers. */
function gather(matrix: Floats, width: number, rows: Int32Array): Floats {
  const taken =
    matrix instanceof Float32Array ? new Float32Array(rows.length * width) : new Float64Array(rows.length * width);
  rows.forEach((row, i) => {
    taken.set(matrix.subarray(row * width, (row + 1) * width), i * width);
  });
  return taken;
}

/** Outputs of the rows `rows`, in that order. */
export function takeOutputs(outputs: ClassOutputs, rows: Int32Array, classes: number): ClassOutputs {
  const { features, featureWidth } = outputs;
  return {
    logits: gather(outputs.logits, classes, rows),
    ...(features && featureWidth !== undefined && { features: gather(features, featureWidth, rows), featureWidth }),
  };
}

/** The losses of a run, reading the teacher's rows by their place in the data. */
export function classObjective(
  loss: string,
  classes: number,
  teacher: ClassOutputs | undefined,
): Objective<FeatureBatch> {
  const terms = parseLosses(loss).map((term) => ({
    loss: term.loss,
    weight: term.warmUpEpochs > 0 ? ({ epoch }: { epoch: number }) => termWeight(term, epoch) : term.weight,
  }));
  return createObjective<FeatureBatch>(terms, {
    labels: (batch) => batch.labels,
    ...(teacher && {
      teacher: (batch, { firstRow, rows }) => ({
        kind: 'dense',
        logits: gather(teacher.logits, classes, batch.indices.subarray(firstRow, firstRow + rows)),
      }),
    }),
    ...(teacher?.features && {
      teacherFeatures: (batch, { firstRow, rows }) => ({
        features: gather(
          teacher.features ?? teacher.logits,
          teacher.featureWidth ?? classes,
          batch.indices.subarray(firstRow, firstRow + rows),
        ),
        width: teacher.featureWidth ?? classes,
      }),
    }),
  });
}

/** Logits, and features where the student shows them, of all rows. */
export async function classOutputs(student: Student<FeatureBatch>, data: ClassData): Promise<ClassOutputs> {
  const { precision } = student.parameters;
  const { classes } = student;
  const make = (cells: number): Floats => (precision === 'f32' ? new Float32Array(cells) : new Float64Array(cells));
  const logits = make(data.rows * classes);
  let features: Floats | undefined;
  let featureWidth: number | undefined;
  for (let start = 0; start < data.rows; start += EVALUATION_ROWS) {
    const rows = Math.min(EVALUATION_ROWS, data.rows - start);
    const items = Int32Array.from({ length: rows }, (_, i) => start + i);
    await student.evaluate(featureBatch(data, items, precision), (block) => {
      const first = start + block.firstRow;
      logits.set(block.logits.subarray(0, block.rows * classes), first * classes);
      if (!block.features || block.featureWidth === undefined) return;
      featureWidth = block.featureWidth;
      features ??= make(data.rows * featureWidth);
      features.set(block.features.subarray(0, block.rows * featureWidth), first * featureWidth);
    });
  }
  return { logits, ...(features && { features, featureWidth }) };
}

/** How a student does on rows, beside the teacher where there is one. */
export async function evaluateClassifier(
  student: Student<FeatureBatch>,
  data: ClassData,
  teacher?: ClassOutputs,
): Promise<ClassMetrics> {
  const { logits } = await classOutputs(student, data);
  return measureClassifier(logits, data.labels, student.classes, teacher?.logits);
}

/** Rows that a student is judged by while it learns. */
export interface HeldOut {
  readonly data: ClassData;
  readonly teacher?: ClassOutputs;
  /** Steps between evaluations; an epoch when absent. */
  readonly every?: number;
  /** Told of every evaluation. */
  seen?(step: number, metrics: ClassMetrics): void;
}

export interface ClassifierRun {
  readonly student: Student<FeatureBatch>;
  readonly data: ClassData;
  /** Of the same rows. */
  readonly teacher?: ClassOutputs;
  readonly training: ClassTraining;
  readonly seed: number;
  readonly heldOut?: HeldOut;
  readonly keepBest?: boolean;
  readonly checkpointEvery?: number;
  readonly threads?: number;
  readonly hooks?: Omit<TrainHooks, 'evaluate'>;
}

/** Batches beside their worst copies, where a term of the loss asks for them. */
async function perturbedSource(
  { student, data, training, seed, threads = 1 }: ClassifierRun,
  source: BatchSource<FeatureBatch>,
): Promise<PerturbedSource | undefined> {
  const perturbations = parseLosses(training.loss).flatMap(({ loss }) => loss.perturbation ?? []);
  if (perturbations.length === 0) return undefined;
  if (perturbations.length > 1) throw new InputError('a loss has one smooth-adversarial term at most');
  if (!('trainedModel' in student)) throw new InputError('smooth-adversarial needs a student that is one graph');
  const { perturbedBatches } = await import('../training/perturbed-batches.js');
  const settings = { dims: data.dims, seed, threads };
  return perturbedBatches(source, student as OnnxStudent<FeatureBatch>, perturbations[0], settings);
}

/** Trains a classifier on rows; the best evaluation is that of the least negative log-likelihood of the labels. */
export async function trainOnRows(run: ClassifierRun): Promise<TrainResult> {
  const { student, data, teacher, training, seed, heldOut } = run;
  const plain = classBatches(data, training.batchSize, seed, training.precision);
  const perturbed = await perturbedSource(run, plain);
  const source = perturbed ?? plain;
  const steps = stepsOf(training, source.perEpoch);
  const perEpoch = Math.max(1, Math.round(source.perEpoch / training.accumulate));
  const settings: TrainSettings = {
    steps,
    accumulate: training.accumulate,
    optimizer: training.optimizer,
    schedule: {
      schedule: training.schedule,
      learningRate: training.learningRate,
      warmupSteps: training.warmupSteps,
      finalShare: training.finalShare,
    },
    ...(Number.isFinite(training.clipNorm) && { clipNorm: training.clipNorm }),
    ...(heldOut && { evaluateEvery: heldOut.every ?? perEpoch, restoreBest: run.keepBest === true }),
    ...(run.checkpointEvery !== undefined && { checkpointEvery: run.checkpointEvery }),
    ...(run.threads !== undefined && { threads: run.threads }),
  };
  const evaluate = async (step: number): Promise<Evaluation> => {
    if (!heldOut) throw new Error('no rows to evaluate on');
    const metrics = await evaluateClassifier(student, heldOut.data, heldOut.teacher);
    heldOut.seen?.(step, metrics);
    return {
      loss: metrics.nllNats,
      figures: {
        accuracy: metrics.accuracy,
        nll_nats: metrics.nllNats,
        calibration_error: metrics.calibrationError,
        ...(metrics.agreement !== undefined && { agreement: metrics.agreement }),
        ...(metrics.klNats !== undefined && { kl_nats: metrics.klNats }),
      },
    };
  };
  try {
    return await train(student, source, classObjective(training.loss, student.classes, teacher), settings, {
      ...run.hooks,
      ...(heldOut && { evaluate }),
    });
  } finally {
    await perturbed?.close();
  }
}
