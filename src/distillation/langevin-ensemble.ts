/** Networks sampled from their posterior by Langevin steps, and what each says of held-out rows. */

import type { ComputeReference } from '../kernels/compute-thread.js';
import { logSumExpRow } from '../kernels/loss-rows-reference.js';
import { createRandom } from '../random.js';
import { LANGEVIN_BIAS, sampleLangevin } from '../training/langevin.js';
import { countValid } from '../training/objective.js';
import { type FeatureBatch, type Floats, IGNORED, type Precision, type Student } from '../training/types.js';
import type { ClassData, ClassDataSource } from './class-data.js';
import { type ClassMetrics, measureClassifier } from './class-metrics.js';
import { type ClassModel, checkClasses, openClassModel } from './class-models.js';
import { readClassFiles, rowsOfSet, splitRows } from './class-splits.js';
import { classBatches, classObjective, classOutputs, evaluateClassifier } from './classifier-training.js';
import type { EnsembleShape } from './ensemble-records.js';

/** How the posterior is sampled. */
export interface LangevinPlan {
  readonly snapshots: number;
  readonly stepSize: number;
  readonly temperature: number;
  /** Of the normal prior of every weight; 0 for a flat one. */
  readonly priorPrecision: number;
  readonly burnIn: number;
  readonly thinning: number;
  readonly batchSize: number;
  readonly precision: Precision;
}

export interface LangevinArguments {
  readonly data: readonly ClassDataSource[];
  /** Rows that snapshots are judged on; a share of `data` when a number. */
  readonly heldOut: readonly ClassDataSource[] | number;
  readonly student: ClassModel;
  readonly plan: LangevinPlan;
  readonly seed: number;
  readonly threads: number;
}

export interface LangevinSnapshot {
  /** Optimiser step behind which it was taken. */
  readonly step: number;
  /** Mean of -log p(label) over all training rows, in nats. */
  readonly trainingNllNats: number;
  readonly heldOut: ClassMetrics;
}

export interface LangevinEnsemble {
  readonly shape: EnsembleShape;
  /** [snapshots, held-out rows, classes] */
  readonly logProbs: Float64Array;
  /** [held-out rows] */
  readonly labels: Int32Array;
  readonly trainingRows: number;
  readonly weights: number;
  readonly steps: number;
  readonly skippedSteps: number;
  readonly snapshots: readonly LangevinSnapshot[];
  /** Of the mean of the snapshots' probabilities. */
  readonly average: ClassMetrics;
  /** Mean loss of a row over windows of steps, by the last step of the window. */
  readonly trace: readonly { readonly step: number; readonly loss: number }[];
  /** What the figures do not correct for. */
  readonly bias: string;
  readonly warnings: readonly string[];
}

const TRACE_POINTS = 200;
const NOISE = 0x6e6f6973;

/** Means of consecutive windows of a run of `steps` steps. */
function createTrace(steps: number) {
  const window = Math.ceil(steps / TRACE_POINTS);
  const points: { step: number; loss: number }[] = [];
  let [sum, count] = [0, 0];
  return {
    points,
    add(step: number, loss: number): void {
      sum += loss;
      count++;
      if (step % window !== 0 && step !== steps) return;
      points.push({ step, loss: sum / count });
      [sum, count] = [0, 0];
    },
  };
}

/** Writes the logs of softmax of every row of logits [rows, classes] into `target`. */
function writeLogProbabilities(logits: Floats, classes: number, target: Float64Array): void {
  for (let start = 0; start < logits.length; start += classes) {
    const normaliser = logSumExpRow(logits, start, classes);
    for (let c = start; c < start + classes; c++) target[c] = logits[c] - normaliser;
  }
}

/** Logs of the mean over models of probabilities, [records, classes]. */
function averageLogProbabilities(logProbs: Float64Array, { models, records, classes }: EnsembleShape): Float64Array {
  const cells = records * classes;
  const column = new Float64Array(models);
  return Float64Array.from({ length: cells }, (_, cell) => {
    for (let m = 0; m < models; m++) column[m] = logProbs[m * cells + cell];
    return logSumExpRow(column, 0, models) - Math.log(models);
  });
}

