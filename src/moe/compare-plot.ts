import { dotRows } from '../report/plots/dot-rows.js';
import type { Figure } from '../report/plots/figure.js';
import { tableMarkup } from '../report/plots/html-page.js';
import { FULL_WIDTH, type Panel } from '../report/plots/panel.js';
import { type ScatterSeries, scatterChart } from '../report/plots/scatter-chart.js';
import type { CompareBody, CompareRow } from './compare-report.js';

const sizesOf = (rows: readonly CompareRow[]): (number | null)[] =>
  [...new Set(rows.map(({ experts }) => experts))].sort((a, b) => (b ?? 0) - (a ?? 0));

const sizeName = (experts: number | null): string => (experts === null ? 'all experts' : `${experts} experts`);

function divergencePanel(rows: readonly CompareRow[]): Promise<Panel> {
  const names = [...new Set(rows.map(({ name }) => name))];
  const of = (experts: number | null, key: 'mean_kl_nats' | 'mean_kl_nats_se'): number[] =>
    names.map((name) => {
      const row = rows.find((own) => own.name === name && own.experts === experts);
      return row?.predictions[key] ?? Number.NaN;
    });
  return dotRows({
    title: 'Divergence from the original model',
    note: 'Mean KL of the predictions on unseen text, with its standard error.',
    xLabel: 'nats a token',
    xScale: 'log',
    rows: names,
    series: sizesOf(rows).map((experts) => ({
      name: sizeName(experts),
      values: of(experts, 'mean_kl_nats'),
      standardErrors: of(experts, 'mean_kl_nats_se'),
    })),
  });
}

/** Errors of the smallest size, told apart. */
function errorPanel(rows: readonly CompareRow[]): Promise<Panel> {
  const sizes = sizesOf(rows);
  const smallest = sizes[sizes.length - 1];
  const own = rows.filter(({ experts }) => experts === smallest);
  const series = (name: string, of: (row: CompareRow) => number | null) => ({
    name,
    values: own.map((row) => of(row) ?? Number.NaN),
  });
  return dotRows({
    title: `Error of the layers' outputs with ${sizeName(smallest)}`,
    note: "||merged - original|| / ||original||, mean over layers, each on the original model's inputs.",
    xLabel: 'relative error',
    rows: own.map(({ name }) => name),
    series: [
      series('all', (row) => row.mean_relative_error),
      series('of experts, routed as before', (row) => row.mean_expert_error),
      series('of the new routing', (row) => row.mean_routing_error),
    ],
  });
}

function sizePanel(rows: readonly CompareRow[]): Promise<Panel> {
  const kinds = [...new Set(rows.map(({ kind }) => kind))];
  return scatterChart({
    title: 'Size and divergence',
    xLabel: 'bytes of the model',
    yLabel: 'mean KL, nats',
    yScale: 'log',
    width: FULL_WIDTH,
    height: 340,
    series: kinds.map((kind): ScatterSeries => {
      const own = rows.filter((row) => row.kind === kind);
      return {
        name: kind,
        x: own.map(({ bytes }) => bytes),
        y: own.map(({ predictions }) => predictions.mean_kl_nats),
        labels: own.map(({ name, experts }) => `${name}, ${sizeName(experts)}`),
        radius: 4,
      };
    }),
  });
}

/** The figure of a comparison: divergence by method, errors told apart, size against divergence. */
export async function compareFigure(body: CompareBody): Promise<Figure> {
  const { rows, original, model } = body;
  return {
    title: 'Ways to fewer experts',
    subtitle: `${model.family}, ${model.experts} experts in ${model.layers_with_experts} layers`,
    headline: [
      { label: 'Perplexity of the original', value: original.perplexity, standardError: original.perplexity_se },
      { label: 'Bytes of the original', value: original.bytes },
    ],
    panels: [await divergencePanel(rows), await errorPanel(rows), await sizePanel(rows)],
    sections: [
      {
        heading: 'Table',
        body: tableMarkup({
          columns: [
            'method',
            'experts',
            'bytes',
            'error',
            'of experts',
            'of routing',
            'perplexity',
            'KL, nats',
            'top-1',
          ],
          rows: rows.map((row) => [
            row.name,
            row.experts ?? '',
            row.bytes,
            row.mean_relative_error,
            row.mean_expert_error ?? '',
            row.mean_routing_error ?? '',
            row.predictions.perplexity,
            row.predictions.mean_kl_nats,
            row.predictions.top1_agreement,
          ]),
        }),
      },
    ],
  };
}
