import type { Markish } from '@observablehq/plot';
import { fitAxis, leftMargin } from './axis.js';
import { schemeColours } from './colours.js';
import { formatTick, linearTicks } from './numbers.js';
import type { Panel } from './panel.js';
import { FULL_WIDTH, plotPanel } from './panel.js';

/** A point that has a name, with the ends of its intervals where they are known. */
export interface ContourMark {
  readonly label: string;
  readonly x: number;
  readonly y: number;
  readonly xInterval?: readonly [number, number];
  readonly yInterval?: readonly [number, number];
  readonly colour: string;
}

/** A function of two variables as filled contours, with the data and named points above it. */
export interface ContourChart {
  readonly title: string;
  readonly note?: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly valueLabel: string;
  readonly x: readonly [low: number, high: number];
  readonly y: readonly [low: number, high: number];
  /** [rows, columns] row-major at the centres of cells; rows from low to high y. */
  readonly values: Float64Array;
  readonly columns: number;
  readonly rows: number;
  readonly points: readonly { readonly x: number; readonly y: number }[];
  readonly pointLabel: string;
  readonly marks: readonly ContourMark[];
  /** Points of another kind, drawn as circles. */
  readonly trail?: {
    readonly label: string;
    readonly x: ArrayLike<number>;
    readonly y: ArrayLike<number>;
    readonly colour: string;
  };
}

const LEVELS = 12;

/** Contours, data points, points of another kind, then the named points with their intervals as crosses. */
export async function contourChart(chart: ContourChart): Promise<Panel> {
  const Plot = await import('@observablehq/plot');
  const { values, columns, rows } = chart;
  const [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  const palette = await schemeColours('ylgnbu', LEVELS, 0.05, 0.75);
  const ends = (range: readonly [number, number], places: readonly number[]): [number, number] => [
    Math.min(range[0], ...places),
    Math.max(range[1], ...places),
  ];
  const xEnds = ends(chart.x, [...chart.marks.map(({ x }) => x), ...Array.from(chart.trail?.x ?? [])]);
  const yEnds = ends(chart.y, [...chart.marks.map(({ y }) => y), ...Array.from(chart.trail?.y ?? [])]);
  const xAxis = fitAxis({ label: chart.xLabel, low: xEnds[0], high: xEnds[1], grid: false }, xEnds);
  const yAxis = fitAxis({ label: chart.yLabel, low: yEnds[0], high: yEnds[1], grid: false }, yEnds);
  const marks: Markish[] = [
    Plot.contour(values, {
      width: columns,
      height: rows,
      x1: chart.x[0],
      x2: chart.x[1],
      y1: chart.y[0],
      y2: chart.y[1],
      fill: Plot.identity,
      thresholds: LEVELS,
      stroke: 'white',
      strokeOpacity: 0.5,
      strokeWidth: 0.7,
    }),
    Plot.dot(chart.points, {
      x: 'x',
      y: 'y',
      r: 2,
      fill: '#333333',
      fillOpacity: chart.points.length > 300 ? 0.25 : 0.5,
    }),
  ];
  if (chart.trail !== undefined) {
    const { x, y, colour } = chart.trail;
    const places = Array.from(x, (value, i) => [value, y[i]]);
    marks.push(Plot.dot(places, { r: 3.2, stroke: colour, strokeWidth: 1.6 }));
  }
  for (const { x, y, xInterval, yInterval, colour, label } of chart.marks) {
    const clip = (
      [from, to]: readonly [number, number],
      [first, last]: readonly [number, number],
    ): [number, number] => [Math.max(first, from), Math.min(last, to)];
    if (xInterval !== undefined) {
      const [from, to] = clip(xInterval, xEnds);
      marks.push(Plot.ruleY([y], { x1: from, x2: to, stroke: colour, strokeWidth: 2 }));
    }
    if (yInterval !== undefined) {
      const [from, to] = clip(yInterval, yEnds);
      marks.push(Plot.ruleX([x], { y1: from, y2: to, stroke: colour, strokeWidth: 2 }));
    }
    marks.push(
      Plot.dot([{ x, y }], {
        x: 'x',
        y: 'y',
        r: 5,
        fill: colour,
        stroke: 'white',
        strokeWidth: 1.3,
        title: () => label,
      }),
    );
  }
  return plotPanel(
    {
      title: chart.title,
      note: chart.note,
      legend: {
        swatches: [
          { label: `${chart.pointLabel} (${chart.points.length})`, colour: '#333333', shape: 'dot' },
          ...chart.marks.map(({ label, colour }) => ({ label, colour, shape: 'dot' as const })),
          ...(chart.trail === undefined
            ? []
            : [{ label: chart.trail.label, colour: chart.trail.colour, shape: 'dot' as const }]),
        ],
        ramps: [
          {
            label: chart.valueLabel,
            colours: palette,
            ticks: linearTicks(low, high, 4).map((value) => ({
              at: (value - low) / (high - low || 1),
              label: formatTick(value),
            })),
          },
        ],
      },
    },
    {
      width: FULL_WIDTH,
      height: 380,
      marginLeft: yAxis ? leftMargin(yAxis) + 8 : 40,
      marginRight: 20,
      marginTop: 26,
      marginBottom: 38,
      color: { type: 'quantize', domain: [low, high], range: palette },
      x: { ...xAxis?.options, labelAnchor: 'center', labelArrow: 'none' },
      y: { ...yAxis?.options, labelArrow: 'none' },
      marks,
    },
  );
}
