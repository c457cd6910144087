import type { Markish } from '@observablehq/plot';
import { CATEGORY_COLOURS, schemeColours } from './colours.js';
import { formatNumber } from './numbers.js';
import type { Panel } from './panel.js';
import { emptyPanel, HALF_WIDTH, plotPanel } from './panel.js';

/** Shares that sum to 1, stacked, each held until the next x: proportions over the rounds of a run. */
export interface ShareAreas {
  readonly title: string;
  readonly note?: string;
  readonly xLabel: string;
  readonly classes: readonly string[];
  /** Where each row of shares begins, ascending, and where the last one ends. */
  readonly x: ArrayLike<number>;
  readonly end: number;
  /** [x.length, classes], row-major. */
  readonly shares: ArrayLike<number>;
  readonly width?: number;
  readonly height?: number;
}

interface Step {
  readonly from: number;
  readonly to: number;
  readonly low: number;
  readonly high: number;
  readonly colour: string;
  readonly title: string;
}

/** Stacked steps, the first class at the bottom; with a mark at the even shares of each class. */
export async function shareAreas(chart: ShareAreas): Promise<Panel> {
  const width = chart.width ?? HALF_WIDTH;
  const header = { title: chart.title, note: chart.note };
  const k = chart.classes.length;
  if (chart.x.length === 0 || k === 0) return emptyPanel(header, 'nothing to divide', width);
  const Plot = await import('@observablehq/plot');
  const colours = k <= CATEGORY_COLOURS.length ? CATEGORY_COLOURS : await schemeColours('viridis', k, 0.1, 0.95);
  const steps: Step[] = [];
  for (let r = 0; r < chart.x.length; r++) {
    let low = 0;
    for (let j = 0; j < k; j++) {
      const share = chart.shares[r * k + j];
      const from = chart.x[r];
      const to = r + 1 < chart.x.length ? chart.x[r + 1] : chart.end;
      const title = `${chart.classes[j]} from ${formatNumber(from)}: ${formatNumber(share)}`;
      steps.push({ from, to, low, high: low + share, colour: colours[j], title });
      low += share;
    }
  }
  const even = Array.from({ length: k - 1 }, (_, j) => (j + 1) / k);
  const marks: Markish[] = [
    Plot.rect(steps, {
      x1: 'from',
      x2: 'to',
      y1: 'low',
      y2: 'high',
      fill: 'colour',
      fillOpacity: 0.85,
      title: 'title',
    }),
    Plot.ruleY(even, { stroke: '#ffffff', strokeDasharray: '4 4', strokeWidth: 1 }),
  ];
  const swatches = chart.classes.map((label, j) => ({ label, colour: colours[j], shape: 'bar' as const }));
  return plotPanel(
    { ...header, legend: { swatches } },
    {
      width,
      height: chart.height ?? 250,
      marginLeft: 44,
      marginRight: 20,
      marginTop: 26,
      marginBottom: 38,
      color: { type: 'identity' },
      x: {
        domain: [chart.x[0], chart.end],
        label: chart.xLabel,
        labelAnchor: 'center',
        labelArrow: 'none',
        ticks: width > HALF_WIDTH ? 12 : 7,
      },
      y: { domain: [0, 1], label: 'proportion', labelArrow: 'none', ticks: 5 },
      marks,
    },
  );
}
