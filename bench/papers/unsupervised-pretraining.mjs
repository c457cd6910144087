/**
 * When unlabelled rows help (specification of entropy analyses, section H). Claims: a latent-variable model of m unlabelled
 * rows with a small head on n labelled ones beats supervised learning when m is much larger than n; its excess risk falls as
 * a/m + b/n (square loss), so that with many unlabelled rows the slope of log risk on log n is -1; beyond some n
 * supervised learning wins when m is small; as the signal vanishes so does the gain. Factor model, Gaussian mixture and
 * contrastive pairs, 20 draws each.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const scratch = mkdtempSync(join(tmpdir(), 'surprisal-'));

function study(name, ...options) {
  const report = join(scratch, `${name}.json`);
  const { status } = spawnSync(
    process.execPath,
    ['bin/surprisal.js', 'analyze-entropy', 'pretraining', '--case', name, '--quiet', '--report', report, ...options],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  );
  if (status !== 0) throw new Error(`${name} ended with ${status}`);
  return JSON.parse(readFileSync(report, 'utf8'));
}

const studies = [];
try {
  studies.push(study('factor'), study('mixture'), study('contrastive', '--signals', 'none'));
} finally {
  rmSync(scratch, { recursive: true });
}

const csv = ['case,estimator,m,n,excess_risk,excess_risk_se'];
for (const { case: name, cells } of studies) {
  for (const cell of cells) {
    csv.push([name, cell.method, cell.m, cell.n, cell.excess_risk, cell.excess_risk_se].join(','));
  }
}
writeFileSync('docs/papers/unsupervised-pretraining.csv', `${csv.join('\n')}\n`);

const charts = studies.map(({ case: name, measure, cells, seeds }) => {
  const curves = [...new Set(cells.map(({ method, m }) => `${method} ${m}`))];
  return {
    kind: 'lines',
    chart: {
      title: { factor: 'Factor model', mixture: 'Gaussian mixture', contrastive: 'Contrastive pairs' }[name],
      note: `Excess ${measure === 'mse' ? 'mean squared error' : 'error rate'}, mean of ${seeds} draws.`,
      xLabel: 'labelled rows n',
      yLabel: 'excess risk',
      xScale: 'log',
      yScale: 'log',
      series: curves.map((key) => {
        const own = cells.filter(({ method, m }) => `${method} ${m}` === key);
        const [{ method, m }] = own;
        return {
          name: method === 'pretrained' ? `m = ${m}` : method,
          dashed: method !== 'pretrained',
          x: own.map(({ n }) => n),
          y: own.map(({ excess_risk: risk }) => (risk > 0 ? risk : Number.NaN)),
          standardError: own.map(({ excess_risk_se: error }) => error),
        };
      }),
    },
  };
});
const swept = studies.filter(({ signal_sweep: sweep }) => sweep.length > 0);
charts.push({
  kind: 'lines',
  chart: {
    title: 'Gain against signal',
    note: 'Share of the trivial risk saved beyond supervised learning.',
    xLabel: 'length of loadings or means',
    yLabel: 'gain',
    xScale: 'log',
    yZero: true,
    series: swept.map(({ case: name, signal_sweep: sweep }) => ({
      name,
      x: sweep.map(({ signal }) => signal),
      y: sweep.map(({ gain }) => gain.value),
    })),
  },
});
const figure = await chartFigure({
  title: 'What unlabelled rows are worth',
  subtitle: '50 features, latent dimension 5',
  charts,
});
writeFileSync('docs/papers/unsupervised-pretraining.svg', await plotBytes(figure, 'unsupervised-pretraining.svg'));

const [factor, mixture, pairs] = studies;
const verdict = (holds) => (holds ? 'reproduced' : 'not reproduced');
const interval = ({ value, low, high }) => `${value?.toFixed(2)} (${low?.toFixed(2)} to ${high?.toFixed(2)})`;
for (const { case: name, rates, crossover, two_term: twoTerm, cells } of studies) {
  console.log(`\n${name}`);
  for (const { method, m, slope } of rates) {
    const risks = cells
      .filter((cell) => cell.method === method && cell.m === m)
      .map((cell) => cell.excess_risk.toPrecision(3));
    console.log(`| ${method} | ${m || ''} | ${risks.join(' | ')} | ${interval(slope)} |`);
  }
  for (const { m, n } of crossover)
    console.log(`m ${m}: supervised wins from n = ${n.value?.toFixed(0) ?? 'never in the grid'}`);
  for (const { form, a, b, relative_residual: residual } of twoTerm)
    console.log(`${form}: a ${interval(a)}, b ${interval(b)}, residual ${residual.toFixed(2)}`);
}
for (const { case: name, signal_sweep: sweep } of swept)
  console.log(
    `${name}, gain by signal: ${sweep.map(({ signal, gain }) => `${signal}: ${gain.value.toFixed(3)}`).join(', ')}`,
  );

const cell = ({ cells }, method, m, n) =>
  cells.find((own) => own.method === method && own.m === m && own.n === n).excess_risk;
const last = factor.rates[factor.rates.length - 1].slope;
console.log(`\nfactor, m = 100000: slope in [-1.3, -0.7]: ${verdict(last.value > -1.3 && last.value < -0.7)}`);
for (const [own, m] of [
  [factor, 100000],
  [mixture, 100000],
  [pairs, 10000],
]) {
  const wins = cell(own, 'pretrained', m, 30) < cell(own, 'supervised', 0, 30);
  console.log(`${own.case}, m = ${m} against n = 30: pretraining wins: ${verdict(wins)}`);
}
console.log(`factor, m = 100: supervised learning wins for large n: ${verdict(factor.crossover[0].n.value !== null)}`);
for (const { case: name, signal_sweep: sweep } of swept)
  console.log(`${name}: no gain without signal: ${verdict(Math.abs(sweep[0].gain.value) < 0.02)}`);
