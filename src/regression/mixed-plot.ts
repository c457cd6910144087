import type { Figure } from '../report/plots/figure.js';
import { lineChart } from '../report/plots/line-chart.js';
import { FULL_WIDTH, type Panel } from '../report/plots/panel.js';
import { scatterChart } from '../report/plots/scatter-chart.js';
import type { MixedBody } from './mixed-report.js';

/** Outlying clusters named in the headline. */
const MOST_NAMED = 4;

/** Draws the weight of every cluster, and the likelihood of m in the clustered and in the joint model. */
export async function drawMixedEffects(body: MixedBody, subtitle: string): Promise<Figure> {
  const outlying = new Set(body.outlying_clusters);
  const named = outlying.size > 0 && outlying.size <= MOST_NAMED ? body.outlying_clusters.join(', ') : outlying.size;
  const series = (name: string, chosen: boolean) => {
    const places = Array.from(body.cluster_weights.keys()).filter(
      (i) => outlying.has(body.cluster_weights[i].cluster) === chosen,
    );
    return {
      name,
      x: places.map((i) => i + 1),
      y: places.map((i) => body.cluster_weights[i].weight),
      labels: places.map((i) => body.cluster_weights[i].cluster),
      radius: 4,
    };
  };
  const panels: Panel[] = [
    await scatterChart({
      title: 'Weight of every cluster',
      note: 'Clusters that lie far away count for little: (m + n) / (m + d\u00b2).',
      xLabel: 'cluster, in the order of the table',
      yLabel: 'weight',
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
      { label: 'Outlying clusters', value: named },
    ],
    panels,
    sections: [],
  };
}
