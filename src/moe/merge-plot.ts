import type { Figure, HeadlineFigure } from '../report/plots/figure.js';
import { groupedBars } from '../report/plots/grouped-bars.js';
import { heatMap } from '../report/plots/heat-map.js';
import { lineChart } from '../report/plots/line-chart.js';
import { FULL_WIDTH, HALF_WIDTH, type Panel } from '../report/plots/panel.js';
import type { ErrorRecord } from './error-record.js';
import type { LayerRecord } from './merge-record.js';
import type { MergeBody } from './merge-report.js';

const names = (count: number): string[] => Array.from({ length: count }, (_, i) => String(i));

/** The group of every expert; a ring where one leads others, a cross where one is gone. */
function groupPanel(layers: readonly LayerRecord[]): Promise<Panel> {
  const experts = Math.max(...layers.map((layer) => layer.experts_before));
  const values = new Float64Array(layers.length * experts).fill(Number.NaN);
  const leads: { row: number; column: number }[] = [];
  const gone: { row: number; column: number }[] = [];
  layers.forEach((layer, row) => {
    for (const { group, dominant, members } of layer.groups) {
      if (members.length > 1) leads.push({ row, column: dominant });
      for (const { expert } of members) values[row * experts + expert] = group;
    }
    for (const { expert } of layer.dropped) gone.push({ row, column: expert });
  });
  return heatMap({
    title: 'Groups',
    note: 'Experts of a layer with the same number became one.',
    rows: layers.map(({ layer }) => String(layer)),
    columns: names(experts),
    rowLabel: 'layer',
    columnLabel: 'expert',
    values: [...values],
    valueLabel: 'group',
    kind: 'amount',
    flags: [
      ...(leads.length > 0 ? [{ label: 'dominant', shape: 'ring' as const, cells: leads }] : []),
      ...(gone.length > 0 ? [{ label: 'dropped', shape: 'cross' as const, cells: gone }] : []),
    ],
    width: experts > 24 ? FULL_WIDTH : HALF_WIDTH,
  });
}

function effectivePanel(layers: readonly LayerRecord[]): Promise<Panel> {
  const x = layers.map(({ layer }) => layer);
  const of = (key: 'effective_experts_before' | 'effective_experts_after' | 'experts_after'): number[] =>
    layers.map((layer) => layer[key] ?? Number.NaN);
  return lineChart({
    title: 'Effective number of experts',
    note: 'exp of the entropy of usage; after: usage summed over the groups.',
    xLabel: 'layer',
    yLabel: 'experts',
    yZero: true,
    width: HALF_WIDTH,
    series: [
      { name: 'before', x, y: of('effective_experts_before') },
      { name: 'after', x, y: of('effective_experts_after') },
      { name: 'experts kept', x, y: of('experts_after'), dashed: true },
    ],
  });
}

function errorPanel(errors: readonly ErrorRecord[], text: string): Promise<Panel> {
  const bars = (name: string, of: (record: ErrorRecord) => number | null) => ({
    name,
    values: errors.map((record) => of(record) ?? Number.NaN),
  });
  const split = errors.some(({ expert_error }) => expert_error !== null);
  return groupedBars({
    title: `Error of the layers' outputs on ${text}`,
    note: "||merged - original|| / ||original||, each layer on the original model's inputs.",
    xLabel: 'layer',
    yLabel: 'relative error',
    width: FULL_WIDTH,
    height: 300,
    places: errors.map(({ layer }) => String(layer)),
    series: [
      bars('all', (record) => record.relative_error),
      ...(split
        ? [
            bars('of experts, routed as before', (record) => record.expert_error),
            bars('of the new routing', (record) => record.routing_error),
          ]
        : []),
    ],
  });
}

/** The figure of a merge: groups, effective experts, errors of the layers. */
export async function mergeFigure(body: MergeBody): Promise<Figure> {
  const { layers, errors, evaluation, result, method, model } = body;
  const shown = errors.held_out ?? errors.calibration;
  const text = errors.held_out ? 'unseen text' : 'the calibration text';
  const headline: HeadlineFigure[] = [
    { label: 'Bytes before', value: result.bytes_before },
    { label: 'Bytes after', value: result.bytes_after },
    ...(evaluation
      ? [
          {
            label: 'Perplexity before',
            value: evaluation.base_perplexity,
            standardError: evaluation.base_perplexity_se,
          },
          { label: 'Perplexity after', value: evaluation.perplexity, standardError: evaluation.perplexity_se },
          { label: 'Mean KL', value: evaluation.mean_kl_nats, unit: 'nats', standardError: evaluation.mean_kl_nats_se },
        ]
      : []),
  ];
  const watched = layers.some(({ effective_experts_before: before }) => before !== null);
  const panels = [
    ...(layers.length > 0 ? [groupPanel(layers)] : []),
    ...(watched ? [effectivePanel(layers)] : []),
    ...(shown ? [errorPanel(shown, text)] : []),
  ];
  return {
    title: `Experts by ${method.name}`,
    subtitle: `${model.family}, ${model.experts} experts in ${model.layers_with_experts} layers`,
    headline,
    panels: await Promise.all(panels),
    sections: [],
  };
}
