import type { Markish } from '@observablehq/plot';
import { fitAxis, leftMargin } from './axis.js';
import { CATEGORY_COLOURS, REFERENCE_COLOUR } from './colours.js';
import type { Swatch } from './legend.js';
import { formatNumber } from './numbers.js';
import type { Panel } from './panel.js';
import { emptyPanel, HALF_WIDTH, plotPanel } from './panel.js';

/** `counts[i]` items lie in [edges[i], edges[i+1]); `edges` increase and are one longer than `counts`. */
export interface Histogram {
  readonly edges: ArrayLike<number>;
  readonly counts: ArrayLike<number>;
  /** Items outside of all edges (infinite ones too): counted in the total, named in the note. */
  readonly below?: number;
  readonly above?: number;
}

export interface HistogramSeries {
  readonly name: string;
  readonly histogram: Histogram;
  /** Drawn as a dashed vertical line. */
  readonly mean?: number;
}

/** A law that a histogram is compared with: `y` is its density at `x`, scaled to the share that its items have. */
export interface DensityCurve {
  readonly label: string;
  readonly x: ArrayLike<number>;
  readonly y: ArrayLike<number>;
}

/** A value on the axis; `shown` is what the legend says of it, the value itself when absent. */
export interface MarkedValue {
  readonly value: number;
  readonly label: string;
  readonly shown?: string;
}

export interface HistogramChart {
  readonly title: string;
  readonly note?: string;
  /** The quantity with its unit, as it stands on the axis. */
  readonly xLabel: string;
  readonly xScale?: 'linear' | 'log';
  /** The unit of a linear axis and what is counted: `nat`, `tokens`. */
  readonly unit: string;
  readonly items: string;
  readonly series: readonly HistogramSeries[];
  /** Values that the axis shows as lines, such as what was observed. */
  readonly marked?: MarkedValue | readonly MarkedValue[];
  /** Densities that the outlines are held against, dashed; those of one label share a legend entry. */
  readonly curves?: readonly DensityCurve[];
  readonly width?: number;
  readonly height?: number;
}

interface Vertex {
  readonly x: number;
  readonly y: number;
}

/** On a linear axis the last bins that together hold less than this share are cut off and counted in the note. */
const TAIL_SHARE = 0.001;

/** The same histogram without its far right tail, whose items move to `above`. */
export function withoutTail(histogram: Histogram): Histogram {
  const { edges, counts } = histogram;
  let total = (histogram.below ?? 0) + (histogram.above ?? 0);
  for (let i = 0; i < counts.length; i++) total += counts[i];
  let kept = counts.length;
  let tail = 0;
  while (kept > 1 && tail + counts[kept - 1] <= TAIL_SHARE * total) tail += counts[--kept];
  if (tail === 0) return histogram;
  return {
    ...histogram,
    edges: Array.from({ length: kept + 1 }, (_, i) => edges[i]),
    counts: Array.from({ length: kept }, (_, i) => counts[i]),
    above: (histogram.above ?? 0) + tail,
  };
}

/**
 * Outline of a histogram as a density: share of all items for each unit of x (each factor of ten on a logarithmic
 * axis), so that bins of different widths can be compared and the area is the share.
 */
export function densityOutline(histogram: Histogram, log: boolean): Vertex[] {
  const { edges, counts } = histogram;
  let total = (histogram.below ?? 0) + (histogram.above ?? 0);
  let first = -1;
  let last = -1;
  for (let i = 0; i < counts.length; i++) {
    total += counts[i];
    if (counts[i] > 0) {
      if (first < 0) first = i;
      last = i;
    }
  }
  if (first < 0) return [];
  const vertices: Vertex[] = [{ x: edges[first], y: 0 }];
  for (let i = first; i <= last; i++) {
    const size = log ? Math.log10(edges[i + 1] / edges[i]) : edges[i + 1] - edges[i];
    const y = counts[i] / total / size;
    vertices.push({ x: edges[i], y }, { x: edges[i + 1], y });
  }
  vertices.push({ x: edges[last + 1], y: 0 });
  return vertices;
}

