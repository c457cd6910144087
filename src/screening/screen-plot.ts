import { gaussianInformation } from '../linalg/correlation.js';
import type { Figure } from '../report/plots/figure.js';
import { lineChart } from '../report/plots/line-chart.js';
import { FULL_WIDTH } from '../report/plots/panel.js';
import { type ScatterSeries, scatterChart } from '../report/plots/scatter-chart.js';
import type { ScreenBody, ScreenStatistics } from './screen-report.js';

/** Columns below the listed ones that are drawn, evenly spaced in rank: more would only make the file large. */
const MOST_OTHERS = 2000;

const ESTIMATOR_NAMES: Readonly<Record<string, string>> = {
  kernel: 'kernel densities',
  binned: 'bins',
  ksg: 'nearest neighbours',
};

/** Draws the information of columns against the size of their correlation, and against their rank. */
export async function drawScreen(body: ScreenBody, statistics: ScreenStatistics, subtitle: string): Promise<Figure> {
  const figures = statistics.nats[body.ranked_by] ?? new Float64Array(0);
  const order = Array.from(figures.keys())
    .filter((j) => statistics.kinds[j] !== 2 && !Number.isNaN(figures[j]))
    .sort((a, b) => figures[b] - figures[a]);
  const listed = order.slice(0, body.ranking.length);
  const rest = order.slice(body.ranking.length);
  const stride = Math.max(1, Math.ceil(rest.length / MOST_OTHERS));
  const others = rest.filter((_, k) => k % stride === 0);
  const series = (name: string, columns: readonly number[]): ScatterSeries => ({
    name,
    x: columns.map((j) => Math.abs(statistics.r[j])),
    y: columns.map((j) => figures[j]),
    labels: columns.map((j) => statistics.names[j]),
  });
  const significant = new Set(
    body.ranking.filter(({ q_value }) => q_value !== null && q_value <= 0.05).map(({ index }) => index),
  );
  const isSignificant = (j: number): boolean => significant.has(statistics.places[j]);
  const tested = body.permutations > 0;
  const groups = [
    series(tested ? 'q \u2264 0.05' : `first ${listed.length}`, tested ? listed.filter(isSignificant) : listed),
    series('others', tested ? [...listed.filter((j) => !isSignificant(j)), ...others] : others),
  ].filter(({ x }) => x.length > 0);
  const largest = Math.min(
    0.999,
    Math.max(0.05, ...order.map((j) => Math.abs(statistics.r[j])).filter(Number.isFinite)),
  );
  const steps = Float64Array.from({ length: 60 }, (_, k) => (largest * k) / 59);
  const unit = `nats, by ${ESTIMATOR_NAMES[body.ranked_by]}`;
  const panels = [];
  if (order.some((j) => Number.isFinite(statistics.r[j]))) {
    panels.push(
      await scatterChart({
        title: 'Information against correlation',
        note: 'Far above the curve: a link that a straight line misses.',
        xLabel: '|Pearson r|',
        yLabel: unit,
        width: FULL_WIDTH,
        height: 380,
        series: groups,
        curve: { label: 'a normal pair', x: steps, y: steps.map(gaussianInformation) },
      }),
    );
  }
  const ranks = order.map((_, k) => k + 1).filter((_, k) => k < 500 || k % stride === 0);
  const nulls = order.map((j) =>
    statistics.drawn[j] > 0 ? statistics.nullSums[2 * j] / statistics.drawn[j] : Number.NaN,
  );
  panels.push(
    await lineChart({
      title: 'Information by rank',
      note: body.permutations > 0 ? 'Mean of the permuted outcomes: what an unrelated column reaches.' : undefined,
      xLabel: 'rank',
      xScale: 'log',
      yLabel: unit,
      yZero: true,
      width: FULL_WIDTH,
      series: [
        { name: 'column', x: ranks, y: ranks.map((rank) => figures[order[rank - 1]]) },
        ...(body.permutations > 0
          ? [{ name: 'permuted', x: ranks, y: ranks.map((rank) => nulls[rank - 1]), dashed: true }]
          : []),
      ],
    }),
  );
  const [best] = body.ranking;
  return {
    title: 'Columns by their information about the outcome',
    subtitle,
    headline: [
      { label: 'Rows', value: body.rows },
      { label: 'Columns', value: body.columns },
      ...(best
        ? [
            { label: 'Best column', value: best.column },
            {
              label: 'Its information',
              value: best.mi_nats,
              unit: 'nats',
              ...(best.mi_nats_se !== null && { standardError: best.mi_nats_se }),
            },
          ]
        : []),
      ...(body.significant_columns_q05 === null
        ? []
        : [{ label: 'Columns with q \u2264 0.05', value: body.significant_columns_q05 }]),
    ],
    panels,
    sections: [],
  };
}
