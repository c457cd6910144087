import { heatMap } from '../../report/plots/heat-map.js';
import { lineChart } from '../../report/plots/line-chart.js';
import type { Panel } from '../../report/plots/panel.js';
import type { SummaryCell } from '../../report/summary-table.js';
import type { AttentionTrainingBody, HeadShares, TrainedHead } from './attention-training.js';

/** Heads before and after, and the mean entropy of the layers between. */
export async function attentionPanels(body: AttentionTrainingBody): Promise<Panel[]> {
  const layers = 1 + body.heads.reduce((most, { layer }) => Math.max(most, layer), 0);
  const heads = body.heads.length / layers;
  const grid = (title: string, of: (head: TrainedHead) => number): Promise<Panel> =>
    heatMap({
      title,
      note: 'Share of log(context).',
      rows: Array.from({ length: layers }, (_, layer) => String(layer)),
      columns: Array.from({ length: heads }, (_, head) => String(head)),
      rowLabel: 'layer',
      columnLabel: 'head',
      values: body.heads.map(of),
      valueLabel: 'share of log(context)',
      kind: 'amount',
      domain: [0, 1],
    });
  const panels = [
    await grid('Attention entropy before', (head) => head.share_of_log_context_before),
    await grid('Attention entropy after', (head) => head.share_of_log_context),
  ];
  if (body.curve.length < 2) return panels;
  const chart = await lineChart({
    title: 'Mean attention entropy of a layer',
    xLabel: 'step',
    yLabel: 'nats',
    yZero: true,
    ordered: { label: 'layer', values: Array.from({ length: layers }, (_, layer) => layer) },
    series: Array.from({ length: layers }, (_, layer) => ({
      name: `layer ${layer}`,
      x: body.curve.map(({ step }) => step),
      y: body.curve.map(({ layer_entropy_nats }) => layer_entropy_nats[layer]),
    })),
    dots: body.curve.length <= 60,
  });
  return [...panels, chart];
}

const percent = ({ of_log_context }: HeadShares): string =>
  of_log_context.map((share) => `${Math.round(100 * share)}%`).join(', ');

/** Lines of standard output. */
export function attentionSummary({ shares, temperatures }: AttentionTrainingBody): SummaryCell[][] {
  const rows: SummaryCell[][] = [
    ['heads by quarter of log(context) before', percent(shares.before)],
    ['heads by quarter of log(context)', percent(shares.after)],
  ];
  if (temperatures) {
    rows.push([
      'least and greatest temperature',
      `${temperatures.least.toPrecision(4)}, ${temperatures.greatest.toPrecision(4)}`,
    ]);
    rows.push([
      'temperatures',
      temperatures.folded ? 'in the weights of the queries' : 'in attention.safetensors alone',
    ]);
  }
  return rows;
}