async function readRows(
  args: LangevinArguments,
): Promise<{ training: ClassData; held: ClassData; warnings: string[] }> {
  const { heldOut, seed } = args;
  const whole = await readClassFiles(args.data);
  const separate = typeof heldOut === 'number' ? undefined : await readClassFiles(heldOut, whole.classes);
  const [training, held] = separate
    ? [whole, separate]
    : splitRows(whole, [{ name: 'held-out', share: Number(heldOut) }], seed).map(rowsOfSet);
  // A record is a row with a label.
  const labelled = Int32Array.from(held.labels.keys()).filter((row) => held.labels[row] !== IGNORED);
  const warnings = [...whole.warnings, ...(separate?.warnings ?? [])];
  return { training, held: rowsOfSet({ data: held, rows: labelled }), warnings };
}

/**
 * Samples classifiers from their posterior given the training rows, from a random start, and evaluates each snapshot on
 * held-out rows.
 * @param progress told of every step
 * @throws InputError for rows, networks or settings that do not fit; RunError when the run diverges
 */
export async function sampleClassifiers(
  args: LangevinArguments,
  progress: (value: { step: number; loss: number }) => void,
): Promise<LangevinEnsemble> {
  const { plan, seed, threads } = args;
  const { training, held, warnings } = await readRows(args);
  const { precision } = plan;
  const student = await openClassModel(args.student, training, training.classes.length, { seed, threads, precision });
  try {
    checkClasses(student.classes, training, 'student');
    checkClasses(student.classes, held, 'student');
    return { ...(await sampleRows(student, training, held, args, progress, warnings)), warnings };
  } finally {
    await student.close();
  }
}

async function sampleRows(
  student: Student<FeatureBatch>,
  training: ClassData,
  held: ClassData,
  { plan, seed, threads }: LangevinArguments,
  progress: (value: { step: number; loss: number }) => void,
  warnings: string[],
): Promise<Omit<LangevinEnsemble, 'warnings'>> {
  const { batchSize, precision, ...settings } = plan;
  const { classes } = student;
  const shape = { models: plan.snapshots, records: held.rows, classes };
  const cells = shape.records * classes;
  const logProbs = new Float64Array(plan.snapshots * cells);
  const snapshots: LangevinSnapshot[] = [];
  const trace = createTrace(plan.burnIn + plan.snapshots * plan.thinning);
  const result = await sampleLangevin(
    student,
    classBatches(training, batchSize, seed, precision),
    classObjective('ce', classes, undefined),
    {
      ...settings,
      dataCount: countValid(training.labels),
      // The order of the rows comes from streams of the seed itself.
      seed: createRandom(seed)
        .fork(NOISE)
        .integer(2 ** 31),
      threads,
    },
    {
      warn: (message) => warnings.push(message),
      onStep({ step, loss }) {
        trace.add(step, loss);
        progress({ step, loss });
      },
      async onSnapshot(index, step) {
        const { logits } = await classOutputs(student, held);
        writeLogProbabilities(logits, classes, logProbs.subarray(index * cells, (index + 1) * cells));
        const { nllNats } = await evaluateClassifier(student, training);
        const heldOut = measureClassifier(logits, held.labels, classes);
        snapshots.push({ step, trainingNllNats: nllNats, heldOut });
      },
    },
  );
  return {
    shape,
    logProbs,
    labels: held.labels,
    trainingRows: training.rows,
    weights: student.parameters.values.length,
    steps: result.steps,
    skippedSteps: result.skipped,
    snapshots,
    average: measureClassifier(averageLogProbabilities(logProbs, shape), held.labels, classes),
    trace: trace.points,
    bias: LANGEVIN_BIAS,
  };
}

export const SAMPLE_CLASSIFIERS: ComputeReference<LangevinArguments, LangevinEnsemble> = {
  module: import.meta.url,
  job: sampleClassifiers as (args: LangevinArguments, progress: (value: unknown) => void) => Promise<LangevinEnsemble>,
};
