import { InputError } from '../errors.js';
import { openFeatures } from '../features/open-features.js';
import { loadMatrix } from '../formats/feature-matrix.js';
import { encodeOnnxModel } from '../formats/onnx.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { headsLoss } from '../training/losses/heads.js';
import { parseLosses, termWeight } from '../training/losses/loss-text.js';
import { createObjective } from '../training/objective.js';
import { train } from '../training/trainer.js';
import type { FeatureBatch, Floats } from '../training/types.js';
import type { ClassData, ClassDataSource } from './class-data.js';
import { type ClassMetrics, measureClassifier } from './class-metrics.js';
import { type ClassModel, openClassModel } from './class-models.js';
import { readClassFiles, rowsOfSet, splitRows } from './class-splits.js';
import {
  type ClassOutputs,
  type ClassTraining,
  classBatches,
  classOutputs,
  stepsOf,
  takeOutputs,
  trainOnRows,
} from './classifier-training.js';

/** The networks that are distilled: trained here from different seeds, or files of their logits. */
export type Members =
  | { readonly kind: 'trained'; readonly network: string; readonly count: number; readonly training: ClassTraining }
  | { readonly kind: 'logits'; readonly paths: readonly string[]; readonly evalPaths: readonly string[] };

export interface HeadsArguments {
  readonly data: readonly ClassDataSource[];
  /** Rows that everything is judged on; a share of `data` when absent. */
  readonly heldOut: readonly ClassDataSource[] | number;
  readonly members: Members;
  /** The student without its heads. */
  readonly student: string;
  readonly standardize: 'none' | 'columns' | 'all';
  /** Its `loss` is that of one head. */
  readonly training: ClassTraining;
  readonly seed: number;
  readonly threads: number;
}

/** What the last hidden layer of one network says of the rows. */
export interface NetworkFeatures {
  readonly name: string;
  readonly width: number;
  /** [training rows, width], [held-out rows, width]. */
  readonly training: Floats;
  readonly heldOut: Floats;
}

export interface HeadsResult {
  readonly trainingRows: number;
  readonly heldOutRows: number;
  readonly classes: number;
  /** Weights of the student with its heads. */
  readonly weights: number;
  readonly members: readonly ClassMetrics[];
  /** Mean of the members' probabilities, and of the student's heads'. */
  readonly ensemble: ClassMetrics;
  readonly student: ClassMetrics;
  /** Each head against its teacher. */
  readonly heads: readonly ClassMetrics[];
  /** Mean loss of a row by step. */
  readonly losses: Float64Array;
  readonly features: readonly NetworkFeatures[];
  readonly labels: { readonly training: Int32Array; readonly heldOut: Int32Array };
  readonly model: Uint8Array;
  readonly warnings: readonly string[];
}

interface Member {
  readonly training: ClassOutputs;
  readonly heldOut: ClassOutputs;
}

/** Logits of several networks side by side, [rows, networks * classes]. */
function sideBySide(parts: readonly Floats[], rows: number, classes: number): Float64Array {
  const joined = new Float64Array(rows * parts.length * classes);
  for (let r = 0; r < rows; r++) {
    parts.forEach((part, m) => {
      joined.set(part.subarray(r * classes, (r + 1) * classes), (r * parts.length + m) * classes);
    });
  }
  return joined;
}

/** Logs of the mean of softmax over the heads, [rows, classes]. */
function meanLogProbabilities(logits: Floats, rows: number, heads: number, classes: number): Float64Array {
  const mean = new Float64Array(rows * classes);
  for (let r = 0; r < rows; r++) {
    for (let m = 0; m < heads; m++) {
      const from = (r * heads + m) * classes;
      const row = Float64Array.from(logits.subarray(from, from + classes));
      const most = Math.max(...row);
      const total = row.reduce((sum, value) => sum + Math.exp(value - most), 0);
      for (let c = 0; c < classes; c++) mean[r * classes + c] += Math.exp(row[c] - most) / total / heads;
    }
  }
  return mean.map(Math.log);
}

async function storedLogits(path: string, data: ClassData): Promise<ClassOutputs> {
  const matrix = await openFeatures({ kind: 'file', path });
  try {
    const classes = data.classes.length;
    if (matrix.rows !== data.rows || matrix.columns !== classes) {
      throw new InputError(
        `${path}: logits [${matrix.rows}, ${matrix.columns}], but ${data.name} has ${data.rows} rows of ${classes} classes`,
      );
    }
    return { logits: loadMatrix(matrix) };
  } finally {
    matrix.close();
  }
}

/** Outputs of the members on both sets of rows. */
async function memberOutputs(
  args: HeadsArguments,
  training: ClassData,
  held: ClassData,
  warn: (message: string) => void,
  done: () => void,
): Promise<Member[]> {
  const { members, threads } = args;
  const found: Member[] = [];
  if (members.kind === 'logits') {
    for (const [m, path] of members.paths.entries()) {
      found.push({
        training: await storedLogits(path, training),
        heldOut: await storedLogits(members.evalPaths[m], held),
      });
      done();
    }
    return found;
  }
  for (let m = 0; m < members.count; m++) {
    const model: ClassModel = { kind: 'network', text: members.network, standardize: args.standardize };
    const seed = args.seed + m;
    const { precision } = members.training;
    const network = await openClassModel(model, training, training.classes.length, { seed, precision, threads });
    try {
      await trainOnRows({
        student: network,
        data: training,
        training: members.training,
        seed,
        threads,
        hooks: { warn },
      });
      found.push({ training: await classOutputs(network, training), heldOut: await classOutputs(network, held) });
    } finally {
      await network.close();
    }
    done();
  }
  return found;
}

