import type { Figure } from '../../report/plots/figure.js';
import { type LineSeries, lineChart } from '../../report/plots/line-chart.js';
import { markup } from '../../report/plots/markup.js';
import { FULL_WIDTH, type Panel } from '../../report/plots/panel.js';
import { type AlphaSetting, alphaWarnings } from './alpha-report.js';
import type { JudgeResult } from './judge-job.js';
import type { SearchResult } from './search-job.js';

/** Mean over the seeds of a search at common numbers of evaluations, with its standard error. */
export function meanCurve(
  searches: readonly SearchResult[],
  figureOf: (point: SearchResult['history'][number]) => number,
): Pick<LineSeries, 'x' | 'y' | 'standardError'> {
  const longest = Math.max(...searches.map(({ evaluations }) => evaluations));
  const x = Float64Array.from({ length: 100 }, (_, i) => Math.round(((i + 1) * longest) / 100));
  const y = new Float64Array(x.length);
  const standardError = new Float64Array(x.length);
  x.forEach((at, i) => {
    const values = searches.map(({ history }) => {
      const point = history.filter(({ evaluations }) => evaluations <= at).at(-1) ?? history[0];
      return figureOf(point);
    });
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    y[i] = mean;
    standardError[i] = values.length > 1 ? Math.sqrt(squares / (values.length - 1) / values.length) : 0;
  });
  return { x, y, standardError };
}

function groupSearches(searches: readonly SearchResult[]): Map<string, SearchResult[]> {
  const groups = new Map<string, SearchResult[]>();
  for (const search of searches) groups.set(search.label, [...(groups.get(search.label) ?? []), search]);
  return groups;
}

/** Cumulative rank IC of the chosen pool, pool IC by evaluations, entropy of the token policies, wealth of the backtest. */
export async function alphaFigure(
  setting: AlphaSetting,
  judged: JudgeResult,
  searches: readonly SearchResult[],
  subtitle: string,
): Promise<Figure> {
  const { daily, candidates, chosen } = judged;
  const best = candidates[chosen];
  const panels: Panel[] = [await cumulativePanel(setting, daily)];
  const groups = groupSearches(searches);
  if (searches.some(({ history }) => history.length > 1)) {
    panels.push(
      await lineChart({
        title: 'IC of the pool in training by evaluations',
        ...(searches.length > groups.size && { note: 'Mean over seeds, one standard error on each side.' }),
        xLabel: 'distinct formulas evaluated',
        yLabel: 'mean daily IC',
        series: Array.from(groups, ([name, own]) => ({ name, ...meanCurve(own, ({ ic }) => ic) })),
        dots: false,
      }),
    );
  }
  const policies = Array.from(groups).filter(([, own]) =>
    own.some(({ history }) => (history[0]?.entropyNats ?? null) !== null),
  );
  if (policies.length > 0) {
    panels.push(
      await lineChart({
        title: 'Entropy of the token policy',
        xLabel: 'distinct formulas evaluated',
        yLabel: 'nats a token',
        yZero: true,
        series: policies.map(([name, own]) => ({
          name,
          ...meanCurve(own, ({ entropyNats }) => entropyNats ?? Number.NaN),
        })),
        dots: false,
      }),
    );
  }
  if (judged.backtest !== null) {
    const { days } = judged.backtest;
    const x = Float64Array.from(days, (_, i) => i + 1);
    panels.push(
      await lineChart({
        title: `Backtest on the ${setting.parts[setting.parts.length - 1].name} days`,
        note: 'Costs taken off the pool, not off the market.',
        xLabel: 'trading day',
        yLabel: 'wealth',
        series: [
          { name: 'chosen pool', x, y: Float64Array.from(days, ({ wealth }) => wealth) },
          {
            name: 'all stocks, equal parts',
            x,
            y: Float64Array.from(days, ({ marketWealth }) => marketWealth),
            dashed: true,
          },
        ],
        dots: false,
      }),
    );
  }
  return {
    title: 'Formulas that predict returns together',
    subtitle,
    headline: best.parts.map(({ part, rankIc, rankIcStandardError }) => ({
      label: `Rank IC, ${part}`,
      value: rankIc,
      ...(Number.isFinite(rankIcStandardError) && { standardError: rankIcStandardError }),
    })),
    panels,
    sections: [
      {
        heading: 'What to be careful about',
        body: markup`<ul>${alphaWarnings(setting, judged, searches).map((warning) => markup`<li>${warning}</li>`)}</ul>`,
      },
    ],
  };
}

function cumulativePanel({ parts }: AlphaSetting, daily: JudgeResult['daily']): Promise<Panel> {
  let sum = 0;
  const cumulated = daily.map(({ rankIc }) => {
    sum += rankIc;
    return sum;
  });
  let from = 0;
  const series = parts.map((part): LineSeries => {
    const length = part.to - part.from;
    const start = from;
    from += length;
    return {
      name: part.name,
      x: Float64Array.from({ length }, (_, k) => start + k + 1),
      y: Float64Array.from(cumulated.slice(start, start + length)),
    };
  });
  return lineChart({
    title: 'Cumulative rank IC of the chosen pool',
    xLabel: 'scored day',
    yLabel: 'sum of daily rank ICs',
    yZero: true,
    series,
    dots: false,
    width: FULL_WIDTH,
  });
}
