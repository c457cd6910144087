import type { Markish } from '@observablehq/plot';
import { fitAxis, leftMargin } from './axis.js';
import { schemeColours } from './colours.js';
import { formatTick, linearTicks } from './numbers.js';
import type { Panel } from './panel.js';
import { FULL_WIDTH, plotPanel } from './panel.js';

/** An ellipse with its axes along those of the chart; `share` (0..1) sets its strength. */
export interface LandscapeEllipse {
  readonly x: number;
  readonly y: number;
  readonly radiusX: number;
  readonly radiusY: number;
  readonly share: number;
}

/** A function of two continuous variables as colours, with ellipses and points above it. */
export interface LandscapeChart {
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
  readonly ellipses: readonly LandscapeEllipse[];
  readonly ellipseLabel: string;
  readonly points: readonly { readonly x: number; readonly y: number }[];
  readonly pointLabel: string;
}

const OUTLINE = 49;

/** Cells, then ellipses from faint to strong, then points. */
export async function landscapeChart(chart: LandscapeChart): Promise<Panel> {
  const Plot = await import('@observablehq/plot');
  const { columns, rows, values } = chart;
  const palette = await schemeColours('viridis', 64);
  const sorted = values.slice().sort();
  // A zero is a pole of the logarithm: the lowest cells share one colour.
  const low = sorted[Math.floor(0.01 * sorted.length)];
  const high = sorted[sorted.length - 1];
  const colourOf = (value: number): string =>
    palette[Math.max(0, Math.min(63, Math.round((63 * (value - low)) / (high - low || 1))))];
  const [stepX, stepY] = [(chart.x[1] - chart.x[0]) / columns, (chart.y[1] - chart.y[0]) / rows];
  const cells = Array.from(values, (value, i) => {
    const [x, y] = [chart.x[0] + (i % columns) * stepX, chart.y[0] + Math.floor(i / columns) * stepY];
    return { x1: x, x2: x + stepX, y1: y, y2: y + stepY, value };
  });
  const marks: Markish[] = [
    Plot.rect(cells, {
      x1: 'x1',
      x2: 'x2',
      y1: 'y1',
      y2: 'y2',
      fill: ({ value }: { value: number }) => colourOf(value),
      // Neighbours overlap by half a pixel, or seams shine through.
      insetRight: -0.5,
      insetBottom: -0.5,
    }),
  ];
  for (const { x, y, radiusX, radiusY, share } of chart.ellipses) {
    const outline = Array.from({ length: OUTLINE }, (_, i) => {
      const angle = (2 * Math.PI * i) / (OUTLINE - 1);
      return [x + radiusX * Math.cos(angle), y + radiusY * Math.sin(angle)];
    });
    marks.push(
      Plot.line(outline, { stroke: 'white', strokeOpacity: 0.25 + 0.75 * share, strokeWidth: 1.1, clip: true }),
    );
  }
  marks.push(Plot.dot(chart.points, { x: 'x', y: 'y', r: 3, fill: '#d55e00', stroke: 'white', strokeWidth: 1 }));
  const axis = (label: string, [from, to]: readonly [number, number]) =>
    fitAxis({ label, low: from, high: to, grid: false }, [from, to]);
  const [xAxis, yAxis] = [axis(chart.xLabel, chart.x), axis(chart.yLabel, chart.y)];
  return plotPanel(
    {
      title: chart.title,
      note: chart.note,
      legend: {
        swatches: [
          ...(chart.ellipses.length > 0
            ? [{ label: chart.ellipseLabel, colour: '#9aa0a6', shape: 'line' as const }]
            : []),
          ...(chart.points.length > 0
            ? [{ label: `${chart.pointLabel} (${chart.points.length})`, colour: '#d55e00', shape: 'dot' as const }]
            : []),
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
      height: 320,
      marginLeft: yAxis ? leftMargin(yAxis) + 8 : 40,
      marginRight: 20,
      marginTop: 22,
      marginBottom: 38,
      x: { ...xAxis?.options, labelAnchor: 'center', labelArrow: 'none' },
      y: { ...yAxis?.options, labelArrow: 'none' },
      marks,
    },
  );
}
