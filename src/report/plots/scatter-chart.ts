import type { Markish, PlotOptions } from '@observablehq/plot';
import type { AxisScale } from './axis.js';
import { fitAxis, leftMargin } from './axis.js';
import { CATEGORY_COLOURS, REFERENCE_COLOUR } from './colours.js';
import type { Swatch } from './legend.js';
import { formatNumber } from './numbers.js';
import type { Panel } from './panel.js';
import { emptyPanel, HALF_WIDTH, plotPanel } from './panel.js';

/** Points of one kind: `x` and `y` of equal length; `labels` appear when a point is pointed at. */
export interface ScatterSeries {
  readonly name: string;
  readonly x: ArrayLike<number>;
  readonly y: ArrayLike<number>;
  readonly labels?: readonly string[];
  readonly radius?: number;
}

export interface ScatterChart {
  readonly title: string;
  readonly note?: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly xScale?: AxisScale;
  readonly yScale?: AxisScale;
  readonly series: readonly ScatterSeries[];
  /** A curve for comparison, drawn dashed: the unit circle, the diagonal. */
  readonly curve?: { readonly label: string; readonly x: ArrayLike<number>; readonly y: ArrayLike<number> };
  /** One unit is as long on both axes. */
  readonly square?: boolean;
  /** Ends of both axes, instead of those of the points. */
  readonly range?: readonly [low: number, high: number];
  readonly width?: number;
  readonly height?: number;
}

/** Points beyond this are drawn fainter. */
const CROWD = 300;

/** Points in a plane, by kind, with a curve for comparison. */
export async function scatterChart(chart: ScatterChart): Promise<Panel> {
  const width = chart.width ?? HALF_WIDTH;
  const header = { title: chart.title, note: chart.note };
  const points = chart.series.map(({ x, y, labels }) =>
    Array.from(x, (value, i) => ({ x: value, y: y[i], label: labels?.[i] })).filter(
      (point) => Number.isFinite(point.x) && Number.isFinite(point.y),
    ),
  );
  const all = points.flat();
  const ends = chart.range ?? [];
  const curve = Array.from(chart.curve?.x ?? [], (x, i) => [x, chart.curve?.y[i] ?? Number.NaN] as const);
  const xAxis = fitAxis({ scale: chart.xScale, label: chart.xLabel, grid: true }, [
    ...all.map((point) => point.x),
    ...curve.map(([x]) => x),
    ...ends,
  ]);
  const yAxis = fitAxis({ scale: chart.yScale, label: chart.yLabel }, [
    ...all.map((point) => point.y),
    ...curve.map(([, y]) => y),
    ...ends,
  ]);
  if (xAxis === undefined || yAxis === undefined) return emptyPanel(header, 'no values to draw', width);
  const Plot = await import('@observablehq/plot');
  const swatches: Swatch[] = [];
  const marks: Markish[] = [];
  if (chart.curve !== undefined) {
    swatches.push({ label: chart.curve.label, colour: REFERENCE_COLOUR, shape: 'dashed' });
    marks.push(Plot.line(curve, { stroke: REFERENCE_COLOUR, strokeDasharray: '5 4', strokeWidth: 1.4 }));
  }
  chart.series.forEach((series, i) => {
    const colour = CATEGORY_COLOURS[i % CATEGORY_COLOURS.length];
    if (chart.series.length > 1) swatches.push({ label: series.name, colour, shape: 'dot' });
    const place = (point: { x: number; y: number }): string => `${formatNumber(point.x)}, ${formatNumber(point.y)}`;
    marks.push(
      Plot.dot(points[i], {
        x: 'x',
        y: 'y',
        r: series.radius ?? 3,
        fill: colour,
        fillOpacity: all.length > CROWD ? 0.4 : 0.8,
        title: (point: { x: number; y: number; label?: string }) => `${point.label ?? series.name}: ${place(point)}`,
      }),
    );
  });
  const margins = { marginLeft: leftMargin(yAxis), marginRight: 20, marginTop: 26, marginBottom: 38 };
  const inner = width - margins.marginLeft - margins.marginRight;
  const square = chart.square === true;
  const ratio = (yAxis.high - yAxis.low) / (xAxis.high - xAxis.low);
  const options: PlotOptions = {
    width,
    height: square
      ? Math.min(2 * width, inner * ratio + margins.marginTop + margins.marginBottom)
      : (chart.height ?? 250),
    ...margins,
    x: { ...xAxis.options, labelAnchor: 'center', labelArrow: 'none' },
    y: { ...yAxis.options, labelArrow: 'none' },
    marks,
  };
  return plotPanel({ ...header, legend: { swatches } }, options);
}
