import type { Markish } from '@observablehq/plot';
import { fitAxis } from './axis.js';
import { CATEGORY_COLOURS, REFERENCE_COLOUR } from './colours.js';
import { formatNumber } from './numbers.js';
import type { Panel } from './panel.js';
import { emptyPanel, HALF_WIDTH, plotPanel } from './panel.js';
import { textWidth } from './text-layout.js';

/** One rung: an interval with its name, and the point that it is about. */
export interface LadderRung {
  readonly name: string;
  readonly low: number;
  readonly high: number;
  readonly point?: number;
  /** Drawn stronger than the others. */
  readonly chosen?: boolean;
}

export interface IntervalLadder {
  readonly title: string;
  readonly note?: string;
  readonly xLabel: string;
  readonly rungs: readonly LadderRung[];
  readonly reference?: { readonly label: string; readonly value: number };
  readonly width?: number;
}

const RUNG = 30;
const LABEL_SIZE = 11;

/** Intervals under each other over one axis, so that methods can be compared. */
export async function intervalLadder(ladder: IntervalLadder): Promise<Panel> {
  const width = ladder.width ?? HALF_WIDTH;
  const header = { title: ladder.title, note: ladder.note };
  const { reference } = ladder;
  const rungs = ladder.rungs.filter(({ low, high }) => Number.isFinite(low) && Number.isFinite(high));
  const ends = rungs.flatMap(({ low, high, point }) => (point === undefined ? [low, high] : [low, high, point]));
  const axis = fitAxis(
    { label: ladder.xLabel, ticks: 6, grid: true },
    reference === undefined ? ends : [...ends, reference.value],
  );
  if (axis === undefined) return emptyPanel(header, 'no intervals to draw', width);
  const Plot = await import('@observablehq/plot');
  const colour = CATEGORY_COLOURS[0];
  const marks: Markish[] = [];
  if (reference !== undefined) {
    marks.push(Plot.ruleX([reference.value], { stroke: REFERENCE_COLOUR, strokeDasharray: '5 4', strokeWidth: 1.4 }));
  }
  marks.push(
    Plot.ruleY(rungs, {
      y: 'name',
      x1: 'low',
      x2: 'high',
      stroke: colour,
      strokeWidth: (rung: LadderRung) => (rung.chosen === true ? 4 : 2),
      strokeOpacity: (rung: LadderRung) => (rung.chosen === true ? 1 : 0.6),
      title: (rung: LadderRung) => `${rung.name}: ${formatNumber(rung.low)} to ${formatNumber(rung.high)}`,
    }),
    Plot.dot(
      rungs.filter(({ point }) => point !== undefined),
      { x: 'point', y: 'name', r: 3.5, fill: colour, stroke: 'white' },
    ),
  );
  const swatches =
    reference === undefined
      ? []
      : [
          {
            label: `${reference.label}: ${formatNumber(reference.value)}`,
            colour: REFERENCE_COLOUR,
            shape: 'dashed' as const,
          },
        ];
  return plotPanel(
    { ...header, legend: { swatches } },
    {
      width,
      height: RUNG * rungs.length + 64,
      marginLeft: Math.ceil(Math.max(...rungs.map(({ name }) => textWidth(name, LABEL_SIZE)))) + 14,
      marginRight: 20,
      marginTop: 16,
      marginBottom: 38,
      x: { ...axis.options, labelAnchor: 'center', labelArrow: 'none' },
      y: { type: 'band', domain: rungs.map(({ name }) => name), label: null, tickSize: 0 },
      marks,
    },
  );
}
