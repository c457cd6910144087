import { type LineSeries, lineChart } from '../report/plots/line-chart.js';
import type { Panel } from '../report/plots/panel.js';
import type { StepRecord } from '../training/types.js';

/** A stretch of steps as reports tell it: means over its steps, and the evaluation at its end. */
export interface CurvePoint {
  /** Last step of the stretch. */
  readonly step: number;
  readonly loss_nats: number;
  readonly terms_nats: Readonly<Record<string, number>>;
  readonly learning_rate: number;
  readonly gradient_norm: number;
  /** Mean held-out loss behind the step. */
  readonly eval_loss_nats: number | null;
}

/** Collects the steps of a run. */
export interface CurveRecorder {
  add(record: StepRecord, evalLoss?: number): void;
  points(): CurvePoint[];
}

/** Points of a curve at most, evaluations apart. */
const MOST_POINTS = 400;

/** @param steps of the whole run: more than `MOST_POINTS` are averaged in stretches of equal length */
export function createCurveRecorder(steps: number): CurveRecorder {
  const stretch = Math.max(1, Math.ceil(steps / MOST_POINTS));
  const points: CurvePoint[] = [];
  let waiting: StepRecord[] = [];
  const close = (evalLoss: number | undefined): void => {
    const last = waiting[waiting.length - 1];
    const counted = waiting.filter(({ skipped }) => !skipped);
    const mean = (of: (record: StepRecord) => number): number =>
      counted.reduce((sum, record) => sum + of(record), 0) / counted.length;
    points.push({
      step: last.step,
      loss_nats: mean(({ loss }) => loss),
      terms_nats: Object.fromEntries(Object.keys(last.terms).map((term) => [term, mean(({ terms }) => terms[term])])),
      learning_rate: last.learningRate,
      gradient_norm: mean(({ gradientNorm }) => gradientNorm),
      eval_loss_nats: evalLoss ?? null,
    });
    waiting = [];
  };
  return {
    add(record, evalLoss) {
      waiting.push(record);
      if (waiting.length >= stretch || evalLoss !== undefined) close(evalLoss);
    },
    points() {
      if (waiting.length > 0) close(undefined);
      return points;
    },
  };
}

/** Loss against steps, the terms of a mixture beside it, and the held-out loss. */
export function curvePanel(points: readonly CurvePoint[], held: string): Promise<Panel> {
  const steps = points.map(({ step }) => step);
  const series: LineSeries[] = [{ name: 'loss', x: steps, y: points.map(({ loss_nats }) => loss_nats) }];
  const terms = Object.keys(points[0]?.terms_nats ?? {});
  if (terms.length > 1) {
    for (const term of terms) {
      series.push({ name: term, x: steps, y: points.map(({ terms_nats }) => terms_nats[term]), opacity: 0.6 });
    }
  }
  const judged = points.filter(({ eval_loss_nats }) => eval_loss_nats !== null);
  if (judged.length > 0) {
    series.push({
      name: held,
      x: judged.map(({ step }) => step),
      y: judged.map(({ eval_loss_nats }) => eval_loss_nats ?? Number.NaN),
      dashed: true,
    });
  }
  return lineChart({
    title: 'Loss',
    note: 'Means over stretches of steps.',
    xLabel: 'step',
    yLabel: 'nats',
    yZero: false,
    series,
    dots: judged.length > 0 && points.length <= 60,
  });
}

/** Learning rate and gradient norm against steps. */
export function stepPanel(points: readonly CurvePoint[]): Promise<Panel> {
  const steps = points.map(({ step }) => step);
  return lineChart({
    title: 'Gradient norm',
    note: 'Before clipping.',
    xLabel: 'step',
    yLabel: 'norm',
    yScale: 'log',
    series: [{ name: 'norm', x: steps, y: points.map(({ gradient_norm }) => gradient_norm) }],
  });
}
