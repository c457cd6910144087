import type { Cell } from '../report/csv.js';
import type { Figure } from '../report/plots/figure.js';
import { lineChart } from '../report/plots/line-chart.js';
import type { Panel } from '../report/plots/panel.js';
import type { SummaryCell } from '../report/summary-table.js';
import type { GridRegret } from './bernoulli-grid.js';
import type { ClassMetrics } from './class-metrics.js';
import type { EnsembleAudit } from './ensemble-audit.js';
import type { LangevinArguments, LangevinEnsemble } from './langevin-ensemble.js';

export const ENSEMBLE_SCHEMA = 'distill-ensemble';

/** The Bernoulli experiment. */
export interface GridExperiment {
  readonly theta: number;
  readonly samples: number;
  readonly half_log_samples_nats: number;
  readonly grids: readonly GridRegret[];
}

/** Figures of a classifier on held-out rows. */
interface HeldOutBody {
  readonly nll_nats: number;
  readonly nll_se_nats: number;
  readonly accuracy: number;
  readonly accuracy_se: number;
  readonly calibration_error: number;
}

/** A sampled ensemble. */
export interface LangevinBody {
  readonly student: string;
  readonly weights: number;
  readonly classes: number;
  readonly training_rows: number;
  readonly held_out_rows: number;
  readonly step_size: number;
  readonly temperature: number;
  readonly prior_precision: number;
  readonly burn_in_steps: number;
  readonly thinning_steps: number;
  readonly batch_rows: number;
  readonly precision: 'f32' | 'f64';
  readonly seed: number;
  readonly steps: number;
  readonly skipped_steps: number;
  readonly snapshots: readonly (HeldOutBody & {
    readonly model: number;
    readonly step: number;
    readonly training_nll_nats: number;
  })[];
  /** Of the mean of the snapshots' probabilities, all of equal weight. */
  readonly average: HeldOutBody;
  readonly trace: readonly { readonly step: number; readonly loss_nats: number }[];
  readonly bias: string;
}

export interface EnsembleResult {
  readonly ensemble: EnsembleAudit | null;
  /** How the models came about, where they were sampled. */
  readonly langevin: LangevinBody | null;
  readonly bernoulli: GridExperiment | null;
  readonly warnings: readonly string[];
}

/** Columns of `--out`: one row a model, or a grid of the Bernoulli experiment. */
export const MODEL_COLUMNS = [
  ...['model', 'prior', 'total_nats', 'posterior', 'regret_nats', 'regret_limit_nats', 'divergence_nats'],
] as const;
export const GRID_COLUMNS = [
  ...['grid', 'log_models_nats', 'expected_regret_nats', 'ball_bound_nats', 'ball_radius_nats', 'jensen_bound_nats'],
] as const;
/** Columns of `--table`: one row a radius. */
export const BALL_COLUMNS = ['radius_nats', 'weight', 'models', 'bound_nats'] as const;

/** Columns of `--out` for sampled models. */
export const LANGEVIN_COLUMNS = [
  ...MODEL_COLUMNS,
  ...['step', 'training_nll_nats', 'nll_nats', 'nll_se_nats', 'accuracy', 'accuracy_se', 'calibration_error'],
] as const;

const heldOutBody = (metrics: ClassMetrics): HeldOutBody => ({
  nll_nats: metrics.nllNats,
  nll_se_nats: metrics.nllError,
  accuracy: metrics.accuracy,
  accuracy_se: metrics.accuracyError,
  calibration_error: metrics.calibrationError,
});

/** @param student the network as the user named it */
export function langevinBody(
  ensemble: LangevinEnsemble,
  student: string,
  { plan, seed }: LangevinArguments,
): LangevinBody {
  return {
    student,
    weights: ensemble.weights,
    classes: ensemble.shape.classes,
    training_rows: ensemble.trainingRows,
    held_out_rows: ensemble.shape.records,
    step_size: plan.stepSize,
    temperature: plan.temperature,
    prior_precision: plan.priorPrecision,
    burn_in_steps: plan.burnIn,
    thinning_steps: plan.thinning,
    batch_rows: Math.min(plan.batchSize, ensemble.trainingRows),
    precision: plan.precision,
    seed,
    steps: ensemble.steps,
    skipped_steps: ensemble.skippedSteps,
    snapshots: ensemble.snapshots.map(({ step, trainingNllNats, heldOut }, model) => ({
      ...{ model, step, training_nll_nats: trainingNllNats },
      ...heldOutBody(heldOut),
    })),
    average: heldOutBody(ensemble.average),
    trace: ensemble.trace.map(({ step, loss }) => ({ step, loss_nats: loss })),
    bias: ensemble.bias,
  };
}

