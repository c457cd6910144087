import { chartFigure } from '../report/plots/chart-figure.js';
import type { Figure } from '../report/plots/figure.js';
import type { LineChart, LineSeries } from '../report/plots/line-chart.js';
import type { ComputeBody } from './compute-report.js';
import type { LayerFigures } from './layer-figures.js';

function overLayers(body: ComputeBody, name: string, of: keyof LayerFigures, error?: keyof LayerFigures): LineSeries {
  return {
    name,
    x: body.by_layer.map(({ layer }) => layer),
    y: body.by_layer.map((layer) => layer[of]),
    ...(error && { standardError: body.by_layer.map((layer) => layer[error]) }),
  };
}

const X = { xLabel: 'layer (block, from 0)' } as const;

function quality(body: ComputeBody): LineChart {
  if (body.kind === 'pairs') {
    return {
      ...X,
      title: 'Separation of held-out pairs',
      note: 'Area under the curve and share of pairs in the right order; bands are one standard error.',
      yLabel: 'share',
      yHigh: 1,
      series: [
        overLayers(body, 'area under the curve', 'separation_auc', 'separation_auc_se'),
        overLayers(body, 'pairs in order', 'pair_accuracy', 'pair_accuracy_se'),
      ],
      references: [{ value: 0.5, label: 'chance' }],
    };
  }
  return {
    ...X,
    title: 'Correlation of the projection with the entropy',
    note: 'Held out: the vector of all other runs. Permuted: entropies exchanged inside runs. Bands: one standard error.',
    yLabel: 'correlation',
    yZero: true,
    series: [
      overLayers(body, 'held out', 'held_out_correlation', 'held_out_correlation_se'),
      overLayers(body, 'in sample', 'correlation'),
      ...(body.by_layer.some((layer) => Number.isFinite(layer.permuted_correlation_mean))
        ? [overLayers(body, 'permuted', 'permuted_correlation_mean', 'permuted_correlation_sd')]
        : []),
    ],
  };
}

/** Draws the figure of steer compute from the body of its report. */
export function drawVectors(body: ComputeBody, subtitle: string): Promise<Figure> {
  const best = [...body.by_layer].sort((a, b) =>
    body.kind === 'steps'
      ? (b.held_out_correlation || -2) - (a.held_out_correlation || -2)
      : (b.separation_auc || -2) - (a.separation_auc || -2),
  )[0];
  const strength: LineChart = {
    ...X,
    title: 'Length against the residual stream',
    note: 'Norm of the vector over the mean norm of the activations it was learnt from, per unit of strength.',
    yLabel: 'ratio',
    yZero: true,
    series: [overLayers(body, 'ratio', 'norm_ratio')],
  };
  const norms: LineChart = {
    ...X,
    title: 'Norms',
    note: 'Mean over the activations; centred: relative to the mean of the run or pair. Logarithmic.',
    yLabel: 'norm',
    yScale: 'log',
    series: [
      overLayers(body, 'activations', 'mean_activation_norm'),
      overLayers(body, 'centred', 'mean_centred_norm'),
      overLayers(body, 'vector', 'vector_norm'),
    ],
  };
  const cosines: LineChart = {
    ...X,
    title: 'Cosines of the vector',
    note: 'Controls have its norm; a random direction has a cosine near 0.',
    yLabel: 'cosine',
    yZero: true,
    series: [
      overLayers(body, body.kind === 'pairs' ? 'mean difference' : 'difference of quartiles', 'cosine_mean_difference'),
      overLayers(body, 'shuffled', 'cosine_shuffled'),
      overLayers(body, 'random', 'cosine_random'),
      {
        name: 'next layer',
        x: body.by_layer.slice(0, -1).map(({ layer }) => layer),
        y: body.cosine_to_next_layer,
      },
    ],
  };
  return chartFigure({
    title: `Steering vectors by ${body.method}`,
    subtitle,
    headline:
      body.kind === 'steps'
        ? [
            { label: 'Runs', value: body.runs },
            { label: 'Steps', value: body.steps },
            { label: 'Mean action entropy', value: body.mean_entropy_nats, unit: 'nats' },
            { label: `Held-out correlation, layer ${best.layer}`, value: best.held_out_correlation },
          ]
        : [
            { label: 'Pairs', value: body.pairs },
            { label: `Held-out area under the curve, layer ${best.layer}`, value: best.separation_auc },
          ],
    charts: [quality(body), strength, norms, cosines].map((chart) => ({ kind: 'lines', chart }) as const),
  });
}
