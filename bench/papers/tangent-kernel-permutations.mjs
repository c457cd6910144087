/**
 * Permutations of bits learnt exactly by ensembles of wide networks (arXiv 2502.16763; specification of distillation, section E).
 * Claims: the outputs of networks trained on the k basis vectors follow the predicted Gaussians, by Theta in NTK
 * parametrisation and by Sigma in the standard one; the number of networks grows about linearly in k for one input. The
 * published runs needed 43, 40, 69, 103 and 117 networks at k = 5, 8, 10, 15, 20 (standard parametrisation).
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { plotBytes } from '../../dist/src/report/plots/figure.js';
import { lineChart } from '../../dist/src/report/plots/line-chart.js';

const SIZES = [5, 8, 10, 15, 20];
const PUBLISHED = [43, 40, 69, 103, 117];
const NETS = Number(process.env.NETS ?? 150);

const folder = mkdtempSync(join(tmpdir(), 'permutations-'));
function ntk(name, ...words) {
  const report = join(folder, `${name}.json`);
  const argv = ['bin/surprisal.js', 'distill-pld', 'ntk', ...words, '--report', report, '--quiet'];
  const { status, stderr } = spawnSync(process.execPath, argv, { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(readFileSync(report, 'utf8'));
}

const simulated = Object.fromEntries(
  ['standard', 'ntk'].map((param) => [
    param,
    ntk(param, '--k', SIZES.join(','), '--param', param, '--nets', String(NETS), '--seed', '1'),
  ]),
);
// How far a network of finite width is from the limit.
const WIDTHS = [250, 1000, 4000, 16000];
const widths = WIDTHS.map((width) => ntk(`w${width}`, '--k', '6', '--nets', '1000', '--width', String(width)));

const rows = [];
for (const [param, report] of Object.entries(simulated)) {
  report.sizes.forEach(({ k, rows: [row] }, i) => {
    const { simulation: s } = row;
    rows.push([
      param,
      k,
      row.mean_on.toFixed(4),
      s.mean_on.measured.toFixed(4),
      s.mean_on.z.toFixed(1),
      row.mean_off.toFixed(4),
      s.mean_off.measured.toFixed(4),
      s.mean_off.z.toFixed(1),
      Math.sqrt(row.variance).toFixed(4),
      Math.sqrt(s.variance_off.measured).toFixed(4),
      s.variance_off.z.toFixed(1),
      row.models.gaussian_union,
      s.models_measured ?? `> ${NETS}`,
      param === 'standard' ? PUBLISHED[i] : '',
    ]);
  });
}
const header = [
  'param',
  'k',
  'mean_on',
  'mean_on_measured',
  'z',
  'mean_off',
  'mean_off_measured',
  'z',
  'std',
  'std_measured',
  'z',
  'models_gaussian_union',
  'models_measured',
  'models_published',
];
const bias = widths.map(
  (
    {
      sizes: [
        {
          rows: [row],
        },
      ],
    },
    i,
  ) => {
    const { measured, predicted, standard_error: error } = row.simulation.mean_on;
    return [WIDTHS[i], (measured - predicted).toFixed(5), error.toFixed(5)];
  },
);
mkdirSync('docs/papers', { recursive: true });
const csv = (head, lines) => `${[head, ...lines].map((line) => line.join(',')).join('\n')}\n`;
writeFileSync('docs/papers/tangent-kernel-permutations.csv', csv(header, rows));
writeFileSync('docs/papers/tangent-kernel-permutations-width.csv', csv(['width', 'mean_on_excess', 'se'], bias));
console.log(csv(header, rows));
console.log(csv(['width', 'mean_on_excess', 'se'], bias));

const theory = Object.fromEntries(
  ['standard', 'ntk'].map((param) => [param, ntk(`t-${param}`, '--k', '5,8,10,15,20,30,40,60,80', '--param', param)]),
);
const x = theory.ntk.sizes.map(({ k }) => k);
const neededBy = (param) => theory[param].sizes.map(({ rows: [row] }) => row.models.gaussian_union);
const measuredBy = (param) =>
  simulated[param].sizes.map(({ rows: [row] }) => row.simulation.models_measured ?? Number.NaN);
const panels = [
  await lineChart({
    title: 'Networks needed for one input with two ones, δ = 0.1',
    note: 'Bound: union over the outputs. Measured: first networks right on 90 % of the tests.',
    xLabel: 'bits k',
    yLabel: 'networks',
    yScale: 'log',
    series: [
      { name: 'bound by Σ', x, y: neededBy('standard'), colour: 0, dashed: true },
      { name: 'measured, standard', x: SIZES, y: measuredBy('standard'), colour: 0 },
      { name: 'published runs', x: SIZES, y: PUBLISHED, colour: 1 },
      { name: 'bound by Θ', x, y: neededBy('ntk'), colour: 2, dashed: true },
    ],
  }),
  await lineChart({
    title: 'Distance of a finite network from the limit',
    note: 'Mean output on target ones, k = 6, less the prediction by Θ; 1,000 networks a width.',
    xLabel: 'hidden units',
    yLabel: 'measured less predicted',
    xScale: 'log',
    yZero: true,
    series: [
      {
        name: 'mean on',
        x: WIDTHS,
        y: bias.map(([, excess]) => Number(excess)),
        standardError: bias.map(([, , error]) => Number(error)),
      },
    ],
  }),
];
const figure = { title: 'Permutations in the tangent-kernel regime', headline: [], panels, sections: [] };
writeFileSync('docs/papers/tangent-kernel-permutations.svg', await plotBytes(figure, '.svg'));
