import { type AxisScale, fitAxis, leftMargin } from './axis.js';
import { CATEGORY_COLOURS } from './colours.js';
import type { Swatch } from './legend.js';
import { formatNumber } from './numbers.js';
import { emptyPanel, HALF_WIDTH, type Panel, plotPanel } from './panel.js';

/** Bars side by side over common places, one colour a series. */
export interface GroupedBars {
  readonly title: string;
  readonly note?: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly yScale?: AxisScale;
  /** Names of the places, in order. */
  readonly places: readonly string[];
  /** `values` has one entry a place; NaN leaves it empty. */
  readonly series: readonly { readonly name: string; readonly values: ArrayLike<number> }[];
  readonly width?: number;
  readonly height?: number;
}

interface Bar {
  readonly from: number;
  readonly to: number;
  readonly value: number;
  readonly colour: string;
  readonly text: string;
}

/** Part of a place that its bars fill. */
const FILLED = 0.8;
/** Most names below the axis; of more, every second, third, ... is written. */
const MOST_NAMES = 24;

/** Grouped vertical bars; on a logarithmic axis they start at its lower end. */
export async function groupedBars(chart: GroupedBars): Promise<Panel> {
  const width = chart.width ?? HALF_WIDTH;
  const header = { title: chart.title, note: chart.note };
  const values = chart.series.flatMap((series) => Array.from(series.values)).filter(Number.isFinite);
  const yAxis = fitAxis({ scale: chart.yScale, label: chart.yLabel, zero: chart.yScale !== 'log' }, values);
  if (yAxis === undefined || values.length === 0) return emptyPanel(header, 'no values to draw', width);
  const Plot = await import('@observablehq/plot');
  const step = FILLED / chart.series.length;
  const bars = chart.series.flatMap((series, s) =>
    chart.places.flatMap((place, p): Bar[] => {
      const value = series.values[p];
      if (!Number.isFinite(value)) return [];
      const from = p + (1 - FILLED) / 2 + s * step;
      const colour = CATEGORY_COLOURS[s % CATEGORY_COLOURS.length];
      return [{ from, to: from + step, value, colour, text: `${series.name}, ${place}: ${formatNumber(value)}` }];
    }),
  );
  const swatches = chart.series.map(
    ({ name }, s): Swatch => ({ label: name, colour: CATEGORY_COLOURS[s % CATEGORY_COLOURS.length], shape: 'bar' }),
  );
  const every = Math.ceil(chart.places.length / MOST_NAMES);
  const ticks = chart.places.map((_, p) => p).filter((p) => p % every === 0);
  return plotPanel(
    { ...header, legend: swatches.length > 1 ? { swatches } : {} },
    {
      width,
      height: chart.height ?? 250,
      marginLeft: leftMargin(yAxis),
      marginRight: 20,
      marginTop: 26,
      marginBottom: 38,
      x: {
        domain: [0, chart.places.length],
        ticks: ticks.map((p) => p + 0.5),
        tickFormat: (x: number) => chart.places[Math.floor(x)] ?? '',
        tickSize: 0,
        label: chart.xLabel,
        labelAnchor: 'center',
        labelArrow: 'none',
      },
      y: { ...yAxis.options, labelArrow: 'none' },
      marks: [
        Plot.rect(bars, {
          x1: 'from',
          x2: 'to',
          y1: () => (chart.yScale === 'log' ? yAxis.low : 0),
          y2: 'value',
          fill: (bar: Bar) => bar.colour,
          title: 'text',
          insetRight: 0.5,
        }),
      ],
      color: { type: 'identity' },
    },
  );
}