function outsideNote(names: readonly string[], histograms: readonly Histogram[], items: string): string {
  const parts = histograms.flatMap(({ below = 0, above = 0 }, i) => {
    const sides = [
      ...(below > 0 ? [`${formatNumber(below)} to the left`] : []),
      ...(above > 0 ? [`${formatNumber(above)} to the right`] : []),
    ];
    return sides.length === 0 ? [] : [`${names.length > 1 ? `${names[i]} ` : ''}${sides.join(', ')}`];
  });
  return parts.length === 0 ? '' : `Beyond the axis (${items}): ${parts.join('; ')}.`;
}

/** One or several histograms over the same axis as filled outlines, with their means. */
export async function histogramChart(chart: HistogramChart): Promise<Panel> {
  const width = chart.width ?? HALF_WIDTH;
  const log = chart.xScale === 'log';
  const marked = [chart.marked ?? []].flat();
  const names = chart.series.map(({ name }) => name);
  const histograms = chart.series.map(({ histogram }) => (log ? histogram : withoutTail(histogram)));
  const outside = outsideNote(names, histograms, chart.items);
  const note = [chart.note ?? '', outside].filter((part) => part !== '').join(' ');
  const header = { title: chart.title, note: note === '' ? undefined : note };
  const outlines = histograms.map((histogram) => densityOutline(histogram, log));
  const vertices = outlines.flat();
  const xAxis = fitAxis({ scale: chart.xScale, label: chart.xLabel, ticks: 8, grid: false, nice: false }, [
    ...vertices.map(({ x }) => x),
    ...marked.map(({ value }) => value),
  ]);
  const perUnit = `share of ${chart.items} per ${log ? 'factor of ten' : chart.unit}`;
  const yAxis = fitAxis({ label: perUnit, zero: true }, [
    ...vertices.map(({ y }) => y),
    ...(chart.curves ?? []).flatMap(({ y }) => Array.from(y)),
  ]);
  if (xAxis === undefined || yAxis === undefined) return emptyPanel(header, `no ${chart.items} to count`, width);
  const Plot = await import('@observablehq/plot');
  const marks: Markish[] = [];
  const swatches: Swatch[] = [];
  chart.series.forEach(({ name, mean }, i) => {
    const colour = CATEGORY_COLOURS[i % CATEGORY_COLOURS.length];
    const shown = mean !== undefined && Number.isFinite(mean);
    swatches.push({ label: shown ? `${name}, mean ${formatNumber(mean)}` : name, colour, shape: 'area' });
    if (outlines[i].length === 0) return;
    marks.push(
      Plot.areaY(outlines[i], { x: 'x', y1: 0, y2: 'y', fill: colour, fillOpacity: 0.28 }),
      Plot.line(outlines[i], { x: 'x', y: 'y', stroke: colour, strokeWidth: 1.4, strokeLinejoin: 'miter' }),
    );
    if (shown && mean >= xAxis.low && mean <= xAxis.high) {
      marks.push(Plot.ruleX([mean], { stroke: colour, strokeDasharray: '5 3', strokeWidth: 1.6 }));
    }
  });
  (chart.curves ?? []).forEach(({ label, x, y }) => {
    const points = Array.from(x, (value, i) => ({ x: value, y: y[i] }));
    const shown = points.filter((point) => point.x >= xAxis.low && point.x <= xAxis.high);
    marks.push(
      Plot.line(shown, { x: 'x', y: 'y', stroke: REFERENCE_COLOUR, strokeWidth: 1.3, strokeDasharray: '5 3' }),
    );
    if (!swatches.some((swatch) => swatch.label === label)) {
      swatches.push({ label, colour: REFERENCE_COLOUR, shape: 'dashed' });
    }
  });
  for (const { value, label, shown = formatNumber(value) } of marked) {
    marks.push(Plot.ruleX([value], { stroke: REFERENCE_COLOUR, strokeDasharray: '5 4', strokeWidth: 1.8 }));
    swatches.push({ label: `${label}: ${shown}`, colour: REFERENCE_COLOUR, shape: 'dashed' });
  }
  marks.push(Plot.ruleY([0], { stroke: 'currentColor', strokeOpacity: 0.5 }));
  return plotPanel(
    { ...header, legend: { swatches } },
    {
      width,
      height: chart.height ?? 300,
      marginLeft: leftMargin(yAxis),
      marginRight: 20,
      marginTop: 26,
      marginBottom: 38,
      x: { ...xAxis.options, labelAnchor: 'center', labelArrow: 'none' },
      y: { ...yAxis.options, labelArrow: 'none' },
      marks,
    },
  );
}
