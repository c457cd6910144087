import type { Markish } from '@observablehq/plot';
import { fitAxis, leftMargin } from './axis.js';
import { CATEGORY_COLOURS, schemeColours } from './colours.js';
import type { Swatch } from './legend.js';
import { formatNumber, formatTick, logTicks } from './numbers.js';
import type { Panel } from './panel.js';
import { emptyPanel, HALF_WIDTH, plotPanel } from './panel.js';

/** Two-dimensional bins: `counts[i * (yEdges.length - 1) + j]` items lie in x bin i and y bin j. */
export interface Density {
  readonly xEdges: ArrayLike<number>;
  readonly yEdges: ArrayLike<number>;
  readonly counts: ArrayLike<number>;
}

export interface DensityChart {
  readonly title: string;
  readonly note?: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly items: string;
  readonly density: Density;
  /** A line to compare with: `identity` is y = x, `zero` is y = 0. */
  readonly line?: 'identity' | 'zero';
  readonly lineLabel?: string;
  readonly width?: number;
  readonly height?: number;
}

interface Cell {
  readonly x1: number;
  readonly x2: number;
  readonly y1: number;
  readonly y2: number;
  readonly count: number;
}

function occupied({ xEdges, yEdges, counts }: Density): Cell[] {
  const columns = yEdges.length - 1;
  const cells: Cell[] = [];
  for (let i = 0; i + 1 < xEdges.length; i++) {
    for (let j = 0; j < columns; j++) {
      const count = counts[i * columns + j];
      if (count > 0) cells.push({ x1: xEdges[i], x2: xEdges[i + 1], y1: yEdges[j], y2: yEdges[j + 1], count });
    }
  }
  return cells;
}

/** Counts in two-dimensional bins, coloured on a logarithmic scale. */
export async function densityChart(chart: DensityChart): Promise<Panel> {
  const width = chart.width ?? HALF_WIDTH;
  const header = { title: chart.title, note: chart.note };
  const cells = occupied(chart.density);
  const xAxis = fitAxis(
    { label: chart.xLabel, ticks: width < HALF_WIDTH ? 6 : 8, grid: false, nice: false },
    cells.flatMap(({ x1, x2 }) => [x1, x2]),
  );
  const yAxis = fitAxis(
    { label: chart.yLabel, ticks: 7, grid: false, nice: false, zero: chart.line === 'zero' },
    cells.flatMap(({ y1, y2 }) => [y1, y2]),
  );
  if (xAxis === undefined || yAxis === undefined) return emptyPanel(header, `no ${chart.items} to count`, width);
  const Plot = await import('@observablehq/plot');
  const most = cells.reduce((max, { count }) => Math.max(max, count), 0);
  const least = cells.reduce((min, { count }) => Math.min(min, count), most);
  const high = Math.max(most, least * 10);
  const marks: Markish[] = [
    Plot.rect(cells, {
      x1: 'x1',
      x2: 'x2',
      y1: 'y1',
      y2: 'y2',
      fill: 'count',
      // A little overlap hides the seams that antialiasing draws between neighbours.
      inset: -0.3,
      title: ({ x1, x2, y1, y2, count }: Cell) =>
        `${formatNumber(count)} ${chart.items}: ${formatNumber(x1)} to ${formatNumber(x2)}, ${formatNumber(y1)} to ${formatNumber(y2)}`,
    }),
  ];
  const swatches: Swatch[] = [];
  const lineColour = CATEGORY_COLOURS[1];
  if (chart.line !== undefined) {
    const ends =
      chart.line === 'zero'
        ? [
            [xAxis.low, 0],
            [xAxis.high, 0],
          ]
        : [Math.max(xAxis.low, yAxis.low), Math.min(xAxis.high, yAxis.high)].map((value) => [value, value]);
    if (ends[0][0] < ends[1][0]) marks.push(Plot.line(ends, { stroke: lineColour, strokeWidth: 1.8 }));
    const label = chart.lineLabel ?? (chart.line === 'zero' ? 'no change' : 'y = x');
    swatches.push({ label, colour: lineColour, shape: 'line' });
  }
  marks.push(Plot.frame({ stroke: 'currentColor', strokeOpacity: 0.35 }));
  const span = Math.log(high / least);
  const ramp = {
    label: `${chart.items} in a bin`,
    colours: await schemeColours('viridis', 40),
    ticks: logTicks(least, high, 4).map((value) => ({ at: Math.log(value / least) / span, label: formatTick(value) })),
  };
  return plotPanel(
    { ...header, legend: { swatches, ramps: [ramp] } },
    {
      width,
      height: chart.height ?? 330,
      marginLeft: leftMargin(yAxis),
      marginRight: 20,
      marginTop: 26,
      marginBottom: 38,
      color: { type: 'log', domain: [least, high], scheme: 'viridis' },
      x: { ...xAxis.options, labelAnchor: 'center', labelArrow: 'none' },
      y: { ...yAxis.options, labelArrow: 'none' },
      marks,
    },
  );
}
