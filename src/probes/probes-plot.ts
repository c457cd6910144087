import { chartFigure } from '../report/plots/chart-figure.js';
import type { Figure } from '../report/plots/figure.js';
import type { LineSeries, ReferenceLine } from '../report/plots/line-chart.js';
import { HALF_WIDTH } from '../report/plots/panel.js';
import type { ProbesBody } from './probes-report.js';

type Chart = Parameters<typeof chartFigure>[0]['charts'][number];

/** Accuracy, or mean squared error, against the number of members on one split. */
function scoreChart(body: ProbesBody, task: string, split: string): Chart {
  const sets = body.sets.filter((set) => set.task === task);
  const amounts = body.tasks.find(({ name }) => name === task)?.classes === null;
  const measure = amounts ? 'mse' : 'accuracy';
  const scoreOf = (set: (typeof sets)[number]): number =>
    set.scores.find((score) => score.split === split)?.[measure] ?? Number.NaN;
  const curve = (name: string, kind: string, first: number): LineSeries => {
    const points = sets.filter((set) => set.kind === kind);
    return { name, x: [1, ...points.map(({ size }) => size)], y: [first, ...points.map(scoreOf)] };
  };
  const single = body.singles.find((entry) => entry.task === task && entry.split === split);
  const largest = Math.max(1, ...sets.map(({ size }) => size));
  const mean = single?.mean ?? Number.NaN;
  const sd = single?.sd ?? 0;
  const concatenation = curve('concatenation', 'concatenation', mean);
  const series: LineSeries[] = [concatenation];
  if (sets.some(({ kind }) => kind === 'ensemble')) {
    series.push(curve('mean of predictions', 'ensemble', mean));
  }
  series.push({
    name: 'single members, ± sd',
    x: [1, largest],
    y: [mean, mean],
    standardError: [sd, sd],
    dashed: true,
  });
  const references = sets
    .filter(({ kind }) => kind === 'wide')
    .map((set): ReferenceLine => ({ label: set.name, value: scoreOf(set) }));
  const role = body.splits.find(({ name }) => name === split)?.role;
  const where = role === 'ood' ? 'out of distribution' : 'in distribution';
  return {
    kind: 'lines',
    chart: {
      title: `${body.tasks.length > 1 ? `${task}, ` : ''}${split} (${where})`,
      yLabel: amounts ? 'mean squared error' : 'accuracy',
      xLabel: 'members',
      series,
      references,
    },
  };
}

function rankChart(body: ProbesBody): Chart {
  const sets = body.ranks.filter(({ kind }) => kind === 'concatenation');
  const singles = body.ranks.filter(({ kind }) => kind === 'single');
  const mean = (key: 'rankme' | 'effective_rank_squared' | 'participation_ratio'): number =>
    singles.reduce((sum, rank) => sum + (rank[key] ?? Number.NaN), 0) / singles.length;
  const series = (
    [
      ['RankMe', 'rankme'],
      ['effective rank of squares', 'effective_rank_squared'],
      ['participation ratio', 'participation_ratio'],
    ] as const
  ).map(
    ([name, key]): LineSeries => ({
      name,
      x: [1, ...sets.map(({ size }) => size)],
      y: [mean(key), ...sets.map((rank) => rank[key] ?? Number.NaN)],
    }),
  );
  return {
    kind: 'lines',
    chart: {
      title: 'Rank of the features',
      note: `Over ${body.rank_rows} training rows; at one member the mean of the members.`,
      xLabel: 'members',
      yLabel: 'dimensions',
      yZero: true,
      series,
    },
  };
}

/** Draws scores against the number of members for every split, ranks, and the alignment of members. */
export function drawProbes(body: ProbesBody, subtitle: string): Promise<Figure> {
  const shown = body.splits.filter(({ role }) => role === 'id' || role === 'ood');
  const charts: Chart[] = body.tasks.flatMap(({ name }) => shown.map((split) => scoreChart(body, name, split.name)));
  charts.push(rankChart(body));
  if (body.members.length > 1) {
    const names = body.members.map(({ name }) => name);
    charts.push({
      kind: 'heat-map',
      chart: {
        title: 'Linear CKA of the members',
        note: '1 where two members span the same space with the same weight.',
        rows: names,
        columns: names,
        rowLabel: '',
        columnLabel: 'member',
        values: body.linear_cka.flat().map((value) => value ?? Number.NaN),
        valueLabel: 'CKA',
        kind: 'amount',
        domain: [0, 1],
        width: HALF_WIDTH,
      },
    });
  }
  const last = body.gains[body.gains.length - 1];
  const headline = body.gains
    .filter(({ size, task }) => size === last.size && task === last.task)
    .slice(0, 4)
    .map(({ split, over_best_single: gain }) => ({ label: `Gain of ${last.size} on ${split}`, value: gain.value }));
  return chartFigure({
    title: 'What a concatenation of representations gains',
    subtitle,
    headline: [{ label: 'Members', value: body.members.length }, ...headline],
    charts,
  });
}
