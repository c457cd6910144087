import { type HeatMap, heatMap } from '../../report/plots/heat-map.js';
import { lineChart } from '../../report/plots/line-chart.js';
import { FULL_WIDTH, HALF_WIDTH, type Panel } from '../../report/plots/panel.js';
import { shareAreas } from '../../report/plots/share-areas.js';
import type { RoundBody } from './round-report.js';

/** Proportions over the rounds, the losses of the groups, and the last mixing matrix. */
export async function roundPanels(
  groups: readonly string[],
  rounds: readonly RoundBody[],
  end: number,
): Promise<Panel[]> {
  const withSteps = rounds.every(({ step }) => step !== null);
  const x = rounds.map(({ step, round }) => step ?? round);
  const drawn = end > x[x.length - 1] ? rounds : rounds.slice(0, -1);
  const panels: Panel[] = [
    await shareAreas({
      title: 'Proportions that the steps were trained on',
      note: 'Dashed: equal shares. Probe mixtures at the start of a round are left out.',
      xLabel: withSteps ? 'step' : 'round',
      classes: groups,
      x: drawn.map(({ step, round }) => step ?? round),
      end,
      shares: drawn.flatMap(({ proportions }) => Array.from(proportions)),
    }),
    await lineChart({
      title: 'Validation loss of each group',
      xLabel: withSteps ? 'step' : 'round',
      yLabel: 'nats a token',
      series: groups.map((name, i) => ({ name, x, y: rounds.map(({ losses_nats }) => losses_nats[i]) })),
    }),
  ];
  const measured = rounds.filter(({ A }) => A !== null);
  const last = measured.at(-1);
  if (last?.A) {
    panels.push(await matrixMap(groups, last.A, `Mixing matrix A of round ${last.round}`));
    if (measured.length > 1) panels.push(await matrixMap(groups, meanMatrix(measured), 'Mean of A over the rounds'));
  }
  return panels;
}

/** A [k, k] as a heat map, signed. */
export function matrixMap(
  groups: readonly string[],
  rows: readonly ArrayLike<number>[],
  title: string,
): Promise<Panel> {
  const map: HeatMap = {
    title,
    note: 'How much the loss of the group of a row falls when the group of a column is trained.',
    rows: groups,
    columns: groups,
    rowLabel: 'evaluated',
    columnLabel: 'trained',
    values: rows.flatMap((row) => Array.from(row)),
    valueLabel: 'drop in nats',
    kind: 'signed',
    width: groups.length > 8 ? FULL_WIDTH : HALF_WIDTH,
  };
  return heatMap(map);
}

function meanMatrix(rounds: readonly RoundBody[]): Float64Array[] {
  const k = rounds[0].proportions.length;
  const mean = Array.from({ length: k }, () => new Float64Array(k));
  for (const { A } of rounds) {
    A?.forEach((row, i) => {
      for (let j = 0; j < k; j++) mean[i][j] += row[j] / rounds.length;
    });
  }
  return mean;
}
