import type { Figure } from '../../report/plots/figure.js';
import type { SummaryCell } from '../../report/summary-table.js';
import { predictionOf } from './fidelity.js';
import { fitLogLinearLaw, predictLosses } from './law-fit.js';
import { lawOptimum } from './law-optimum.js';
import { roundPanels } from './mix-plot.js';
import { type RoundBody, roundBodies } from './round-report.js';
import type { MixResult, MixTraining } from './training/mix-job.js';
import type { MixingMethod } from './types.js';

export { LOG_COLUMNS, logRows, MIX_COLUMNS, mixRows } from './round-report.js';

/** Schema of the report of a run on the training engine. */
export const TRAIN_SCHEMA = 'fuse-mix-train';

/** A loss with its standard error over windows. */
interface LossBody {
  readonly mean_nats: number;
  readonly standard_error_nats: number | null;
  readonly tokens: number;
}

/** Body of the report. */
export interface TrainBody {
  readonly method: string;
  readonly law: MixingMethod['law'];
  readonly groups: readonly string[];
  readonly texts: readonly {
    readonly group: string;
    readonly windows: number;
    readonly tokens: number;
    readonly held_out_windows: number;
    readonly held_out_tokens: number;
    readonly test_tokens: number | null;
  }[];
  /** Steps by what they were for; probes are steps of the final run. */
  readonly budget: {
    readonly reference_steps: number;
    readonly graph_steps: number;
    readonly sweep_steps: number;
    readonly proxy_steps: number;
    readonly final_steps: number;
    readonly probe_steps: number;
    readonly total_steps: number;
  };
  readonly proportions: ArrayLike<number>;
  readonly losses: readonly (LossBody & { readonly group: string; readonly test: LossBody | null })[];
  /** Mean over the groups, each with the same weight. */
  readonly mean_loss_nats: number;
  readonly mean_loss_standard_error_nats: number | null;
  readonly mean_perplexity: number;
  readonly mean_test_loss_nats: number | null;
  readonly mean_test_loss_standard_error_nats: number | null;
  readonly mean_test_perplexity: number | null;
  readonly runs: readonly {
    readonly kind: string;
    readonly steps: number;
    readonly drawn_windows: ArrayLike<number>;
    readonly rounds: readonly RoundBody[];
  }[];
  readonly reference_losses_nats: ArrayLike<number> | null;
  /** Skill-It: row = trained group, column = evaluated group, share of the loss that fell. */
  readonly graph: readonly ArrayLike<number>[] | null;
  readonly sweep: {
    readonly mixtures: readonly ArrayLike<number>[];
    readonly losses_nats: readonly ArrayLike<number>[];
    readonly fit_mse: number;
    readonly fit_r2: number;
    readonly predicted_mean_loss_nats: number;
  } | null;
  readonly model: {
    readonly parameters: number;
    readonly trainable_parameters: number;
    readonly kept: 'best' | 'last';
    readonly best_step: number | null;
    readonly skipped_steps: number;
  };
  readonly warnings: readonly string[];
}

const rowsOf = (matrix: Float64Array, width: number): Float64Array[] =>
  Array.from({ length: matrix.length / width }, (_, r) => matrix.slice(r * width, (r + 1) * width));