export function* ensembleRows({ ensemble, langevin, bernoulli }: EnsembleResult): Generator<readonly Cell[]> {
  for (const row of ensemble?.by_model ?? []) {
    const sampled = langevin?.snapshots[row.model];
    yield [
      row.model,
      row.prior,
      row.total_nats,
      row.posterior,
      row.regret_nats,
      row.regret_limit_nats,
      row.divergence_nats,
      ...(sampled
        ? [
            ...[sampled.step, sampled.training_nll_nats, sampled.nll_nats, sampled.nll_se_nats],
            ...[sampled.accuracy, sampled.accuracy_se, sampled.calibration_error],
          ]
        : []),
    ];
  }
  for (const row of bernoulli?.grids ?? []) {
    yield [
      ...[row.grid, row.log_models_nats, row.expected_regret_nats],
      ...[row.ball_bound_nats, row.ball_radius_nats, row.jensen_bound_nats],
    ];
  }
}

export function* ballRows({ ensemble }: EnsembleResult): Generator<readonly Cell[]> {
  for (const ball of ensemble?.reference?.balls ?? [])
    yield [ball.radius_nats, ball.weight, ball.models, ball.bound_nats];
}

export const ensembleBody = (result: EnsembleResult): object => ({
  ...result,
  definitions: {
    mixture: 'sequential log loss of the Bayesian mixture, each record predicted from the posterior before it',
    regret: "mixture's total minus the model's; never above -ln prior",
    bounds:
      'ball: min over radii of samples * radius - ln W(radius), W the prior mass within KL(reference || model) <= radius; jensen: min over balls of -ln W + samples * prior-weighted mean KL inside',
  },
});

export const SUMMARY_HEADER = ['figure', 'value'] as const;

function langevinSummary(langevin: LangevinBody | null): SummaryCell[][] {
  if (langevin === null) return [];
  const { snapshots, average } = langevin;
  const mean = (figure: 'nll_nats' | 'accuracy' | 'training_nll_nats'): number =>
    snapshots.reduce((sum, snapshot) => sum + snapshot[figure], 0) / snapshots.length;
  return [
    ['steps', langevin.steps],
    ['training NLL of a network, mean, nats', mean('training_nll_nats')],
    ['held-out NLL of a network, mean, nats', mean('nll_nats')],
    ['held-out NLL of the average, nats', average.nll_nats],
    ['accuracy of a network, mean', mean('accuracy')],
    ['accuracy of the average', average.accuracy],
    ['calibration error of the average', average.calibration_error],
  ];
}

/** What standard output shows of the records, or of the grids where there are none. */
export function ensembleSummary({ ensemble, langevin, bernoulli }: EnsembleResult): SummaryCell[][] {
  if (bernoulli !== null) {
    return bernoulli.grids.flatMap(
      ({ grid, expected_regret_nats, ball_bound_nats, jensen_bound_nats }): SummaryCell[][] => [
        [`${grid} models: expected regret, nats`, expected_regret_nats],
        [`${grid} models: ball bound, nats`, ball_bound_nats],
        [`${grid} models: Jensen bound, nats`, jensen_bound_nats],
      ],
    );
  }
  if (ensemble === null) return [];
  const { mixture, reference, test } = ensemble;
  return [
    ['models', ensemble.models],
    ...langevinSummary(langevin),
    ['records', ensemble.trained_records],
    ['mixture, nats per record', mixture.mean_nats],
    ['uniform average, nats per record', mixture.uniform_average_mean_nats],
    [
      `best model (${mixture.best_single_index}), nats per record`,
      mixture.best_single_total_nats / ensemble.trained_records,
    ],
    ['regret to it, nats', mixture.regret_to_best_nats],
    ['effective models', ensemble.effective_models],
    ...(reference
      ? ([
          ['regret bound, nats', reference.bounds.ball_nats],
          ['its radius, nats per sample', reference.bounds.ball_radius_nats],
          ['its prior weight', reference.bounds.ball_weight],
          ['Jensen bound, nats', reference.bounds.jensen_nats],
        ] satisfies SummaryCell[][])
      : []),
    ...(reference?.target_nats != null
      ? [[`samples for ${reference.target_nats} nats per sample`, reference.samples_for_target ?? 'none are enough']]
      : []),
    ...(test
      ? ([
          ['test: mixture, nats per record', test.mixture_mean_nats],
          ['test: uniform average', test.uniform_average_mean_nats],
          [`test: best trained (${test.best_trained_index})`, test.best_trained_mean_nats],
        ] satisfies SummaryCell[][])
      : []),
  ];
}

function gridPanel({ grids, half_log_samples_nats }: GridExperiment): Promise<Panel> {
  const x = grids.map(({ grid }) => grid);
  return lineChart({
    title: 'Regret hardly grows with the number of models',
    note: 'Bernoulli models on a grid; counting them would promise ln(models).',
    xLabel: 'models',
    yLabel: 'nats',
    xScale: 'log',
    yZero: true,
    series: [
      { name: 'expected regret', x, y: grids.map((row) => row.expected_regret_nats) },
      { name: 'Jensen bound', x, y: grids.map((row) => row.jensen_bound_nats) },
      { name: 'ball bound', x, y: grids.map((row) => row.ball_bound_nats) },
      { name: 'ln(models)', x, y: grids.map((row) => row.log_models_nats) },
    ],
    references: [{ value: half_log_samples_nats, label: '(1/2) ln n' }],
  });
}

