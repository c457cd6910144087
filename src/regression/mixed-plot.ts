import type { Figure } from '../report/plots/figure.js';
import { lineChart } from '../report/plots/line-chart.js';
import { FULL_WIDTH, type Panel } from '../report/plots/panel.js';
import { scatterChart } from '../report/plots/scatter-chart.js';
import type { MixedBody } from './mixed-report.js';

/** Draws the weight of every cluster against its distance, the two profiles of m, and the effects of both models. */
export async function drawMixedEffects(body: MixedBody, subtitle: string): Promise<Figure> {
  const outlying = new Set(body.outlying_clusters);
  const series = (name: string, chosen: boolean) => {
    const rows = body.cluster_weights.filter(({ cluster }) => outlying.has(cluster) === chosen);
    return {
      name,
      x: rows.map((row) => row.mahalanobis2_per_observation),
      y: rows.map((row) => row.weight),
      labels: rows.map(({ cluster }) => cluster),
      radius: 4,
    };
  };
  const panels: Panel[] = [
    await scatterChart({
      title: 'Weight of every cluster',
      note: 'Clusters that lie far away count for little: (m + n) / (m + d\u00b2).',
      xLabel: 'squared Mahalanobis distance by observation',
      yLabel: 'weight',
      xScale: 'log',
      yScale: 'log',
      width: FULL_WIDTH,
      height: 320,
      series: [series('weight of at least 0.5', false), ...(outlying.size > 0 ? [series('outlying', true)] : [])],
    }),
  ];
  if (body.profile.length > 0) {
    panels.push(
      await lineChart({
        title: 'Clustered model: likelihood of m',
        note: 'All else fitted anew at every point.',
        xLabel: 'degrees of freedom m',
        xScale: 'log',
        yLabel: 'log-likelihood, nats',
        series: [
          { name: 'clustered', x: body.profile.map(({ m }) => m), y: body.profile.map((p) => p.log_likelihood) },
        ],
        references: [{ value: body.log_likelihood_gaussian, label: 'normal' }],
        markedX: { value: body.degrees_of_freedom, label: 'fitted' },
      }),
    );
  }
  const { profile } = body.joint_model;
  panels.push(
    await lineChart({
      title: 'One joint vector: likelihood of m',
      note: 'It rises without end: q is not identifiable from one vector.',
      xLabel: 'degrees of freedom m',
      xScale: 'log',
      yLabel: 'log-likelihood, nats',
      series: [{ name: 'joint', x: profile.map(({ m }) => m), y: profile.map((p) => p.log_likelihood) }],
    }),
  );
  const effects = body.fixed_effects;
  panels.push(
    await scatterChart({
      title: 'Fixed effects of both models',
      note: 'On the diagonal both agree; outlying clusters move the normal ones.',
      xLabel: 'normal clusters',
      yLabel: 'q-Gaussian clusters',
      series: [
        {
          name: 'effect',
          x: effects.map((row) => row.theta_gaussian),
          y: effects.map(({ theta }) => theta),
          labels: effects.map(({ effect }) => effect),
          radius: 4,
        },
      ],
      curve: diagonal(effects.flatMap((row) => [row.theta, row.theta_gaussian])),
    }),
  );
  return {
    title: 'Mixed effects with heavy tails',
    subtitle,
    headline: [
      { label: 'Clusters', value: body.clusters },
      { label: 'Observations', value: body.observations },
      { label: 'Degrees of freedom', value: body.degrees_of_freedom },
      { label: 'sigma\u00b2', value: body.sigma2 },
      { label: 'Log-likelihood', value: body.log_likelihood, unit: 'nats' },
      { label: 'of the normal model', value: body.log_likelihood_gaussian, unit: 'nats' },
      { label: 'Outlying clusters', value: body.outlying_clusters.length },
    ],
    panels,
    sections: [],
  };
}

function diagonal(values: readonly number[]): { label: string; x: number[]; y: number[] } {
  const ends = [Math.min(...values), Math.max(...values)];
  return { label: 'equal', x: ends, y: ends };
}
