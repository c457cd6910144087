import type { Figure } from '../report/plots/figure.js';
import { lineChart } from '../report/plots/line-chart.js';
import type { Panel } from '../report/plots/panel.js';
import { scatterChart } from '../report/plots/scatter-chart.js';
import type { KoopmanResult } from './koopman-job.js';
import { nearUnitCount } from './modes.js';

const CIRCLE_POINTS = 181;

/** Sequences beyond this share the colour of the last. */
const COLOURED_SEQUENCES = 6;

/** Eigenvalues on the unit circle, information by lag, allocations, the latent portrait, and the course of a fit. */
export async function drawKoopman(result: KoopmanResult, subtitle: string): Promise<Figure> {
  const { terms, modes, gaussian } = result;
  const angles = Array.from({ length: CIRCLE_POINTS }, (_, i) => (2 * Math.PI * i) / (CIRCLE_POINTS - 1));
  const panels: Panel[] = [
    await scatterChart({
      title: 'Eigenvalues of the Koopman matrix',
      note: 'On the unit circle a mode neither dies out nor grows.',
      xLabel: 'real part',
      yLabel: 'imaginary part',
      series: [{ name: 'eigenvalue', x: modes.map(({ real }) => real), y: modes.map(({ imaginary }) => imaginary) }],
      curve: { label: 'unit circle', x: angles.map(Math.cos), y: angles.map(Math.sin) },
      square: true,
    }),
    await portrait(result),
    await lineChart({
      title: 'Latent mutual information by lag',
      note: 'I(z_{t−n}; z_t) of the linear-Gaussian model, in closed form.',
      xLabel: 'lag n, steps',
      yLabel: 'nats',
      yZero: true,
      series: [
        {
          name: 'I(z_{t−n}; z_t)',
          x: gaussian.lags.map(({ lag }) => lag),
          y: gaussian.lags.map(({ latentNats }) => latentNats),
        },
      ],
    }),
    await lineChart({
      title: 'Where a budget of variance goes',
      note: 'Water-filling feeds the strongest modes alone; the entropy keeps all of them alive.',
      xLabel: 'mode, by falling gain',
      yLabel: 'variance',
      yZero: true,
      series: [
        { name: 'water-filling', x: indices(gaussian.gains.length), y: gaussian.waterFilling.power },
        { name: 'entropy-regularised', x: indices(gaussian.gains.length), y: gaussian.regularised.power },
      ],
    }),
  ];
  if (result.fitSteps.length > 0) panels.push(...(await fitPanels(result)));
  return {
    title: 'Information in a linear latent representation',
    subtitle,
    headline: [
      { label: 'Sequences', value: result.sequences },
      { label: 'Latent width', value: result.width },
      { label: 'Effective dimension', value: terms.effectiveDimension },
      { label: 'Coherence', value: terms.coherenceNats, unit: 'nats' },
      { label: 'Spectral radius', value: modes[0].modulus },
      { label: 'Modes near the unit circle', value: nearUnitCount(modes) },
    ],
    panels,
    sections: [],
  };
}

const indices = (length: number): Float64Array => Float64Array.from({ length }, (_, i) => i);

function portrait(result: KoopmanResult): Promise<Panel> {
  const { points, sequence } = result.portrait;
  const groups = new Map<number, { x: number[]; y: number[] }>();
  sequence.forEach((s, i) => {
    const key = Math.min(s, COLOURED_SEQUENCES - 1);
    const group = groups.get(key) ?? { x: [], y: [] };
    group.x.push(points[2 * i]);
    group.y.push(points[2 * i + 1]);
    groups.set(key, group);
  });
  const last = result.sequences > COLOURED_SEQUENCES ? ' and later' : '';
  return scatterChart({
    title: 'Latent phase portrait',
    note: 'The two latents with the largest variance.',
    xLabel: 'first latent',
    yLabel: 'second latent',
    series: [...groups].map(([key, { x, y }]) => ({
      name: `sequence ${key}${key === COLOURED_SEQUENCES - 1 ? last : ''}`,
      x,
      y,
      radius: 1.6,
    })),
    height: 420,
  });
}

async function fitPanels({ fitSteps }: KoopmanResult): Promise<Panel[]> {
  const x = fitSteps.map(({ step }) => step);
  return [
    await lineChart({
      title: 'Effective dimension during the fit',
      xLabel: 'optimiser step',
      yLabel: 'dimensions',
      yZero: true,
      series: [{ name: 'e^S', x, y: fitSteps.map(({ effectiveDimension }) => effectiveDimension) }],
    }),
    await lineChart({
      title: 'Coherence during the fit',
      xLabel: 'optimiser step',
      yLabel: 'nats',
      series: [{ name: 'coherence', x, y: fitSteps.map(({ coherenceNats }) => coherenceNats) }],
    }),
    await lineChart({
      title: 'Errors during the fit',
      note: 'Mean squared errors of standardised observations; logarithmic.',
      xLabel: 'optimiser step',
      yLabel: 'mean squared error',
      yScale: 'log',
      series: [
        { name: 'reconstruction', x, y: fitSteps.map(({ reconstruction }) => reconstruction) },
        { name: 'one step ahead', x, y: fitSteps.map(({ prediction }) => prediction) },
      ],
    }),
  ];
}
