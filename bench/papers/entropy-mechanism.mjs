/**
 * The entropy mechanism of reinforcement learning (Cui et al. 2025; specification of policies, section 1). Claims: under plain
 * policy gradient entropy is spent early, and with it most of the gain; a positive covariance of log-probability and advantage
 * drives the loss; performance follows R = -a e^H + b, and the first 15 % of the steps predict the rest; Clip-Cov and KL-Cov
 * keep the entropy up and end higher. On the shared lock, ten seeds.
 */
import { writeFileSync } from 'node:fs';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';
import { bandOf, mean, shown, standardError, trainLab } from '../lab-runs.mjs';

const SEEDS = 10;
const METHODS = [
  'plain=grpo:dual-clip=0',
  'KL-Cov 0.1 beta 1=kl-cov:fraction=0.1,beta=1',
  'KL-Cov 0.1 beta 4=kl-cov:fraction=0.1,beta=4',
  'KL-Cov 2e-4=kl-cov:fraction=2e-4,beta=1',
  'Clip-Cov 0.1=clip-cov:ratio=0.1,lower=0.5,upper=20',
  'Clip-Cov 2e-4=clip-cov:ratio=2e-4,lower=1,upper=5',
];
/** Of 500 steps, as the paper's 200 of 2400. */
const FIRST = 42;
const AT = [0, 50, 100, 200, 499];

const { report, curves } = trainLab(METHODS, '--seeds', String(SEEDS));
const labels = [...curves.keys()];
const plain = curves.get('plain');

console.log(
  `| rule | ${AT.map((s) => `H at ${s}`).join(' | ')} | ${AT.slice(1)
    .map((s) => `R at ${s}`)
    .join(' | ')} |`,
);
console.log(`|---|${'---|'.repeat(2 * AT.length - 1)}`);
for (const label of labels) {
  const runs = curves.get(label);
  const cells = [
    ...AT.map((s) => shown(runs.map((run) => run.entropy_nats[s]))),
    ...AT.slice(1).map((s) => shown(runs.map((run) => run.success[s]))),
  ];
  console.log(`| ${label} | ${cells.join(' | ')} |`);
}

const shareOf = (column, run) => (run[column][FIRST] - run[column][0]) / (run[column][499] - run[column][0]);
console.log(
  `\nplain, first ${FIRST} steps (8.3 %): ${shown(plain.map((run) => shareOf('entropy_nats', run)))} of the entropy`,
);
console.log(`and ${shown(plain.map((run) => shareOf('success', run)))} of the gain`);

/** Fit through the origin of the measured change of entropy to the covariance, over the steps in which something moves. */
function changeFit({ entropy_nats: entropy, covariance }) {
  let [xy, xx, yy, agree, n, residual] = [0, 0, 0, 0, 0, 0];
  const points = covariance.slice(0, -1).flatMap((c, s) => (c === 0 ? [] : [[c, entropy[s + 1] - entropy[s]]]));
  for (const [x, y] of points) {
    xy += x * y;
    xx += x * x;
  }
  const eta = -xy / xx;
  for (const [x, y] of points) {
    residual += (y + eta * x) ** 2;
    yy += y * y;
    if (Math.sign(y) === -Math.sign(x)) agree++;
    n++;
  }
  return { eta, r2: 1 - residual / yy, agree: agree / n, positive: points.filter(([x]) => x > 0).length / n };
}
console.log('\n| rule | step size eta | R2 through 0 | signs agree | covariance > 0 |\n|---|---|---|---|---|');
for (const label of labels) {
  const fits = curves.get(label).map(changeFit);
  const cells = ['eta', 'r2', 'agree', 'positive'].map((key) => shown(fits.map((fit) => fit[key])));
  console.log(`| ${label} | ${cells.join(' | ')} |`);
}

console.log(
  '\n| rule | R2 of the law | ceiling | early ceiling | its 90 % interval (blocks) | RMSE of the rest | R at 499 |',
);
console.log('|---|---|---|---|---|---|---|');
for (const { label, laws } of report.methods) {
  const early = laws.map((law) => law.early);
  const ends = [0, 1].map((end) => mean(early.map((law) => law.ceiling_interval_blocks[end])).toFixed(3));
  const cells = [
    shown(laws.map((law) => law.full.r2)),
    shown(laws.map((law) => law.full.ceiling)),
    shown(early.map((law) => law.ceiling)),
    `${ends[0]} to ${ends[1]}`,
    shown(early.map((law) => law.rmse_of_rest)),
    shown(curves.get(label).map((run) => run.success[499])),
  ];
  console.log(`| ${label} | ${cells.join(' | ')} |`);
}

/** The law of the first 75 steps of every seed, averaged. */
function lawCurve(label, colour) {
  const laws = report.methods.find((method) => method.label === label).laws.map((law) => law.early);
  const x = Array.from({ length: 60 }, (_, i) => 0.015 * (1.65 / 0.015) ** (i / 59));
  const y = x.map((h) => mean(laws.map(({ a, b }) => b - a * Math.exp(h))));
  return { name: `${label}: law of the first 75 steps`, x, y, dashed: true, colour };
}
const path = (label, colour) => {
  const runs = curves.get(label);
  const averaged = (column) => runs[0].step.map((_, s) => mean(runs.map((run) => run[column][s])));
  return { name: label, x: averaged('entropy_nats'), y: averaged('success'), colour };
};
const covariance = plain[0].step.slice(0, 150);
const figure = await chartFigure({
  title: 'The entropy mechanism on the shared lock',
  subtitle: `${SEEDS} seeds, 500 steps; bands are one standard error`,
  headline: labels.map((label) => {
    const ends = curves.get(label).map((run) => run.success[499]);
    return { label: `${label}: R at 499`, value: mean(ends), standardError: standardError(ends) };
  }),
  charts: [
    {
      kind: 'lines',
      chart: {
        ...{ title: 'Entropy', xLabel: 'step', yLabel: 'entropy (nats)', yScale: 'log', dots: false },
        series: labels.map((label) => bandOf(label, curves.get(label), 'entropy_nats')),
      },
    },
    {
      kind: 'lines',
      chart: {
        ...{ title: 'Probability of a right answer', xLabel: 'step', yLabel: 'success', dots: false },
        series: labels.map((label) => bandOf(label, curves.get(label), 'success')),
      },
    },
    {
      kind: 'lines',
      chart: {
        ...{ title: 'Success against entropy, with the laws of the first 75 steps', dots: false },
        ...{ xLabel: 'entropy (nats)', yLabel: 'success', xScale: 'log', yLow: 0 },
        series: ['plain', 'KL-Cov 0.1 beta 4', 'Clip-Cov 0.1'].flatMap((label, i) => [
          path(label, i),
          lawCurve(label, i),
        ]),
      },
    },
    {
      kind: 'lines',
      chart: {
        ...{ title: 'Covariance and loss of entropy, plain rule', xLabel: 'step', dots: false },
        ...{
          yLabel: 'a step (nats; covariance in nats)',
          note: 'Their ratio is the effective step size; it falls as the policy sharpens.',
        },
        series: [
          { ...bandOf('mean covariance', plain, 'covariance'), x: covariance },
          {
            name: 'measured loss of entropy',
            x: covariance,
            y: covariance.map((s) => mean(plain.map((run) => run.entropy_nats[s] - run.entropy_nats[s + 1]))),
          },
        ].map((series) => ({
          ...series,
          y: series.y.slice(0, 150),
          standardError: series.standardError?.slice(0, 150),
        })),
      },
    },
  ],
});
writeFileSync('docs/papers/entropy-mechanism.svg', await plotBytes(figure, '.svg'));