function featuresOf(name: string, { training, heldOut }: Member): NetworkFeatures[] {
  const { features, featureWidth } = training;
  if (!features || featureWidth === undefined || !heldOut.features) return [];
  return [{ name, width: featureWidth, training: features, heldOut: heldOut.features }];
}

/**
 * Distils several networks into one: a student with a linear head for each of them over shared features learns the sum of the
 * heads' losses (distilled concatenation; Zhang & Bottou 2023). The features are what is kept; probes judge them.
 * @throws InputError for data, networks and losses that do not fit each other
 */
export async function distilIntoHeads(args: HeadsArguments, progress: (value: unknown) => void): Promise<HeadsResult> {
  const whole = await readClassFiles(args.data);
  const separate = typeof args.heldOut === 'number' ? undefined : await readClassFiles(args.heldOut, whole.classes);
  const [training, held] = separate
    ? [whole, separate]
    : splitRows(whole, [{ name: 'held-out', share: Number(args.heldOut) }], args.seed).map(rowsOfSet);
  const warnings = new Set(whole.warnings);
  const warn = (message: string): void => {
    warnings.add(message);
  };
  let networks = 0;
  const members = await memberOutputs(args, training, held, warn, () => progress(++networks));
  const heads = members.length;
  const classes = training.classes.length;
  const teacher = sideBySide(
    members.map((member) => member.training.logits),
    training.rows,
    classes,
  );
  const heldTeacher = sideBySide(
    members.map((member) => member.heldOut.logits),
    held.rows,
    classes,
  );

  const { precision } = args.training;
  const model: ClassModel = { kind: 'network', text: args.student, standardize: args.standardize };
  const student = await openClassModel(model, training, heads * classes, {
    seed: args.seed,
    precision,
    threads: args.threads,
  });
  try {
    const source = classBatches(training, args.training.batchSize, args.seed, precision);
    const terms = parseLosses(args.training.loss).map((term) => ({
      loss: headsLoss(term.loss, heads),
      weight: ({ epoch }: { epoch: number }) => termWeight(term, epoch),
    }));
    const objective = createObjective<FeatureBatch>(terms, {
      labels: (batch) => batch.labels,
      teacher: (batch, { firstRow, rows }) => ({
        kind: 'dense',
        logits: takeOutputs({ logits: teacher }, batch.indices.subarray(firstRow, firstRow + rows), heads * classes)
          .logits,
      }),
    });
    const { optimizer, schedule, learningRate, warmupSteps, finalShare, accumulate, clipNorm } = args.training;
    const steps = stepsOf(args.training, source.perEpoch);
    const losses: number[] = [];
    await train(
      student,
      source,
      objective,
      {
        steps,
        accumulate,
        optimizer,
        schedule: { schedule, learningRate, warmupSteps, finalShare },
        ...(Number.isFinite(clipNorm) && { clipNorm }),
        threads: args.threads,
      },
      {
        warn,
        onStep: ({ loss }) => {
          losses.push(loss);
        },
      },
    );
    progress(++networks);
    const own: Member = { training: await classOutputs(student, training), heldOut: await classOutputs(student, held) };
    const headLogits = (m: number): Float64Array => {
      const part = new Float64Array(held.rows * classes);
      for (let r = 0; r < held.rows; r++) {
        const from = (r * heads + m) * classes;
        part.set(own.heldOut.logits.subarray(from, from + classes), r * classes);
      }
      return part;
    };
    const judged = (logits: Floats, against?: Floats): ClassMetrics =>
      measureClassifier(logits, held.labels, classes, against);
    return {
      trainingRows: training.rows,
      heldOutRows: held.rows,
      classes,
      weights: student.parameters.values.length,
      members: members.map((member) => judged(member.heldOut.logits)),
      ensemble: judged(meanLogProbabilities(heldTeacher, held.rows, heads, classes)),
      student: judged(meanLogProbabilities(own.heldOut.logits, held.rows, heads, classes)),
      heads: members.map((member, m) => judged(headLogits(m), member.heldOut.logits)),
      losses: Float64Array.from(losses),
      features: [...featuresOf('student', own), ...members.flatMap((member, m) => featuresOf(`member-${m}`, member))],
      labels: { training: training.labels, heldOut: held.labels },
      model: encodeOnnxModel(student.trainedModel()),
      warnings: [...warnings],
    };
  } finally {
    await student.close();
  }
}

export const DISTIL_HEADS: ComputeReference<HeadsArguments, HeadsResult> = {
  module: import.meta.url,
  job: distilIntoHeads,
};