function ensemblePanels({ reference, concentration, by_model }: EnsembleAudit): Promise<Panel>[] {
  const panels: Promise<Panel>[] = [];
  const balls = (reference?.balls ?? []).filter(({ bound_nats }) => Number.isFinite(bound_nats));
  if (reference && balls.length > 1) {
    panels.push(
      lineChart({
        title: 'Regret bound against the radius of the ball',
        note: `Least: ${reference.bounds.ball_nats.toPrecision(4)} nats at radius ${reference.bounds.ball_radius_nats.toPrecision(3)}.`,
        xLabel: 'radius, nats per sample',
        yLabel: 'nats',
        yZero: true,
        series: [{ name: 'bound', x: balls.map((ball) => ball.radius_nats), y: balls.map((ball) => ball.bound_nats) }],
        markedX: { value: reference.bounds.ball_radius_nats, label: 'least' },
      }),
    );
  }
  panels.push(
    lineChart({
      title: 'How the posterior concentrates',
      xLabel: 'records',
      yLabel: 'effective models',
      xScale: 'log',
      yLow: 0,
      series: [
        {
          name: 'exp(entropy)',
          x: concentration.map((row) => row.records),
          y: concentration.map((row) => row.effective_models),
        },
      ],
    }),
    lineChart({
      title: 'Regret to every model, and its limit',
      note: 'Models in the order of their total loss; the limit is -ln prior.',
      xLabel: 'models from the best',
      yLabel: 'nats',
      series: regretSeries(by_model),
    }),
  );
  return panels;
}

function regretSeries(models: EnsembleAudit['by_model']) {
  const ordered = [...models].sort((a, b) => a.total_nats - b.total_nats);
  const x = ordered.map((_, i) => i + 1);
  return [
    { name: 'regret', x, y: ordered.map((row) => row.regret_nats) },
    { name: 'limit', x, y: ordered.map((row) => row.regret_limit_nats), dashed: true },
  ];
}

function titleOf(langevin: LangevinBody | null, bernoulli: GridExperiment | null): string {
  if (bernoulli) return 'A mixture over more and more models';
  return langevin ? 'Networks sampled from their posterior' : 'A mixture of models under log loss';
}

function langevinPanels(langevin: LangevinBody): Promise<Panel>[] {
  const { trace, burn_in_steps, snapshots, average, step_size, temperature } = langevin;
  return [
    lineChart({
      title: 'Loss along the chain',
      note: `Step size ${step_size}, temperature ${temperature}. No step is rejected: larger ones bias the sample more.`,
      xLabel: 'step',
      yLabel: 'nats of a training row',
      yZero: true,
      dots: false,
      series: [{ name: 'loss', x: trace.map(({ step }) => step), y: trace.map(({ loss_nats }) => loss_nats) }],
      ...(burn_in_steps > 0 && { markedX: { value: burn_in_steps, label: 'burn-in' } }),
    }),
    lineChart({
      title: 'Held-out loss of every network, and of their average',
      note: 'The average is of probabilities, with equal weights.',
      xLabel: 'step',
      yLabel: 'nats',
      series: [
        {
          name: 'one network',
          x: snapshots.map(({ step }) => step),
          y: snapshots.map(({ nll_nats }) => nll_nats),
        },
      ],
      references: [{ value: average.nll_nats, label: 'average' }],
    }),
  ];
}

/** Chain of sampled networks; bound against radius, posterior and regrets of an ensemble; regret against the size of the class for the grid. */
export async function drawEnsemble(
  { ensemble, langevin, bernoulli }: EnsembleResult,
  subtitle: string,
): Promise<Figure> {
  const panels = [
    ...(bernoulli ? [await gridPanel(bernoulli)] : []),
    ...(langevin ? await Promise.all(langevinPanels(langevin)) : []),
    ...(ensemble ? await Promise.all(ensemblePanels(ensemble)) : []),
  ];
  return {
    title: titleOf(langevin, bernoulli),
    subtitle,
    headline: ensemble
      ? [
          { label: 'Models', value: ensemble.models },
          { label: 'Records', value: ensemble.trained_records },
          ...(langevin ? [{ label: 'Average of all, held out', value: langevin.average.nll_nats, unit: 'nats' }] : []),
          { label: 'Mixture', value: ensemble.mixture.mean_nats, unit: 'nats' },
          { label: 'Regret to the best', value: ensemble.mixture.regret_to_best_nats, unit: 'nats' },
          { label: 'Effective models', value: ensemble.effective_models },
        ]
      : [
          { label: 'Samples', value: bernoulli?.samples ?? 0 },
          { label: 'Theta', value: bernoulli?.theta ?? 0 },
        ],
    panels,
    sections: [],
  };
}
