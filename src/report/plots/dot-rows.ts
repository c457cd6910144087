import type { Markish } from '@observablehq/plot';
import { type AxisScale, fitAxis } from './axis.js';
import { CATEGORY_COLOURS } from './colours.js';
import type { Swatch } from './legend.js';
import { formatNumber } from './numbers.js';
import { emptyPanel, FULL_WIDTH, type Panel, plotPanel } from './panel.js';
import { shortenMiddle, textWidth } from './text-layout.js';

/** Dots on rows with names, one colour a series: what bars show, where names are long or the axis is logarithmic. */
export interface DotRows {
  readonly title: string;
  readonly note?: string;
  readonly xLabel: string;
  readonly xScale?: AxisScale;
  /** Whether zero is on a linear axis; default true. */
  readonly zero?: boolean;
  /** Names of the rows, from above. */
  readonly rows: readonly string[];
  /** `values` has one entry a row; NaN leaves it empty. Standard errors are drawn as lines to both sides. */
  readonly series: readonly {
    readonly name: string;
    readonly values: ArrayLike<number>;
    readonly standardErrors?: ArrayLike<number>;
  }[];
  readonly width?: number;
}

interface Dot {
  readonly row: string;
  readonly value: number;
  readonly low: number;
  readonly high: number;
  readonly colour: string;
  readonly text: string;
}

const STEP = 19;
const LABEL_SIZE = 11;
const LONGEST_NAME = 56;

/** Rows under each other over one axis. */
export async function dotRows(chart: DotRows): Promise<Panel> {
  const width = chart.width ?? FULL_WIDTH;
  const header = { title: chart.title, note: chart.note };
  const names = chart.rows.map((name) => shortenMiddle(name, LONGEST_NAME));
  const dots = chart.series.flatMap((series, s) =>
    names.flatMap((row, r): Dot[] => {
      const value = series.values[r];
      if (!Number.isFinite(value)) return [];
      const error = series.standardErrors?.[r] ?? 0;
      const colour = CATEGORY_COLOURS[s % CATEGORY_COLOURS.length];
      const text = `${series.name}, ${chart.rows[r]}: ${formatNumber(value)}`;
      const low = chart.xScale === 'log' && value <= error ? value : value - error;
      return [{ row, value, low, high: value + error, colour, text }];
    }),
  );
  const axis = fitAxis(
    { scale: chart.xScale, label: chart.xLabel, zero: chart.xScale !== 'log' && chart.zero !== false, ticks: 7 },
    dots.flatMap(({ low, high }) => [low, high]),
  );
  if (axis === undefined || dots.length === 0) return emptyPanel(header, 'no values to draw', width);
  const Plot = await import('@observablehq/plot');
  const marks: Markish[] = [
    Plot.gridX({ strokeOpacity: 0.1 }),
    Plot.ruleY(names, { strokeOpacity: 0.12 }),
    Plot.ruleY(dots, { y: 'row', x1: 'low', x2: 'high', stroke: (dot: Dot) => dot.colour, strokeWidth: 1.5 }),
    Plot.dot(dots, { y: 'row', x: 'value', r: 4, fill: (dot: Dot) => dot.colour, stroke: 'white', title: 'text' }),
  ];
  const swatches = chart.series.map(
    ({ name }, s): Swatch => ({ label: name, colour: CATEGORY_COLOURS[s % CATEGORY_COLOURS.length], shape: 'dot' }),
  );
  return plotPanel(
    { ...header, legend: swatches.length > 1 ? { swatches } : {} },
    {
      width,
      height: STEP * names.length + 64,
      marginLeft: Math.ceil(Math.max(...names.map((name) => textWidth(name, LABEL_SIZE)))) + 14,
      marginRight: 24,
      marginTop: 12,
      marginBottom: 40,
      x: { ...axis.options, labelAnchor: 'center', labelArrow: 'none' },
      y: { type: 'band', domain: names, label: null, tickSize: 0 },
      color: { type: 'identity' },
      marks,
    },
  );
}
