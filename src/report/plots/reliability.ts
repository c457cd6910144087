import type { Markish } from '@observablehq/plot';
import { fitAxis, leftMargin } from './axis.js';
import { CATEGORY_COLOURS, REFERENCE_COLOUR } from './colours.js';
import { formatNumber } from './numbers.js';
import type { Panel } from './panel.js';
import { emptyPanel, HALF_WIDTH, plotPanel } from './panel.js';

/** One bin of a reliability curve: what was predicted on average and what came, with its standard error. */
export interface ReliabilityBin {
  readonly predicted: number;
  readonly observed: number;
  readonly standardError: number;
  readonly count: number;
}

export interface ReliabilityChart {
  readonly title: string;
  readonly note?: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly items: string;
  readonly bins: readonly ReliabilityBin[];
  /** Probabilities: both axes run from 0 to 1. Otherwise they start at 0 and follow the data. */
  readonly probability: boolean;
  readonly width?: number;
  readonly height?: number;
}

/** Predicted against observed with the line of perfect calibration; the area of a dot is the bin's share. */
export async function reliabilityChart(chart: ReliabilityChart): Promise<Panel> {
  const width = chart.width ?? HALF_WIDTH;
  const header = { title: chart.title, note: chart.note };
  const bins = chart.bins.filter(
    ({ count, predicted, observed }) => count > 0 && Number.isFinite(predicted) && Number.isFinite(observed),
  );
  if (bins.length === 0) return emptyPanel(header, `no ${chart.items} to compare`, width);
  const ends = bins.flatMap(({ observed, standardError }) =>
    Number.isFinite(standardError) ? [observed + standardError, observed - standardError] : [observed],
  );
  const fixed = chart.probability ? { low: 0, high: 1 } : { zero: true };
  const xAxis = fitAxis(
    { ...fixed, label: chart.xLabel, ticks: 6, grid: true },
    bins.map(({ predicted }) => predicted),
  )!;
  const yAxis = fitAxis({ ...fixed, label: chart.yLabel, ticks: 6 }, ends)!;
  const Plot = await import('@observablehq/plot');
  const total = bins.reduce((sum, { count }) => sum + count, 0);
  const colour = CATEGORY_COLOURS[0];
  const top = Math.min(xAxis.high, yAxis.high);
  const withError = bins.filter(({ standardError }) => Number.isFinite(standardError) && standardError > 0);
  const clamp = (value: number): number => Math.min(yAxis.high, Math.max(yAxis.low, value));
  const marks: Markish[] = [
    Plot.line(
      [
        [0, 0],
        [top, top],
      ],
      { stroke: REFERENCE_COLOUR, strokeDasharray: '5 4', strokeWidth: 1.4 },
    ),
    Plot.line(bins, { x: 'predicted', y: 'observed', stroke: colour, strokeWidth: 1.2, strokeOpacity: 0.6 }),
    Plot.ruleX(withError, {
      x: 'predicted',
      y1: (bin: ReliabilityBin) => clamp(bin.observed - bin.standardError),
      y2: (bin: ReliabilityBin) => clamp(bin.observed + bin.standardError),
      stroke: colour,
      strokeWidth: 1.6,
    }),
    Plot.dot(bins, {
      x: 'predicted',
      y: 'observed',
      r: (bin: ReliabilityBin) => Math.max(1.8, 10 * Math.sqrt(bin.count / total)),
      fill: colour,
      fillOpacity: 0.85,
      title: (bin: ReliabilityBin) =>
        `${formatNumber(bin.count)} ${chart.items}: predicted ${formatNumber(bin.predicted)}, observed ${formatNumber(bin.observed)} \u00b1 ${formatNumber(bin.standardError, 2)}`,
    }),
  ];
  return plotPanel(
    {
      ...header,
      legend: {
        swatches: [
          { label: 'perfectly calibrated', colour: REFERENCE_COLOUR, shape: 'dashed' },
          { label: `${chart.items} (area: share), \u00b1 1 s.e.`, colour, shape: 'dot' },
        ],
      },
    },
    {
      width,
      height: chart.height ?? 300,
      marginLeft: leftMargin(yAxis),
      marginRight: 20,
      marginTop: 26,
      marginBottom: 38,
      r: { type: 'identity' },
      x: { ...xAxis.options, labelAnchor: 'center', labelArrow: 'none' },
      y: { ...yAxis.options, labelArrow: 'none' },
      marks,
    },
  );
}
