import type { Density } from './density.js';
import { densityChart } from './density.js';
import type { Figure, FigureTable, HeadlineFigure, Section } from './figure.js';
import type { Histogram } from './histogram.js';
import { histogramChart } from './histogram.js';
import { tableMarkup } from './html-page.js';
import { lineChart } from './line-chart.js';
import type { Panel } from './panel.js';

/** One model held against the base. */
export interface ComparedModel {
  readonly name: string;
  /** KL(base || candidate) of single tokens over logarithmic bins, in nats; exact zeros belong in `below`. */
  readonly klHistogram: Histogram;
  readonly meanKlNats: number;
  readonly klByPosition: {
    readonly positions: ArrayLike<number>;
    readonly meanKlNats: ArrayLike<number>;
    readonly standardError?: ArrayLike<number>;
  };
  /** Entropy of the base along x, entropy of the candidate less that of the base along y, in nats. */
  readonly entropyChange?: Density;
}

/** What the figure of `analyze-entropy compare` is drawn from. */
export interface CompareFigureData {
  readonly title: string;
  readonly subtitle?: string;
  readonly headline: readonly HeadlineFigure[];
  readonly candidates: readonly ComparedModel[];
  /** One row a candidate. */
  readonly table: FigureTable;
}

/** More candidates than this have their change of entropy in the table alone. */
const MOST_DENSITIES = 6;

/** Whether the means of the candidates differ so much that a linear axis would show the largest alone. */
function farApart(candidates: readonly ComparedModel[]): boolean {
  const means = candidates.map(({ meanKlNats }) => meanKlNats).filter((mean) => Number.isFinite(mean) && mean > 0);
  return means.length > 1 && Math.max(...means) > 10 * Math.min(...means);
}

/** The figure of a comparison with a base model: KL over tokens and positions, change of entropy, the table. */
export async function compareFigure(data: CompareFigureData): Promise<Figure> {
  const { candidates } = data;
  const panels: Panel[] = [
    await histogramChart({
      title: 'Divergence from the base, token by token',
      note: 'KL(base \u2016 candidate); logarithmic. Means are dominated by the right tail.',
      xLabel: 'KL divergence, nats',
      xScale: 'log',
      unit: 'nat',
      items: 'tokens',
      series: candidates.map(({ name, klHistogram, meanKlNats }) => ({
        name,
        histogram: klHistogram,
        mean: meanKlNats,
      })),
      height: 280,
    }),
    await lineChart({
      title: 'Divergence by position in the window',
      note: 'Mean KL(base \u2016 candidate) over the tokens of a bin of positions; bands of one standard error.',
      xLabel: 'tokens of context before the token',
      yLabel: 'nats',
      xScale: 'position',
      yScale: farApart(candidates) ? 'log' : 'linear',
      yZero: true,
      series: candidates.map(({ name, klByPosition }) => ({
        name,
        x: klByPosition.positions,
        y: klByPosition.meanKlNats,
        standardError: klByPosition.standardError,
      })),
      height: 280,
    }),
  ];
  for (const { name, entropyChange } of candidates.slice(0, MOST_DENSITIES)) {
    if (entropyChange === undefined) continue;
    panels.push(
      await densityChart({
        title: `Change of entropy: ${name}`,
        note: 'Above the line the candidate is less sure than the base.',
        xLabel: 'entropy of the base, nats',
        yLabel: 'entropy of the candidate less that of the base, nats',
        items: 'tokens',
        density: entropyChange,
        line: 'zero',
      }),
    );
  }
  const sections: Section[] =
    data.table.rows.length === 0
      ? []
      : [{ heading: 'Candidates against the base', body: tableMarkup(data.table), first: true }];
  return { title: data.title, subtitle: data.subtitle, headline: data.headline, panels, sections };
}
