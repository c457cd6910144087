import type { CrossEntropyRound } from '../optimization/cross-entropy-method.js';
import type { RareEventLevel } from '../optimization/rare-event.js';
import type { Figure } from '../report/plots/figure.js';
import { type LandscapeEllipse, landscapeChart } from '../report/plots/landscape.js';
import { lineChart } from '../report/plots/line-chart.js';
import { formatNumber } from '../report/plots/numbers.js';
import type { Panel } from '../report/plots/panel.js';
import type { RareRegion } from './rare-zeros.js';
import type { ZetaBox } from './zero-search.js';
import type { ZetaEstimate, ZetaResult } from './zeta-job.js';

function ellipsesOf(rounds: readonly CrossEntropyRound[]): LandscapeEllipse[] {
  return rounds.flatMap(({ law }, i) =>
    law.kind === 'gaussian'
      ? [
          {
            x: law.mean[1],
            y: law.mean[0],
            radiusX: law.deviation[1],
            radiusY: law.deviation[0],
            share: (i + 1) / rounds.length,
          },
        ]
      : [],
  );
}

async function landscapePanel(result: ZetaResult, box: ZetaBox): Promise<Panel | undefined> {
  const { landscape, zeros, optimum } = result;
  if (!landscape) return undefined;
  const byTile = new Map<number, CrossEntropyRound[]>();
  for (const { tile, round } of zeros?.rounds ?? []) byTile.set(tile, [...(byTile.get(tile) ?? []), round]);
  const searches = optimum ? [optimum.rounds] : [...byTile.values()];
  const points = zeros
    ? zeros.zeros.map(({ sigma, t }) => ({ x: t, y: sigma }))
    : optimum?.polished.converged
      ? [{ x: optimum.polished.t, y: optimum.polished.sigma }]
      : [];
  return landscapeChart({
    title: '|ζ(σ + it)| and the sampling law, round by round',
    note: 'Ellipses: one deviation of the Gaussian after each round, later rounds stronger.',
    xLabel: 't',
    yLabel: 'σ',
    valueLabel: 'log10 |ζ|',
    x: box.t,
    y: box.sigma,
    ...landscape,
    ellipses: searches.flatMap(ellipsesOf),
    ellipseLabel: 'sampling law',
    points,
    pointLabel: zeros ? 'zeros after Newton' : 'zero after Newton',
  });
}

/** Rows of one region by rising 1/eps. */
const rowsOf = (estimates: readonly ZetaEstimate[], region: RareRegion['kind']): ZetaEstimate[] =>
  estimates.filter((row) => row.region === region).sort((a, b) => b.eps - a.eps);

async function probabilityPanel(estimates: readonly ZetaEstimate[]): Promise<Panel> {
  const regions = (['line', 'strip'] as const).filter((kind) => rowsOf(estimates, kind).length > 0);
  return lineChart({
    title: 'Probability of |ζ| < ε against 1/ε',
    note: 'Slope -1 on the critical line, -2 on the strip; dashed: first order in ε.',
    xLabel: '1/ε',
    yLabel: 'probability',
    xScale: 'log',
    yScale: 'log',
    series: regions.flatMap((kind) => {
      const rows = rowsOf(estimates, kind);
      const x = rows.map(({ eps }) => 1 / eps);
      return [
        { name: `${kind}, cross-entropy`, x, y: rows.map(({ found }) => found.estimate) },
        { name: `${kind}, first order`, x, y: rows.map(({ firstOrder }) => firstOrder), dashed: true },
      ];
    }),
  });
}

async function errorPanel(estimates: readonly ZetaEstimate[]): Promise<Panel> {
  const regions = (['line', 'strip'] as const).filter((kind) => rowsOf(estimates, kind).length > 0);
  return lineChart({
    title: 'Relative standard error at equal draws',
    note: 'Importance sampling against plain Monte Carlo.',
    xLabel: '1/ε',
    yLabel: 'relative error',
    xScale: 'log',
    yScale: 'log',
    series: regions.flatMap((kind) => {
      const rows = rowsOf(estimates, kind);
      const x = rows.map(({ eps }) => 1 / eps);
      return [
        { name: `${kind}, cross-entropy`, x, y: rows.map(({ found }) => found.relativeError) },
        { name: `${kind}, Monte Carlo`, x, y: rows.map((row) => row.crudeRelativeError), dashed: true },
      ];
    }),
  });
}

/** Best score, threshold and entropy of the law against the round of a search. */
export async function roundPanels(rounds: readonly CrossEntropyRound[]): Promise<Panel[]> {
  const x = rounds.map(({ round }) => round + 1);
  return [
    await lineChart({
      title: 'Score by round',
      xLabel: 'round',
      yLabel: 'score',
      series: [
        { name: 'best of the round', x, y: rounds.map(({ roundBest }) => roundBest) },
        { name: 'worst elite point', x, y: rounds.map(({ threshold }) => threshold) },
      ],
    }),
    await lineChart({
      title: 'Entropy of the sampling law',
      xLabel: 'round',
      yLabel: 'nats',
      series: [{ name: 'entropy', x, y: rounds.map(({ entropyNats }) => entropyNats) }],
    }),
  ];
}

/** Landscape with the searches, and what the mode measured. */
export async function drawZeta(result: ZetaResult, box: ZetaBox, subtitle: string): Promise<Figure> {
  const panels: Panel[] = [];
  const landscape = await landscapePanel(result, box);
  if (landscape) panels.push(landscape);
  if (result.optimum) panels.push(...(await roundPanels(result.optimum.rounds)));
  if (result.estimates.length > 0) {
    panels.push(await probabilityPanel(result.estimates), await errorPanel(result.estimates));
  }
  const { zeros, optimum } = result;
  return {
    title: 'Cross-entropy search on the zeta function',
    subtitle,
    headline: zeros
      ? [
          { label: 'zeros found', value: String(zeros.zeros.length) },
          { label: 'expected', value: String(zeros.expected) },
          { label: 'missed', value: String(zeros.missed.length) },
        ]
      : [{ label: 'best score', value: formatNumber(optimum?.score ?? Number.NaN) }],
    panels,
    sections: [],
  };
}

/** Levels on their way to gamma. */
export function levelPanel(levels: readonly RareEventLevel[], gamma: number): Promise<Panel> {
  return lineChart({
    title: 'Level by round',
    xLabel: 'round',
    yLabel: 'score',
    references: [{ label: 'gamma', value: gamma }],
    series: [{ name: 'level', x: levels.map((_, i) => i + 1), y: levels.map(({ level }) => level) }],
  });
}
