import type { Figure, HeadlineFigure } from '../../../report/plots/figure.js';
import { heatMap } from '../../../report/plots/heat-map.js';
import { histogramChart } from '../../../report/plots/histogram.js';
import { lineChart } from '../../../report/plots/line-chart.js';
import type { Panel } from '../../../report/plots/panel.js';
import { scatterChart } from '../../../report/plots/scatter-chart.js';
import type { DetailChart } from './types.js';

function drawChart(one: DetailChart): Promise<Panel> {
  switch (one.kind) {
    case 'lines':
      return lineChart(one.chart);
    case 'scatter':
      return scatterChart(one.chart);
    case 'histogram':
      return histogramChart(one.chart);
    case 'heat-map':
      return heatMap(one.chart);
  }
}

/** The figure of the details of one method. */
export async function drawDetails(
  title: string,
  subtitle: string,
  charts: readonly DetailChart[],
  headline: readonly HeadlineFigure[] = [],
): Promise<Figure> {
  const panels: Panel[] = [];
  for (const chart of charts) panels.push(await drawChart(chart));
  return { title, subtitle, headline, panels, sections: [] };
}
