import type { Figure } from '../report/plots/figure.js';
import { histogramChart } from '../report/plots/histogram.js';
import { lineChart } from '../report/plots/line-chart.js';
import type { Panel } from '../report/plots/panel.js';
import type { ActivationResult } from './activation-job.js';
import { summariseTraining } from './activation-report.js';
import type { ActivationTraining } from './activation-training.js';

/** Curves of the activations, the correction, H by ε, outputs of recorded inputs, and accuracies of trained networks. */
export async function drawActivations(
  result: ActivationResult,
  training: ActivationTraining | undefined,
  subtitle: string,
): Promise<Figure> {
  const { table, applied, sweep, plugIn } = result;
  const rows = sweep.filter(({ increasing }) => increasing).sort((a, b) => a.eps - b.eps);
  const panels: Panel[] = [
    await lineChart({
      title: 'Activation before and after',
      note: `Improved: the inverse of y + ε η at ε = ${Number(applied.eps.toPrecision(4))}.`,
      xLabel: 'input',
      yLabel: 'output',
      dots: false,
      series: [
        { name: 'base', x: table.input, y: table.base },
        { name: 'improved', x: table.input, y: table.improved },
        { name: 'base + a c', x: table.input, y: table.fitted, dashed: true },
      ],
    }),
    await lineChart({
      title: 'Correction',
      note: `c = −p′ + p f″/f′ by input; a = ${Number(result.fit.coefficient.toPrecision(4))}.`,
      xLabel: 'input',
      yLabel: 'correction',
      dots: false,
      series: [{ name: 'c', x: table.input, y: table.correction }],
    }),
    await lineChart({
      title: 'Output entropy along the direction',
      note: 'H less the logarithm of the output range, where the inverse still increases.',
      xLabel: 'ε',
      yLabel: 'nats',
      series: [{ name: 'H', x: rows.map(({ eps }) => eps), y: rows.map(({ nats }) => nats - result.logRange) }],
    }),
  ];
  if (plugIn) {
    panels.push(
      await histogramChart({
        title: 'Outputs of the recorded inputs',
        xLabel: 'output',
        unit: 'unit',
        items: 'outputs',
        series: [
          { name: 'base', histogram: { edges: plugIn.edges, counts: plugIn.countsBefore } },
          { name: 'improved', histogram: { edges: plugIn.edges, counts: plugIn.countsAfter } },
        ],
      }),
    );
  }
  if (training) panels.push(await trainingPanel(training));
  return {
    title: 'Search of an activation by the entropy of its outputs',
    subtitle,
    headline: [
      { label: 'Entropy of the outputs', value: result.entropyNats, unit: 'nats' },
      { label: 'Less ln of their range', value: result.entropyNats - result.logRange, unit: 'nats' },
      { label: 'First variation', value: result.firstVariation },
      { label: 'Excluded mass', value: result.excludedMass },
      { label: 'Largest admissible ε', value: result.admissible.high },
    ],
    panels,
    sections: [],
  };
}

/** A line a seed over the activations: networks of one seed start alike. */
function trainingPanel(training: ActivationTraining): Promise<Panel> {
  const names = summariseTraining(training).map(({ activation }) => activation);
  const seeds = [...new Set(training.runs.map(({ seed }) => seed))];
  const x = names.map((_, i) => i + 1);
  return lineChart({
    title: 'Accuracy of trained networks',
    note: names.map((name, i) => `${i + 1} ${name}`).join(', '),
    xLabel: 'activation',
    yLabel: 'held-out accuracy',
    series: seeds.map((seed) => ({
      name: `seed ${seed}`,
      x,
      y: names.map(
        (name) =>
          training.runs.find((run) => run.seed === seed && run.activation === name)?.metrics.accuracy ?? Number.NaN,
      ),
    })),
  });
}
