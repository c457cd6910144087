import { chartFigure } from '../../report/plots/chart-figure.js';
import type { Figure } from '../../report/plots/figure.js';
import { heatMap } from '../../report/plots/heat-map.js';
import { histogramChart } from '../../report/plots/histogram.js';
import { type LineChart, lineChart } from '../../report/plots/line-chart.js';
import type { Panel } from '../../report/plots/panel.js';
import { type MethodResult, PIT_BINS, type QuantilesResult } from './quantiles-job.js';
import { weightShape } from './weight-forms.js';

/** More curves than this hide one another; the best by their loss are drawn, and the two that all are held against. */
const MOST_CURVES = 6;
const REFERENCES = ['best-single', 'average'];

function shownMethods(methods: readonly MethodResult[]): MethodResult[] {
  const order = [...methods].sort((a, b) => a.shaped.meanPinball - b.shaped.meanPinball);
  const kept = new Set(methods.filter(({ name }) => REFERENCES.includes(name)));
  for (const method of order) if (kept.size < MOST_CURVES) kept.add(method);
  return methods.filter((method) => kept.has(method));
}

/** Weight of every model at every output level, summed over input levels. */
function modelWeights({ weights }: MethodResult, models: number, m: number): Float64Array | undefined {
  if (weights === undefined) return undefined;
  const [inputs, columns] = weightShape(weights.form, models, m);
  const sums = new Float64Array(models * m);
  for (let r = 0; r < inputs; r++) {
    const model = weights.form === 'fine' ? Math.floor(r / m) : r;
    for (let j = 0; j < m; j++) sums[model * m + j] += weights.values[r * columns + (j % columns)];
  }
  return sums;
}

const percent = (level: number): string => String(Number((100 * level).toPrecision(6)));

/** Reliability, width against coverage, the probability integral transform, and weights by level. */
export async function drawQuantiles(result: QuantilesResult, subtitle: string): Promise<Figure> {
  const { data, methods, models, splitRows } = result;
  const { levels } = data;
  const m = levels.length;
  const shown = shownMethods(methods);
  const best = shown.reduce((a, b) => (b.shaped.meanPinball < a.shaped.meanPinball ? b : a));
  const panels: Panel[] = [];
  const lead = best.conformal ?? best.shaped;
  panels.push(
    await lineChart({
      title: 'Reliability',
      note: 'Share of test outcomes at or below each quantile, before conformal intervals, less the level.',
      xLabel: 'level',
      yLabel: 'share below, less the level',
      series: shown.map(({ name, shaped }) => ({
        name,
        x: levels,
        y: shaped.levelCoverage.map((coverage, j) => coverage - levels[j]),
        standardError: levels.map((level) => Math.sqrt((level * (1 - level)) / shaped.rows)),
      })),
      references: [{ value: 0, label: 'calibrated' }],
    }),
    await lineChart(lossChart(levels, methods, shown)),
  );
  if (lead.intervals.length > 0) {
    panels.push(
      await lineChart({
        title: 'Width against coverage',
        note: 'Central intervals on the test rows: lower and to the right is better. Large dots: conformal.',
        xLabel: 'coverage',
        yLabel: 'mean width',
        yZero: true,
        series: [
          ...shown.map(({ name, shaped }, at) => curveOf(name, shaped.intervals, at)),
          ...shown.flatMap(({ name, conformal }, at) =>
            conformal === undefined ? [] : [{ ...curveOf(name, conformal.intervals, at), points: true }],
          ),
        ],
      }),
    );
  }
  panels.push(
    await histogramChart({
      title: `Probability integral transform, ${best.name}`,
      note: 'Flat when calibrated; a hump in the middle says too wide, high ends too narrow.',
      xLabel: 'probability of an outcome at most as large',
      unit: 'unit',
      items: 'test rows',
      series: [
        {
          name: best.name,
          histogram: { edges: Array.from({ length: PIT_BINS + 1 }, (_, i) => i / PIT_BINS), counts: best.pitCounts },
        },
      ],
      curves: [{ label: 'calibrated', x: [0, 1], y: [1, 1] }],
    }),
  );
  for (const method of shown) {
    const weights = modelWeights(method, models.length, m);
    if (weights === undefined || REFERENCES.includes(method.name)) continue;
    panels.push(
      await heatMap({
        title: `Weights of ${method.name}`,
        note: method.weights?.form === 'fine' ? 'Summed over the input levels of each model.' : undefined,
        rows: models.map(({ name }) => name),
        columns: Array.from(levels, percent),
        rowLabel: 'model',
        columnLabel: 'level, %',
        values: weights,
        valueLabel: 'weight',
        kind: weights.some((weight) => weight < 0) ? 'signed' : 'amount',
        ...(!weights.some((weight) => weight < 0 || weight > 1 + 1e-9) && { domain: [0, 1] as const }),
      }),
    );
  }
  const figure = await chartFigure({
    title: 'Quantile forecasts fused',
    subtitle,
    headline: [
      { label: 'Rows of the fit', value: splitRows.train },
      { label: 'Calibration rows', value: splitRows.calibration },
      { label: 'Test rows', value: splitRows.test },
      { label: `Pinball loss of ${best.name}`, value: best.shaped.meanPinball },
    ],
    charts: [],
    tables: [
      {
        heading: 'Methods on the test rows',
        table: {
          columns: ['method', 'pinball loss', 'WIS', 'calibration error'],
          rows: methods.map(({ name, shaped }) => [
            ...[
              name,
              shaped.meanPinball,
              Number.isNaN(shaped.wis) ? '' : shaped.wis,
              shaped.meanAbsoluteCalibrationError,
            ],
          ]),
        },
      },
    ],
  });
  return { ...figure, panels };
}

/** Losses by level over those of the equal average, where that was judged: differences are small beside the losses. */
function lossChart(levels: Float64Array, methods: readonly MethodResult[], shown: readonly MethodResult[]): LineChart {
  const average = methods.find(({ name }) => name === 'average')?.shaped.pinballByLevel;
  const over = (losses: Float64Array): Float64Array =>
    average === undefined ? losses : losses.map((loss, j) => loss / average[j]);
  return {
    title: 'Pinball loss by level',
    note: 'Means over the test rows, without crossings.',
    xLabel: 'level',
    yLabel: average === undefined ? 'pinball loss' : 'pinball loss over that of the equal average',
    series: shown.map(({ name, shaped }) => ({ name, x: levels, y: over(shaped.pinballByLevel) })),
    ...(average === undefined && { yZero: true }),
  };
}

function curveOf(name: string, intervals: MethodResult['shaped']['intervals'], colour: number) {
  const finite = intervals.filter(({ width }) => Number.isFinite(width));
  return { name, x: finite.map(({ coverage }) => coverage), y: finite.map(({ width }) => width), colour };
}