/** What a run found, as its report says it. */
export function trainBody(
  training: MixTraining,
  method: MixingMethod,
  result: MixResult,
  warnings: readonly string[],
): TrainBody {
  const groups = training.groups.map(({ name }) => name);
  const k = groups.length;
  const stepsOf = (kind: string): number =>
    result.stages.reduce((sum, stage) => sum + (stage.kind === kind ? stage.runs * stage.steps : 0), 0);
  const losses = result.losses.map(({ mean, standardError, tokens }, i) => {
    const test = result.test[i];
    return {
      group: groups[i],
      mean_nats: mean,
      standard_error_nats: standardError,
      tokens,
      test: test && { mean_nats: test.mean, standard_error_nats: test.standardError, tokens: test.tokens },
    };
  });
  const mean = meanLoss(losses);
  const tests = losses.flatMap(({ test }) => (test ? [test] : []));
  const test = tests.length === k ? meanLoss(tests) : undefined;
  return {
    method: method.name,
    law: method.law,
    groups,
    texts: training.groups.map(({ name, windows, heldOut, test: tested }) => ({
      group: name,
      windows: windows.count,
      tokens: windows.validLabels,
      held_out_windows: heldOut.count,
      held_out_tokens: heldOut.validLabels,
      test_tokens: tested?.validLabels ?? null,
    })),
    budget: {
      reference_steps: stepsOf('reference'),
      graph_steps: stepsOf('graph'),
      sweep_steps: stepsOf('sweep'),
      proxy_steps: stepsOf('proxy'),
      final_steps: stepsOf('final'),
      probe_steps: result.probeSteps,
      total_steps: result.stages.reduce((sum, { runs, steps }) => sum + runs * steps, 0),
    },
    proportions: result.proportions,
    losses,
    mean_loss_nats: mean.mean,
    mean_loss_standard_error_nats: mean.error,
    mean_perplexity: losses.reduce((sum, { mean_nats }) => sum + Math.exp(mean_nats), 0) / k,
    mean_test_loss_nats: test?.mean ?? null,
    mean_test_loss_standard_error_nats: test?.error ?? null,
    mean_test_perplexity: test ? tests.reduce((sum, { mean_nats }) => sum + Math.exp(mean_nats), 0) / k : null,
    runs: result.runs.map(({ kind, steps, drawn, rounds }) => ({
      kind,
      steps,
      drawn_windows: drawn,
      rounds: roundBodies(k, rounds),
    })),
    reference_losses_nats: result.reference,
    graph: result.graph && rowsOf(result.graph, k),
    sweep: sweepBody(result, training.seed),
    model: {
      parameters: result.parameters,
      trainable_parameters: result.trainableParameters,
      kept: training.settings.restoreBest ? 'best' : 'last',
      best_step: result.bestStep,
      skipped_steps: result.skipped,
    },
    warnings: [...warnings, ...noiseWarnings(result)],
  };
}

/** Mean of the groups' losses; their errors are independent. */
function meanLoss(losses: readonly LossBody[]): { readonly mean: number; readonly error: number | null } {
  const k = losses.length;
  const mean = losses.reduce((sum, { mean_nats }) => sum + mean_nats, 0) / k;
  let squares = 0;
  for (const { standard_error_nats } of losses) {
    if (standard_error_nats === null) return { mean, error: null };
    squares += standard_error_nats ** 2;
  }
  return { mean, error: Math.sqrt(squares) / k };
}

function sweepBody({ sweep }: MixResult, seed: number): TrainBody['sweep'] {
  if (sweep === null) return null;
  const law = fitLogLinearLaw(sweep, { seed });
  const fit = predictionOf(predictLosses(law, sweep.mixtures), sweep.losses, sweep.evaluated.length);
  return {
    mixtures: rowsOf(sweep.mixtures, sweep.sources.length),
    losses_nats: rowsOf(sweep.losses, sweep.evaluated.length),
    fit_mse: fit.mse,
    fit_r2: fit.r2,
    predicted_mean_loss_nats: lawOptimum(law, { seed }).meanLoss,
  };
}

/** Drops that are smaller than their noise say little of what helps what. */
function noiseWarnings({ runs }: MixResult): string[] {
  const rounds = runs.flatMap((run) => run.rounds);
  const weak = rounds.filter(({ update }) => update?.signalToNoise != null && update.signalToNoise < 1);
  if (weak.length === 0) return [];
  return [
    `in ${weak.length} of ${rounds.length} rounds the drops of the losses are smaller than their noise between sweeps: ` +
      'longer probes, more sweeps or more held-out text would tell more',
  ];
}

/** Lines of standard output. */
export function trainSummary(body: TrainBody): SummaryCell[][] {
  const rows = body.losses.map(({ group, mean_nats, standard_error_nats }, j): SummaryCell[] => [
    group,
    body.proportions[j],
    mean_nats,
    standard_error_nats ?? '',
  ]);
  return [...rows, ['mean', '', body.mean_loss_nats, body.mean_loss_standard_error_nats ?? '']];
}

/** Proportions, losses and matrices of the run on which the proportions moved. */
export async function trainFigure(body: TrainBody, subtitle: string): Promise<Figure> {
  const moved = body.runs.find(({ kind }) => kind === 'proxy') ?? body.runs[body.runs.length - 1];
  return {
    title: `Data mixing: ${body.method}`,
    subtitle,
    headline: [
      {
        label: 'Mean validation loss',
        value: body.mean_loss_nats,
        unit: 'nats',
        ...(body.mean_loss_standard_error_nats !== null && { standardError: body.mean_loss_standard_error_nats }),
      },
      { label: 'Mean perplexity', value: body.mean_perplexity },
      { label: 'Steps of all runs', value: body.budget.total_steps },
      { label: 'of these on probes', value: body.budget.probe_steps },
    ],
    panels: await roundPanels(body.groups, moved.rounds, moved.steps),
    sections: [],
  };
}
