import { CATEGORY_COLOURS } from '../../report/plots/colours.js';
import { type ContourMark, contourChart } from '../../report/plots/contour-chart.js';
import type { Figure } from '../../report/plots/figure.js';
import { lineChart } from '../../report/plots/line-chart.js';
import { FULL_WIDTH, type Panel } from '../../report/plots/panel.js';
import { scatterChart } from '../../report/plots/scatter-chart.js';
import { columnOf } from './proxy-points.js';
import type { RewardArguments, RewardResult, SurfaceGrid } from './reward-job.js';

/** Proxy points on the surface, multipliers and violations by update, the simplex and its scores. */
export async function rewardFigure(
  args: RewardArguments,
  result: RewardResult,
  updates: ArrayLike<number>,
  subtitle: string,
): Promise<Figure> {
  const panels: Panel[] = [];
  const { proxy, grid, replay, search } = result;
  if (proxy && grid) panels.push(await surfacePanel(args, result, grid));
  if (proxy && args.runs) {
    const { names, runs } = args;
    for (const [i, name] of names.entries())
      panels.push(await singlePanel(name, columnOf(runs.rewards, names.length, i), runs.score, proxy.individual[i]));
  }
  if (replay) panels.push(...(await replayPanels(args.names, replay, updates)));
  if (search && search.evaluated.length > 0) panels.push(await searchPanel(search));
  return {
    title: 'Component rewards',
    subtitle,
    headline: [
      ...(proxy ? [{ label: 'Runs', value: args.runs?.rows ?? 0 }] : []),
      ...(proxy
        ? args.names.map((name, i) => ({ label: `Joint proxy point, ${name}`, value: proxy.joint.point[i] }))
        : []),
      ...(search?.best ? [{ label: 'Best score of the search', value: search.best.score }] : []),
    ],
    panels,
    sections: [],
  };
}

async function surfacePanel(
  { names, runs, proxy: options }: RewardArguments,
  result: RewardResult,
  grid: SurfaceGrid,
): Promise<Panel> {
  const { proxy, search } = result;
  if (!proxy || !runs) throw new Error('a surface has runs');
  const [i, j] = grid.rewards;
  const n = names.length;
  const ends = (k: number): [number, number] => [proxy.box.low[k], proxy.box.high[k]];
  const interval = (of: typeof proxy.joint, k: number): [number, number] | undefined =>
    of.intervals && [of.intervals[k].low, of.intervals[k].high];
  const joint: ContourMark = {
    label: 'joint proxy point',
    x: proxy.joint.point[i],
    y: proxy.joint.point[j],
    xInterval: interval(proxy.joint, i),
    yInterval: interval(proxy.joint, j),
    colour: CATEGORY_COLOURS[1],
  };
  const individual: ContourMark = {
    label: 'individual proxy points',
    x: proxy.individual[i].point[0],
    y: proxy.individual[j].point[0],
    xInterval: interval(proxy.individual[i], 0),
    yInterval: interval(proxy.individual[j], 0),
    colour: CATEGORY_COLOURS[3],
  };
  const found = search?.best && {
    label: 'best of the search',
    x: search.best.thresholds[i],
    y: search.best.thresholds[j],
    colour: CATEGORY_COLOURS[4],
  };
  return contourChart({
    title: `Score over ${names[i]} and ${names[j]}`,
    note: `The ${options?.smoother ?? ''} surface${n > 2 ? ', the other rewards held at the joint proxy point' : ''}; crosses are intervals.`,
    xLabel: names[i],
    yLabel: names[j],
    valueLabel: 'score',
    x: ends(i),
    y: ends(j),
    ...grid,
    points: Array.from({ length: runs.rows }, (_, r) => ({ x: runs.rewards[r * n + i], y: runs.rewards[r * n + j] })),
    pointLabel: 'runs',
    marks: [individual, joint, ...(found ? [found] : [])],
    ...(search &&
      search.evaluated.length > 0 && {
        trail: {
          label: 'points of the search',
          x: search.evaluated.map(({ thresholds }) => thresholds[i]),
          y: search.evaluated.map(({ thresholds }) => thresholds[j]),
          colour: CATEGORY_COLOURS[4],
        },
      }),
  });
}

async function singlePanel(
  name: string,
  x: Float64Array,
  score: Float64Array,
  { point, quadratic, score: most }: NonNullable<RewardResult['proxy']>['joint'],
): Promise<Panel> {
  const [low, high] = [
    x.reduce((least, one) => Math.min(least, one), Number.POSITIVE_INFINITY),
    x.reduce((most, one) => Math.max(most, one), Number.NEGATIVE_INFINITY),
  ];
  const places = Float64Array.from({ length: 60 }, (_, k) => low + ((high - low) * k) / 59);
  return scatterChart({
    title: `Score against ${name}`,
    note: `Proxy point ${point[0].toPrecision(4)}, score ${most.toPrecision(4)} there.`,
    xLabel: name,
    yLabel: 'score',
    series: [
      { name: 'runs', x, y: score },
      { name: 'proxy point', x: [point[0]], y: [most], radius: 6 },
    ],
    ...(quadratic && {
      curve: {
        label: 'quadratic',
        x: places,
        y: places.map(
          (at) => quadratic.coefficients[0] + quadratic.coefficients[1] * at + quadratic.coefficients[2] * at * at,
        ),
      },
    }),
  });
}

async function replayPanels(
  names: readonly string[],
  replay: NonNullable<RewardResult['replay']>,
  updates: ArrayLike<number>,
): Promise<Panel[]> {
  const n = names.length;
  const lines = (matrix: Float64Array) => names.map((name, i) => ({ name, x: updates, y: columnOf(matrix, n, i) }));
  return [
    await lineChart({
      title: 'Multipliers',
      note: 'Weight that each reward would have had.',
      xLabel: 'update',
      yLabel: 'weight',
      series: lines(replay.weight),
      yZero: true,
      dots: false,
    }),
    await lineChart({
      title: 'Rewards less thresholds',
      note: 'Above 0 a multiplier falls, below it rises.',
      xLabel: 'update',
      yLabel: 'R - θ',
      series: lines(replay.violation),
      references: [{ value: 0, label: 'threshold' }],
      dots: false,
    }),
  ];
}

async function searchPanel(search: NonNullable<RewardResult['search']>): Promise<Panel> {
  const x = search.evaluated.map((_, k) => k + 1);
  let best = Number.NEGATIVE_INFINITY;
  const running = search.evaluated.map(({ score }) => {
    best = Math.max(best, score);
    return best;
  });
  return lineChart({
    title: 'Search over thresholds',
    note: 'Score of each evaluation, and the best so far.',
    xLabel: 'evaluation',
    yLabel: 'score',
    series: [
      { name: 'evaluation', x, y: search.evaluated.map(({ score }) => score), points: true },
      { name: 'best so far', x, y: running },
    ],
    dots: false,
    width: FULL_WIDTH,
  });
}
