import type { Cell } from '../report/csv.js';
import type { Figure } from '../report/plots/figure.js';
import { lineChart } from '../report/plots/line-chart.js';
import type { ClassMetrics } from './class-metrics.js';
import type { HeadsResult } from './heads-job.js';

export const HEADS_SCHEMA = 'distill-heads';

/** Columns of `--out`: one row a network or mean of networks, judged on the held-out rows. */
export const HEADS_COLUMNS = [
  'network',
  'accuracy',
  'accuracy_se',
  'nll_nats',
  'nll_se',
  'calibration_error',
  'agreement_with_teacher',
  'kl_from_teacher_nats',
] as const;

function named(result: HeadsResult): [string, ClassMetrics][] {
  return [
    ...result.members.map((metrics, m): [string, ClassMetrics] => [`member-${m}`, metrics]),
    ['ensemble of members', result.ensemble],
    ['mean of student heads', result.student],
    ...result.heads.map((metrics, m): [string, ClassMetrics] => [`student head ${m}`, metrics]),
  ];
}

/** Rows of `--out`. */
export function* headsRows(result: HeadsResult): Generator<readonly Cell[]> {
  for (const [name, found] of named(result)) {
    yield [
      name,
      found.accuracy,
      found.accuracyError,
      found.nllNats,
      found.nllError,
      found.calibrationError,
      found.agreement,
      found.klNats,
    ];
  }
}

/** The report of a run. */
export function headsBody(result: HeadsResult): object {
  return {
    training_rows: result.trainingRows,
    held_out_rows: result.heldOutRows,
    classes: result.classes,
    heads: result.heads.length,
    student_weights: result.weights,
    first_loss_nats: result.losses[0] ?? Number.NaN,
    last_loss_nats: result.losses[result.losses.length - 1] ?? Number.NaN,
    steps: result.losses.length,
    features: result.features.map(({ name, width }) => ({ network: name, width })),
    networks: named(result).map(([network, found]) => ({
      network,
      accuracy: found.accuracy,
      accuracy_standard_error: found.accuracyError,
      nll_nats: found.nllNats,
      nll_standard_error: found.nllError,
      calibration_error: found.calibrationError,
      agreement_with_teacher: found.agreement ?? null,
      kl_from_teacher_nats: found.klNats ?? null,
    })),
    warnings: result.warnings,
  };
}

/** Course of the loss, and how each head does beside its teacher. */
export async function drawHeads(result: HeadsResult, subtitle: string): Promise<Figure> {
  const x = result.heads.map((_, m) => m);
  const steps = Array.from(result.losses, (_, i) => i + 1);
  return {
    title: 'Several networks distilled into one with a head for each',
    subtitle,
    headline: [
      { label: 'Heads', value: result.heads.length },
      { label: 'Ensemble of members', value: result.ensemble.accuracy, standardError: result.ensemble.accuracyError },
      { label: 'Mean of student heads', value: result.student.accuracy, standardError: result.student.accuracyError },
    ],
    panels: [
      await lineChart({
        title: 'Loss',
        note: 'Sum over the heads, mean over the rows of a step.',
        xLabel: 'step',
        yLabel: 'nats',
        dots: false,
        series: [{ name: 'loss', x: steps, y: result.losses }],
      }),
      await lineChart({
        title: 'Accuracy on the held-out rows',
        xLabel: 'member',
        yLabel: 'accuracy',
        references: [{ value: result.ensemble.accuracy, label: 'ensemble of members' }],
        series: [
          { name: 'member', x, y: result.members.map(({ accuracy }) => accuracy) },
          { name: 'its head', x, y: result.heads.map(({ accuracy }) => accuracy) },
        ],
      }),
    ],
    sections: [],
  };
}
