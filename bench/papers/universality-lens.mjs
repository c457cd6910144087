/**
 * Whether a mixture over ever more models costs more (Feder, Urbanke & Fogel 2025; the exact toy of the specification of
 * distillation, section F6). Claims: on a grid of Bernoulli models the expected regret does not grow with the number of
 * models, while ln of that number does; both bounds by the weight of the hypothesis hold and stay bounded.
 */
import { writeFileSync } from 'node:fs';
import { gridRegret } from '../../dist/src/distillation/bernoulli-grid.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const THETAS = [0.05, 0.3, 0.5];
const SAMPLES = [50, 200, 1000];
const GRIDS = [25, 101, 1001, 10001];

const rows = THETAS.flatMap((theta) =>
  SAMPLES.flatMap((samples) => GRIDS.map((grid) => ({ theta, samples, ...gridRegret(theta, samples, grid) }))),
);
const columns = Object.keys(rows[0]);
writeFileSync(
  'docs/papers/universality-lens.csv',
  `${[columns.join(','), ...rows.map((row) => columns.map((column) => row[column]).join(','))].join('\n')}\n`,
);

const shown = rows.filter(({ theta, samples }) => theta === 0.3 && samples === 200);
const line = (name, key) => ({ name, x: GRIDS, y: shown.map((row) => row[key]) });
const figure = await chartFigure({
  title: 'Regret of a mixture against the number of its models',
  subtitle: 'Bernoulli models on a grid, theta 0.3, 200 samples; expectation by enumeration',
  charts: [
    {
      kind: 'lines',
      chart: {
        title: 'Expected regret and its bounds',
        xLabel: 'models',
        yLabel: 'nats',
        xScale: 'log',
        yZero: true,
        series: [
          line('expected regret', 'expected_regret_nats'),
          line('Jensen bound', 'jensen_bound_nats'),
          line('ball bound', 'ball_bound_nats'),
          line('ln(models)', 'log_models_nats'),
        ],
        references: [{ value: 0.5 * Math.log(200), label: '(1/2) ln n' }],
      },
    },
  ],
});
writeFileSync('docs/papers/universality-lens.svg', await plotBytes(figure, 'universality-lens.svg'));

console.log('| theta | n | models | expected regret | Jensen bound | ball bound | ln(models) |');
console.log('|---|---|---|---|---|---|---|');
for (const row of rows) {
  const cells = ['expected_regret_nats', 'jensen_bound_nats', 'ball_bound_nats', 'log_models_nats'];
  console.log(
    `| ${row.theta} | ${row.samples} | ${row.grid} | ${cells.map((cell) => row[cell].toFixed(4)).join(' | ')} |`,
  );
}
const growth = THETAS.flatMap((theta) =>
  SAMPLES.map((samples) => {
    const own = rows.filter((row) => row.theta === theta && row.samples === samples);
    return Math.abs(own[3].expected_regret_nats - own[1].expected_regret_nats);
  }),
);
const said = (claim, holds) => console.log(`${claim}: ${holds ? 'reproduced' : 'not reproduced'}`);
console.log(`largest change of the regret from 101 to 10,001 models: ${Math.max(...growth).toExponential(2)} nats`);
said('the regret does not grow with the number of models', Math.max(...growth) < 0.01);
said(
  'both bounds hold',
  rows.every(
    (row) => row.expected_regret_nats <= row.jensen_bound_nats && row.jensen_bound_nats <= row.ball_bound_nats,
  ),
);
