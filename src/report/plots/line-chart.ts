import type { Markish, PlotOptions } from '@observablehq/plot';
import type { AxisScale } from './axis.js';
import { fitAxis, leftMargin } from './axis.js';
import { CATEGORY_COLOURS, REFERENCE_COLOUR, schemeColours } from './colours.js';
import type { Legend, Swatch } from './legend.js';
import { formatNumber, linearTicks } from './numbers.js';
import type { Panel } from './panel.js';
import { emptyPanel, HALF_WIDTH, plotPanel } from './panel.js';

/**
 * One line: `x` and `y` of equal length; NaN in `y` leaves a gap. `standardError` draws a band of one on each side, `band` one
 * between two lines.
 */
export interface LineSeries {
  readonly name: string;
  readonly x: ArrayLike<number>;
  readonly y: ArrayLike<number>;
  readonly standardError?: ArrayLike<number>;
  readonly band?: { readonly low: ArrayLike<number>; readonly high: ArrayLike<number> };
  readonly dashed?: boolean;
  /** Which of the category colours, for series that belong together; their place when absent. */
  readonly colour?: number;
  /** Of the line, 1 when absent: many lines that cross are drawn translucent. */
  readonly opacity?: number;
  /** Large dots without a line and without a place in the legend: measurements beside the curves of their colours. */
  readonly points?: boolean;
}

/** A line at a known value, with its name. */
export interface ReferenceLine {
  readonly value: number;
  readonly label: string;
}

export interface LineChart {
  readonly title: string;
  readonly note?: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly xScale?: AxisScale;
  readonly yScale?: AxisScale;
  readonly yLow?: number;
  readonly yHigh?: number;
  /** Whether zero must be on a linear y axis. */
  readonly yZero?: boolean;
  readonly series: readonly LineSeries[];
  /**
   * For series that have an order (layers, steps): they are coloured along a ramp with this label, and `values` (one
   * a series) stand beside the ramp.
   */
  readonly ordered?: { readonly label: string; readonly values: readonly number[] };
  readonly references?: readonly ReferenceLine[];
  /** A bound that moves with x, drawn dashed over the range of the data. */
  readonly ceiling?: { readonly label: string; readonly at: (x: number) => number };
  /** Vertical line, for instance at a chosen threshold. */
  readonly markedX?: ReferenceLine;
  /** Stretches of x that are shaded: windows, phases. */
  readonly shaded?: { readonly label: string; readonly ranges: readonly (readonly [from: number, to: number])[] };
  /** Whether points get a dot and a hover text; where there are not too many when absent. */
  readonly dots?: boolean;
  readonly width?: number;
  readonly height?: number;
}

interface Point {
  readonly x: number;
  readonly y: number;
  readonly low: number;
  readonly high: number;
}

/** More points than this are drawn without a dot and a hover text each. */
const MOST_DOTS = 400;

async function coloursOf(chart: LineChart): Promise<{ colours: string[]; legend: Legend }> {
  const { series, ordered } = chart;
  if (ordered !== undefined && series.length > 1) {
    // The yellow end of viridis is left out: it cannot be seen on white.
    const colours = await schemeColours('viridis', series.length, 0.15, 0.85);
    const low = ordered.values[0];
    const high = ordered.values[ordered.values.length - 1];
    const ticks = linearTicks(low, high, 4)
      .filter((value) => Number.isInteger(value))
      .map((value) => ({ at: high === low ? 0 : (value - low) / (high - low), label: formatNumber(value) }));
    const ramp = { label: ordered.label, colours: await schemeColours('viridis', 40, 0.15, 0.85), ticks };
    return { colours, legend: { ramps: [ramp] } };
  }
  const colours = series.map(({ colour }, i) => CATEGORY_COLOURS[(colour ?? i) % CATEGORY_COLOURS.length]);
  if (series.length < 2) return { colours, legend: {} };
  const swatches = series.flatMap(({ name, dashed, points }, i): Swatch[] =>
    points ? [] : [{ label: name, colour: colours[i], shape: isDashed(dashed, i) ? 'dashed' : 'line' }],
  );
  return { colours, legend: { swatches } };
}

/** When the colours have been used up they come again dashed. */
function isDashed(dashed: boolean | undefined, index: number): boolean {
  return dashed ?? index >= CATEGORY_COLOURS.length;
}

/** Ends of the band at point i, y itself where there is none. */
function bandAt({ standardError, band }: LineSeries, i: number, y: number): { low: number; high: number } {
  const error = standardError?.[i] ?? 0;
  const spread = Number.isFinite(error) ? error : 0;
  const [low, high] = [band?.low[i] ?? Number.NaN, band?.high[i] ?? Number.NaN];
  return { low: Number.isFinite(low) ? low : y - spread, high: Number.isFinite(high) ? high : y + spread };
}

function pointsOf(series: LineSeries, floor: number): Point[] {
  const points: Point[] = [];
  for (let i = 0; i < series.x.length; i++) {
    const x = series.x[i];
    if (!Number.isFinite(x)) continue;
    const finite = Number.isFinite(series.y[i]) && series.y[i] >= floor;
    const y = finite ? series.y[i] : Number.NaN;
    const { low, high } = bandAt(series, i, y);
    points.push({ x, y, low: Math.max(floor, low), high });
  }
  return points;
}

