import type { Figure } from '../report/plots/figure.js';
import { lineChart } from '../report/plots/line-chart.js';
import type { SummaryCell } from '../report/summary-table.js';
import { type GradCheckBody, type GradientGraphBody, gradCheckBody } from '../training/grad-check-report.js';
import { type CurvePoint, curvePanel, stepPanel } from '../training/training-curve.js';
import type { ClassMetrics } from './class-metrics.js';
import type { ClassifierResult, EvaluationPoint } from './train-classifier-job.js';

export const CLASSIFIER_SCHEMA = 'distill-train-classifier';

/** Figures of a classifier as reports tell them. */
export interface ClassFigures {
  rows: number;
  accuracy: number;
  accuracy_se: number | null;
  nll_nats: number;
  nll_nats_se: number | null;
  calibration_error: number;
  entropy_nats: number;
  agreement: number | null;
  agreement_se: number | null;
  kl_nats: number | null;
  kl_nats_se: number | null;
}

/** A standard error that one row does not have. */
const errorOf = (value: number | undefined): number | null =>
  value === undefined || Number.isNaN(value) ? null : value;

export const classFigures = (metrics: ClassMetrics): ClassFigures => ({
  rows: metrics.rows,
  accuracy: metrics.accuracy,
  accuracy_se: errorOf(metrics.accuracyError),
  nll_nats: metrics.nllNats,
  nll_nats_se: errorOf(metrics.nllError),
  calibration_error: metrics.calibrationError,
  entropy_nats: metrics.entropyNats,
  agreement: metrics.agreement ?? null,
  agreement_se: errorOf(metrics.agreementError),
  kl_nats: metrics.klNats ?? null,
  kl_nats_se: errorOf(metrics.klError),
});

/** What a report says of a run. */
export interface ClassifierBody {
  rows: { train: number; student: number; held_out: number };
  extents: number[];
  classes: string[];
  student: { description: string; weights: number; scalars: Record<string, number> };
  teacher: { description: string; training: ClassFigures; held_out: ClassFigures | null } | null;
  run: {
    steps: number;
    steps_of_an_epoch: number;
    skipped_steps: number;
    kept: 'best' | 'last';
    best_step: number | null;
  };
  first_loss_nats: number;
  last_loss_nats: number;
  training: ClassFigures;
  /** On held-out rows, before and after; the weights that are written. */
  evaluation: { before: ClassFigures; after: ClassFigures } | null;
  grad_check: GradCheckBody | null;
  gradient_graph: GradientGraphBody | null;
  curve: CurvePoint[];
  evaluations: EvaluationPoint[];
  warnings: string[];
}

const graphFigures = ({ bytes: _, ...body }: NonNullable<ClassifierResult['gradientGraph']>): GradientGraphBody => body;

export interface ClassifierWords {
  readonly student: string;
  readonly teacher?: string;
  readonly kept: 'best' | 'last';
  readonly warnings: readonly string[];
}

/** The report of a run, beside its parameters and inputs. */
export function classifierBody(result: ClassifierResult, words: ClassifierWords): ClassifierBody {
  const { before, after, teacher } = result;
  return {
    rows: { train: result.rows.train, student: result.rows.student, held_out: result.rows.heldOut },
    extents: [...result.dims],
    classes: [...result.classes],
    student: { description: words.student, weights: result.weights, scalars: { ...result.scalars } },
    teacher:
      teacher && words.teacher !== undefined
        ? {
            description: words.teacher,
            training: classFigures(teacher.training),
            held_out: teacher.heldOut ? classFigures(teacher.heldOut) : null,
          }
        : null,
    run: {
      steps: result.steps,
      steps_of_an_epoch: result.stepsOfAnEpoch,
      skipped_steps: result.skippedSteps,
      kept: words.kept,
      best_step: result.bestStep,
    },
    first_loss_nats: result.firstLoss,
    last_loss_nats: result.lastLoss,
    training: classFigures(result.training),
    evaluation: before && after ? { before: classFigures(before), after: classFigures(after) } : null,
    grad_check: result.gradCheck ? gradCheckBody(result.gradCheck, result.gradCheck.missing) : null,
    gradient_graph: result.gradientGraph ? graphFigures(result.gradientGraph) : null,
    curve: [...result.curve],
    evaluations: [...result.evaluations],
    warnings: [...result.warnings, ...words.warnings],
  };
}

/** Lines of standard output. */
export function classifierSummary(body: ClassifierBody): SummaryCell[][] {
  const { evaluation, teacher, run } = body;
  const rows: SummaryCell[][] = [
    ['rows that the student learnt from', body.rows.student],
    ['weights', body.student.weights],
    ['steps', run.steps],
    ['loss of the first step, nats', body.first_loss_nats],
    ['loss of the last step, nats', body.last_loss_nats],
    ['accuracy on training rows', body.training.accuracy],
  ];
  if (body.grad_check) rows.push(['gradient check, worst relative error', body.grad_check.worst_relative_error]);
  for (const [name, value] of Object.entries(body.student.scalars)) rows.push([name, value]);
  if (!evaluation) return rows;
  const { before, after } = evaluation;
  rows.push(['held-out accuracy before', before.accuracy], ['held-out accuracy', after.accuracy]);
  rows.push(['held-out negative log-likelihood, nats', after.nll_nats]);
  rows.push(['held-out calibration error', after.calibration_error]);
  if (after.agreement !== null) rows.push(['agreement with the teacher', after.agreement]);
  if (after.kl_nats !== null) rows.push(['KL from the teacher, nats', after.kl_nats]);
  if (teacher?.held_out) rows.push(["the teacher's held-out accuracy", teacher.held_out.accuracy]);
  rows.push(['weights of step', run.kept === 'best' ? (run.best_step ?? run.steps) : run.steps]);
  return rows;
}

/** Loss and gradient norm against steps, held-out accuracy beside the teacher's. */
export async function classifierFigure(body: ClassifierBody, subtitle: string): Promise<Figure> {
  const { evaluation, evaluations, teacher } = body;
  const steps = evaluations.map(({ step }) => step);
  const rows = body.rows.held_out;
  const accuracy =
    evaluations.length > 1
      ? [
          await lineChart({
            title: 'Held-out accuracy',
            xLabel: 'step',
            yLabel: 'accuracy',
            series: [
              {
                name: 'student',
                x: steps,
                y: evaluations.map((own) => own.accuracy),
                standardError: evaluations.map((own) =>
                  Math.sqrt((own.accuracy * (1 - own.accuracy)) / Math.max(1, rows - 1)),
                ),
              },
            ],
            ...(teacher?.held_out && { references: [{ value: teacher.held_out.accuracy, label: 'teacher' }] }),
          }),
        ]
      : [];
  return {
    title: `Training of ${body.student.description}, ${body.student.weights} weights`,
    subtitle,
    headline: evaluation
      ? [
          {
            label: 'Held-out accuracy',
            value: evaluation.after.accuracy,
            ...(evaluation.after.accuracy_se !== null && { standardError: evaluation.after.accuracy_se }),
          },
          { label: 'Negative log-likelihood, nats', value: evaluation.after.nll_nats },
          ...(evaluation.after.agreement === null
            ? []
            : [{ label: 'Agreement with the teacher', value: evaluation.after.agreement }]),
        ]
      : [{ label: 'Loss of the last step, nats', value: body.last_loss_nats }],
    panels: [
      await curvePanel(body.curve, 'held-out negative log-likelihood'),
      ...accuracy,
      await stepPanel(body.curve),
    ],
    sections: [],
  };
}
