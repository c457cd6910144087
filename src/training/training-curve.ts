import { readFileSync } from 'node:fs';
import { parse } from 'csv-parse/sync';
import { type LineSeries, lineChart, type ReferenceLine } from '../report/plots/line-chart.js';
import type { Panel } from '../report/plots/panel.js';

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

/** Points of a curve at most, evaluations apart. */
const MOST_POINTS = 400;

/** The steps of a run, as its metrics tell them. */
export interface StepHistory {
  readonly steps: number;
  readonly firstLoss: number;
  readonly lastLoss: number;
  /** Rows that counted, over all steps. */
  readonly validRows: number;
  readonly points: readonly CurvePoint[];
}

interface MetricsRow {
  readonly step: number;
  readonly loss: number;
  readonly terms: Readonly<Record<string, number>>;
  readonly learningRate: number;
  readonly gradientNorm: number;
  readonly validRows: number;
  readonly skipped: boolean;
  readonly evalLoss: number | null;
}

function numberOf(text: string): number {
  if (text === 'inf') return Infinity;
  if (text === '-inf') return -Infinity;
  return text === 'nan' || text === '' ? Number.NaN : Number(text);
}

function rowOf(record: Readonly<Record<string, string>>, terms: readonly string[]): MetricsRow {
  const { eval_loss_nats: evaluated } = record;
  return {
    step: numberOf(record.step),
    loss: numberOf(record.loss_nats),
    terms: Object.fromEntries(terms.map((term) => [term, numberOf(record[`${term}_nats`])])),
    learningRate: numberOf(record.learning_rate),
    gradientNorm: numberOf(record.gradient_norm),
    validRows: numberOf(record.valid_rows),
    skipped: numberOf(record.skipped) === 1,
    evalLoss: evaluated === undefined || evaluated === '' ? null : numberOf(evaluated),
  };
}

function pointOf(rows: readonly MetricsRow[], terms: readonly string[]): CurvePoint {
  const last = rows[rows.length - 1];
  const counted = rows.filter(({ skipped }) => !skipped);
  const mean = (of: (row: MetricsRow) => number): number =>
    counted.reduce((sum, row) => sum + of(row), 0) / counted.length;
  return {
    step: last.step,
    loss_nats: mean(({ loss }) => loss),
    terms_nats: Object.fromEntries(terms.map((term) => [term, mean((row) => row.terms[term])])),
    learning_rate: last.learningRate,
    gradient_norm: mean(({ gradientNorm }) => gradientNorm),
    eval_loss_nats: last.evalLoss,
  };
}

/**
 * Reads back the metrics of a run, resumed or not. Long runs are averaged in stretches of steps; an evaluation ends one.
 * @param terms labels of the terms of the loss
 */
export function readStepHistory(path: string, terms: readonly string[]): StepHistory {
  const records: Record<string, string>[] = parse(readFileSync(path), { columns: true });
  const rows = records.map((record) => rowOf(record, terms));
  const stretch = Math.max(1, Math.ceil(rows.length / MOST_POINTS));
  const points: CurvePoint[] = [];
  let waiting: MetricsRow[] = [];
  rows.forEach((row, i) => {
    waiting.push(row);
    if (waiting.length < stretch && row.evalLoss === null && i < rows.length - 1) return;
    points.push(pointOf(waiting, terms));
    waiting = [];
  });
  return {
    steps: rows.length,
    firstLoss: rows[0].loss,
    lastLoss: rows[rows.length - 1].loss,
    validRows: rows.reduce((sum, { validRows }) => sum + validRows, 0),
    points,
  };
}

/** Loss against steps, the terms of a mixture beside it, the held-out loss, and known values to compare it with. */
export function curvePanel(
  points: readonly CurvePoint[],
  held: string,
  references: readonly ReferenceLine[] = [],
): Promise<Panel> {
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
    references,
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
    dots: points.length <= 60,
  });
}
