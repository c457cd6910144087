import { inkOn, schemeColours } from './colours.js';
import type { Panel } from './panel.js';
import { emptyPanel, HALF_WIDTH, plotPanel } from './panel.js';
import { shortenMiddle, textWidth } from './text-layout.js';

/** Bars of one length, cut into the shares of ordered classes. */
export interface ShareBars {
  readonly title: string;
  readonly note?: string;
  /** Names of the classes in order, from low to high. */
  readonly classes: readonly string[];
  /** Shares of each bar, one a class; they sum to 1. */
  readonly bars: readonly { readonly name: string; readonly shares: ArrayLike<number> }[];
  readonly width?: number;
}

interface Segment {
  readonly bar: number;
  readonly from: number;
  readonly to: number;
  readonly colour: string;
  readonly label: string;
}

const LABEL_SIZE = 11;
const LONGEST_NAME = 34;
const BAR_STEP = 34;
const RIGHT = 28;

/** Stacked horizontal bars; bars without numbers (NaN) stay empty. */
export async function shareBars(chart: ShareBars): Promise<Panel> {
  const width = chart.width ?? HALF_WIDTH;
  const header = { title: chart.title, note: chart.note };
  const known = chart.bars.filter(({ shares }) => Number.isFinite(shares[0]));
  if (known.length === 0) return emptyPanel(header, 'nothing to divide', width);
  const Plot = await import('@observablehq/plot');
  const palette = await schemeColours('viridis', chart.classes.length, 0.1, 0.95);
  const names = chart.bars.map(({ name }) => shortenMiddle(name, LONGEST_NAME));
  const marginLeft = Math.ceil(Math.max(...names.map((name) => textWidth(name, LABEL_SIZE)))) + 12;
  const room = width - marginLeft - RIGHT;
  const segments: Segment[] = [];
  chart.bars.forEach(({ shares }, bar) => {
    let from = 0;
    chart.classes.forEach((_, i) => {
      const share = shares[i];
      if (!(share > 0)) return;
      const text = `${Math.round(100 * share)}%`;
      const label = textWidth(text, 10) + 6 <= share * room ? text : '';
      segments.push({ bar, from, to: from + share, colour: palette[i], label });
      from += share;
    });
  });
  const swatches = chart.classes.map((label, i) => ({ label, colour: palette[i], shape: 'bar' as const }));
  return plotPanel(
    { ...header, legend: { swatches } },
    {
      width,
      height: 34 + BAR_STEP * chart.bars.length,
      marginLeft,
      marginRight: RIGHT,
      marginTop: 6,
      marginBottom: 28,
      color: { type: 'identity' },
      x: { domain: [0, 1], ticks: [0, 0.25, 0.5, 0.75, 1], tickFormat: (t: number) => `${100 * t}%`, label: null },
      y: {
        type: 'band',
        domain: chart.bars.map((_, i) => i),
        tickFormat: (i: number) => names[i],
        tickSize: 0,
        padding: 0.2,
        label: null,
      },
      marks: [
        Plot.barX(segments, { x1: 'from', x2: 'to', y: 'bar', fill: 'colour', insetRight: 1 }),
        Plot.text(segments, {
          x: ({ from, to }: Segment) => (from + to) / 2,
          y: 'bar',
          text: 'label',
          fontSize: 10,
          fill: ({ colour }: Segment) => inkOn(colour),
          pointerEvents: 'none',
        }),
      ],
    },
  );
}