/** Lines over a common axis, with bands of one standard error, reference lines and a legend. */
export async function lineChart(chart: LineChart): Promise<Panel> {
  const width = chart.width ?? HALF_WIDTH;
  const header = { title: chart.title, note: chart.note };
  const xs = chart.series.flatMap((series) => Array.from(series.x).filter((_, i) => Number.isFinite(series.y[i])));
  const ys = chart.series.flatMap((series) =>
    Array.from(series.y).flatMap((y, i) => {
      const { low, high } = bandAt(series, i, y);
      return [y, low, high];
    }),
  );
  const centres = chart.series.flatMap((series) => Array.from(series.y));
  const references = (chart.references ?? []).filter(({ value }) => Number.isFinite(value));
  const integer = xs.every((x) => Number.isInteger(x));
  const ticks = width > HALF_WIDTH ? 12 : 7;
  const xAxis = fitAxis(
    { scale: chart.xScale, label: chart.xLabel, ticks, grid: false, nice: false, integer },
    chart.markedX === undefined ? xs : [...xs, chart.markedX.value],
  );
  // On a logarithmic axis the lower edge of a wide band may be far below the points or negative: the points decide.
  const yValues = chart.yScale === 'log' ? centres : ys;
  const yAxis = fitAxis(
    { scale: chart.yScale, label: chart.yLabel, low: chart.yLow, high: chart.yHigh, zero: chart.yZero },
    [
      ...yValues,
      ...references.map(({ value }) => value),
      ...(chart.ceiling === undefined ? [] : xs.map(chart.ceiling.at)),
    ],
  );
  if (xAxis === undefined || yAxis === undefined) return emptyPanel(header, 'no values to draw', width);
  const Plot = await import('@observablehq/plot');
  const { colours, legend } = await coloursOf(chart);
  const swatches: Swatch[] = [...(legend.swatches ?? [])];
  const floor = chart.yScale === 'log' ? yAxis.low : Number.NEGATIVE_INFINITY;
  const all = chart.series.map((series) => pointsOf(series, floor));
  const withDots = chart.dots ?? all.reduce((sum, points) => sum + points.length, 0) <= MOST_DOTS;
  const marks: Markish[] = [Plot.ruleX([xAxis.low], { stroke: 'currentColor', strokeOpacity: 0.35 })];
  if (chart.shaded !== undefined && chart.shaded.ranges.length > 0) {
    marks.push(
      Plot.rectX(
        chart.shaded.ranges.map(([from, to]) => ({ from: Math.max(from, xAxis.low), to: Math.min(to, xAxis.high) })),
        { x1: 'from', x2: 'to', fill: REFERENCE_COLOUR, fillOpacity: 0.18 },
      ),
    );
    swatches.push({ label: chart.shaded.label, colour: REFERENCE_COLOUR, shape: 'area' });
  }
  for (const { value, label } of references) {
    marks.push(Plot.ruleY([value], { stroke: REFERENCE_COLOUR, strokeDasharray: '5 4', strokeWidth: 1.4 }));
    swatches.push({ label: `${label}: ${formatNumber(value)}`, colour: REFERENCE_COLOUR, shape: 'dashed' });
  }
  if (chart.ceiling !== undefined) {
    const { at, label } = chart.ceiling;
    const places = [...new Set(xs)].sort((a, b) => a - b);
    marks.push(
      Plot.line(
        places.map((x) => [x, at(x)]).filter(([, y]) => y >= yAxis.low && y <= yAxis.high),
        { stroke: REFERENCE_COLOUR, strokeDasharray: '5 4', strokeWidth: 1.4 },
      ),
    );
    swatches.push({ label, colour: REFERENCE_COLOUR, shape: 'dashed' });
  }
  if (chart.markedX !== undefined) {
    marks.push(
      Plot.ruleX([chart.markedX.value], { stroke: REFERENCE_COLOUR, strokeDasharray: '5 4', strokeWidth: 1.2 }),
      Plot.text([chart.markedX.label], {
        x: chart.markedX.value,
        frameAnchor: 'top',
        textAnchor: 'start',
        dx: 5,
        dy: 4,
      }),
    );
  }
  chart.series.forEach((series, i) => {
    if (series.standardError === undefined && series.band === undefined) return;
    const band = all[i].filter((point) => Number.isFinite(point.y));
    marks.push(
      Plot.areaY(band, {
        x: 'x',
        y1: (point: Point) => Math.max(yAxis.low, point.low),
        y2: (point: Point) => Math.min(yAxis.high, point.high),
        fill: colours[i],
        fillOpacity: 0.2,
      }),
    );
  });
  chart.series.forEach((series, i) => {
    const strokeDasharray = isDashed(series.dashed, i) ? '5 3' : undefined;
    const strokeOpacity = series.opacity;
    if (!series.points) {
      marks.push(
        Plot.line(all[i], { x: 'x', y: 'y', stroke: colours[i], strokeWidth: 1.7, strokeDasharray, strokeOpacity }),
      );
    }
    if (withDots || series.points) {
      marks.push(
        Plot.dot(
          all[i].filter((point) => Number.isFinite(point.y)),
          {
            x: 'x',
            y: 'y',
            r: series.points ? 4.5 : 2.3,
            fill: colours[i],
            title: (point: Point) => `${series.name} at ${formatNumber(point.x)}: ${formatNumber(point.y)}`,
          },
        ),
      );
    }
  });
  const options: PlotOptions = {
    width,
    height: chart.height ?? 250,
    marginLeft: leftMargin(yAxis),
    marginRight: 20,
    marginTop: 26,
    marginBottom: 38,
    x: { ...xAxis.options, labelAnchor: 'center', labelArrow: 'none' },
    y: { ...yAxis.options, labelArrow: 'none' },
    marks,
  };
  return plotPanel({ ...header, legend: { ...legend, swatches } }, options);
}
