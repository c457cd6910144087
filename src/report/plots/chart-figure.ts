import type { Figure, FigureTable, HeadlineFigure, Section } from './figure.js';
import type { HeatMap } from './heat-map.js';
import { heatMap } from './heat-map.js';
import { tableMarkup } from './html-page.js';
import type { LineChart } from './line-chart.js';
import { lineChart } from './line-chart.js';
import type { Panel } from './panel.js';

/** A figure of charts that need no form of their own: heat maps (layer x module, expert x layer) and line charts. */
export interface ChartFigureData {
  readonly title: string;
  readonly subtitle?: string;
  readonly headline?: readonly HeadlineFigure[];
  readonly charts: readonly (
    | { readonly kind: 'heat-map'; readonly chart: HeatMap }
    | { readonly kind: 'lines'; readonly chart: LineChart }
  )[];
  readonly tables?: readonly { readonly heading: string; readonly note?: string; readonly table: FigureTable }[];
}

/** Heat maps and line charts in the order given, with tables below them in HTML. */
export async function chartFigure(data: ChartFigureData): Promise<Figure> {
  const panels: Panel[] = [];
  for (const { kind, chart } of data.charts)
    panels.push(kind === 'lines' ? await lineChart(chart) : await heatMap(chart));
  const sections = (data.tables ?? []).map(
    ({ heading, note, table }): Section => ({ heading, note, body: tableMarkup(table) }),
  );
  return { title: data.title, subtitle: data.subtitle, headline: data.headline ?? [], panels, sections };
}
