import type { ComputeReference } from '../kernels/compute-thread.js';
import type { ClassDataSource } from './class-data.js';
import type { ClassMetrics } from './class-metrics.js';
import { openClassModel } from './class-models.js';
import { readClassFiles, rowsOfSet, splitRows } from './class-splits.js';
import { type ClassTraining, evaluateClassifier, trainOnRows } from './classifier-training.js';

export interface ActivationTrainingArguments {
  readonly data: readonly ClassDataSource[];
  /** Rows that the networks are judged on; a share of `data` when absent. */
  readonly heldOut: readonly ClassDataSource[] | number;
  /** A network text without its activation. */
  readonly network: string;
  readonly standardize: 'none' | 'columns' | 'all';
  readonly activations: readonly string[];
  readonly seeds: readonly number[];
  readonly training: ClassTraining;
  readonly seed: number;
  readonly threads: number;
}

/** One network after its training. */
export interface TrainedActivation {
  readonly activation: string;
  readonly seed: number;
  readonly metrics: ClassMetrics;
  /** Learnable scalars of activations at the end, by name: `layers.0.epsilon`. */
  readonly learnt: Readonly<Record<string, number>>;
}

export interface ActivationTraining {
  readonly trainingRows: number;
  readonly heldOutRows: number;
  readonly runs: readonly TrainedActivation[];
  readonly warnings: readonly string[];
}

/**
 * Trains the same network with each activation from the same seeds: with one seed all start from the same weights and see the
 * same batches.
 * @throws InputError as `readClassFiles` and `openClassModel`
 */
export async function trainActivations(
  args: ActivationTrainingArguments,
  progress: (done: number) => void,
): Promise<ActivationTraining> {
  const whole = await readClassFiles(args.data);
  const warnings = new Set(whole.warnings);
  const separate = typeof args.heldOut === 'number' ? undefined : await readClassFiles(args.heldOut, whole.classes);
  const [training, held] = separate
    ? [whole, separate]
    : splitRows(whole, [{ name: 'held-out', share: Number(args.heldOut) }], args.seed).map(rowsOfSet);
  const { precision } = args.training;
  const runs: TrainedActivation[] = [];
  for (const seed of args.seeds) {
    for (const activation of args.activations) {
      const model = { kind: 'network' as const, text: `${args.network},${activation}`, standardize: args.standardize };
      const student = await openClassModel(model, training, whole.classes.length, {
        seed,
        precision,
        threads: args.threads,
      });
      try {
        await trainOnRows({
          student,
          data: training,
          training: args.training,
          seed,
          threads: args.threads,
          hooks: { warn: (message) => warnings.add(`${activation}, seed ${seed}: ${message}`) },
        });
        const { parameters, values } = student.parameters;
        const scalars = parameters.filter(({ name }) => name.endsWith('.epsilon'));
        runs.push({
          activation,
          seed,
          metrics: await evaluateClassifier(student, held),
          learnt: Object.fromEntries(scalars.map(({ name, offset }) => [name, values[offset]])),
        });
      } finally {
        await student.close();
      }
      progress(runs.length);
    }
  }
  return { trainingRows: training.rows, heldOutRows: held.rows, runs, warnings: [...warnings] };
}

export const TRAIN_ACTIVATIONS: ComputeReference<ActivationTrainingArguments, ActivationTraining> = {
  module: import.meta.url,
  job: trainActivations as (
    args: ActivationTrainingArguments,
    progress: (value: unknown) => void,
  ) => Promise<ActivationTraining>,
};
