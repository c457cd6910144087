import type { Cell } from '../report/csv.js';
import type { ActivationResult } from './activation-job.js';
import type { ActivationTraining, TrainedActivation } from './activation-training.js';

export const ACTIVATIONS_SCHEMA = 'distill-activations';

/** Columns of `--out`: one row an input. */
export const ACTIVATION_COLUMNS = ['input', 'base', 'improved', 'fitted', 'correction'] as const;

/** Columns of `--table`: one row a trained network. */
export const TRAINING_COLUMNS = ['activation', 'seed', 'accuracy', 'nll_nats', 'calibration_error', 'learnt'] as const;

/** Rows of `--out`. */
export function* activationRows({ table }: ActivationResult): Generator<readonly Cell[]> {
  for (let i = 0; i < table.input.length; i++) {
    yield [table.input[i], table.base[i], table.improved[i], table.fitted[i], table.correction[i]];
  }
}

const learntText = (learnt: TrainedActivation['learnt']): string =>
  Object.entries(learnt)
    .map(([name, value]) => `${name}=${Number(value.toPrecision(6))}`)
    .join(' ');

/** Rows of `--table`. */
export function* trainingRows(training: ActivationTraining | undefined): Generator<readonly Cell[]> {
  for (const { activation, seed, metrics, learnt } of training?.runs ?? []) {
    yield [activation, seed, metrics.accuracy, metrics.nllNats, metrics.calibrationError, learntText(learnt)];
  }
}

/** Mean over seeds with its standard error and the sample deviation; NaN where one seed says nothing of a spread. */
export function spreadOf(values: readonly number[]): { mean: number; standardError: number; deviation: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const deviation = values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : Number.NaN;
  return { mean, standardError: deviation / Math.sqrt(values.length), deviation };
}

/** One activation over the seeds. */
export interface ActivationSummary {
  readonly activation: string;
  readonly accuracy: ReturnType<typeof spreadOf>;
  readonly nll: ReturnType<typeof spreadOf>;
  readonly calibrationError: ReturnType<typeof spreadOf>;
  /** Accuracy less that of the first activation at the same seed. */
  readonly gain: ReturnType<typeof spreadOf>;
  /** Learnable scalars by name. */
  readonly learnt: readonly (readonly [string, ReturnType<typeof spreadOf>])[];
}

/** Means and standard errors over the seeds, an entry for every activation in the order of the first run. */
export function summariseTraining({ runs }: ActivationTraining): ActivationSummary[] {
  const names = [...new Set(runs.map(({ activation }) => activation))];
  const first = runs.filter(({ activation }) => activation === names[0]);
  return names.map((activation) => {
    const own = runs.filter((run) => run.activation === activation);
    return {
      activation,
      accuracy: spreadOf(own.map(({ metrics }) => metrics.accuracy)),
      nll: spreadOf(own.map(({ metrics }) => metrics.nllNats)),
      calibrationError: spreadOf(own.map(({ metrics }) => metrics.calibrationError)),
      gain: spreadOf(own.map(({ metrics }, i) => metrics.accuracy - first[i].metrics.accuracy)),
      learnt: Object.keys(own[0].learnt).map(
        (name) => [name, spreadOf(own.map(({ learnt }) => learnt[name]))] as const,
      ),
    };
  });
}

const spreadBody = ({ mean, standardError, deviation }: ReturnType<typeof spreadOf>): object => ({
  mean,
  standard_error: standardError,
  deviation,
});

function trainingBody(training: ActivationTraining): object {
  return {
    training_rows: training.trainingRows,
    held_out_rows: training.heldOutRows,
    activations: summariseTraining(training).map((row) => ({
      activation: row.activation,
      accuracy: spreadBody(row.accuracy),
      nll_nats: spreadBody(row.nll),
      calibration_error: spreadBody(row.calibrationError),
      accuracy_less_first: spreadBody(row.gain),
      learnt: Object.fromEntries(row.learnt.map(([name, spread]) => [name, spreadBody(spread)])),
    })),
    runs: training.runs.map(({ activation, seed, metrics, learnt }) => ({
      activation,
      seed,
      accuracy: metrics.accuracy,
      nll_nats: metrics.nllNats,
      calibration_error: metrics.calibrationError,
      learnt,
    })),
  };
}

/** What a reader must know before the direction is believed. */
export function searchWarnings(result: ActivationResult): string[] {
  const { boundaryTerm, firstVariation, applied } = result;
  const warnings: string[] = [];
  if (!(Math.abs(boundaryTerm) < 0.01 * Math.abs(firstVariation)) && Math.abs(boundaryTerm) > 1e-9) {
    warnings.push(
      `the ends of the output interval change H by ${boundaryTerm.toPrecision(3)}, the direction by ${firstVariation.toPrecision(3)}: the activation is too flat at an end; raise --least-slope or --tail`,
    );
  }
  if (!applied.increasing) {
    warnings.push(`at eps ${applied.eps} the inverse no longer increases; the table holds the base activation`);
  }
  return warnings;
}

/** The report of a run. */
export function activationsBody(result: ActivationResult, training: ActivationTraining | undefined): object {
  const { plugIn } = result;
  return {
    density: result.density,
    recorded_inputs: result.recorded,
    branch: { low: result.branch.low, high: result.branch.high, mass: result.branch.mass },
    excluded_mass: result.excludedMass,
    output_interval: result.interval,
    entropy_nats: result.entropyNats,
    log_range_nats: result.logRange,
    entropy_less_log_range_nats: result.entropyNats - result.logRange,
    first_variation: result.firstVariation,
    boundary_term: result.boundaryTerm,
    numeric_derivative: result.numericDerivative,
    sweep: result.sweep.map(({ eps, nats, increasing }) => ({
      eps,
      entropy_nats: nats,
      entropy_less_log_range_nats: nats - result.logRange,
      increasing,
    })),
    admissible_eps: { low: result.admissible.low, high: result.admissible.high },
    applied: { eps: result.applied.eps, entropy_nats: result.applied.nats, increasing: result.applied.increasing },
    fit: {
      form: "base(u) + a (-p(u)' + p(u) base(u)''/base(u)')",
      a: result.fit.coefficient,
      residual_rms: result.fit.residual,
    },
    plug_in: plugIn
      ? {
          bins: plugIn.bins,
          before_nats: plugIn.before,
          after_nats: plugIn.after,
          inside_share_before: plugIn.insideBefore,
          inside_share_after: plugIn.insideAfter,
        }
      : null,
    training: training ? trainingBody(training) : null,
    warnings: [...searchWarnings(result), ...(training?.warnings ?? [])],
  };
}
