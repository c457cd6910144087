/**
 * Generating Synergistic Formulaic Alpha Collections (Yu et al., KDD 2023): a panel whose next returns have two planted causes. Pools
 * found by three searchers at one budget are compared, on later days, with as many formulas chosen one by one for their own IC among
 * all that the same search evaluated.
 *
 * node bench/papers/formulaic-alphas.mjs [--seeds 5] [--evaluations 800]
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { meanCurve } from '../../dist/src/policy/alphas/alpha-plot.js';
import { judgeFormulas } from '../../dist/src/policy/alphas/judge-job.js';
import { searchFormulas } from '../../dist/src/policy/alphas/search-job.js';
import { DEFAULT_CONSTANTS, DEFAULT_OPERATORS } from '../../dist/src/policy/alphas/search-space.js';
import { syntheticPanel } from '../../dist/src/policy/alphas/synthetic-panel.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const { values } = parseArgs({
  options: { seeds: { type: 'string', default: '5' }, evaluations: { type: 'string', default: '800' } },
});
const SEEDS = Number(values.seeds);
const BUDGET = Number(values.evaluations);
const DAYS = 460;
const STOCKS = 60;
const STRENGTH = 0.15;
const CAPACITY = 10;
const [BACKTRACK, FUTURE] = [40, 1];
const TARGET = 'Sub(Div(Ref($close,-1d),$close),1.0)';
const PARTS = [
  { name: 'train', from: 40, to: 250 },
  { name: 'valid', from: 251, to: 350 },
  { name: 'test', from: 351, to: 459 },
];
const policy = (label, rule, settings) => ({
  kind: 'policy',
  label,
  settings: { episodes: 64, epochs: 4, learningRate: 1, rule, settings },
});
const SEARCHERS = [
  policy('policy, entropy bonus', 'entropy-bonus', { coefficient: 0.1 }),
  policy('policy, plain', 'grpo', {}),
  { kind: 'random', label: 'random' },
  { kind: 'genetic', label: 'genetic' },
];

const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
const error = (list) => {
  const centre = mean(list);
  return list.length < 2
    ? 0
    : Math.sqrt(list.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (list.length - 1) / list.length);
};
const text = (list) => (list.some(Number.isNaN) ? '-' : `${mean(list).toFixed(4)} ± ${error(list).toFixed(4)}`);

const searches = [];
const rows = [];
for (const searcher of SEARCHERS) {
  const runs = [];
  for (let seed = 0; seed < SEEDS; seed++) {
    const panel = syntheticPanel({ days: DAYS, stocks: STOCKS, seed: 100 + seed, strength: STRENGTH });
    const base = { panel, target: TARGET, backtrack: BACKTRACK, future: FUTURE, cacheBytes: 2 ** 28, threads: 1 };
    const result = searchFormulas(
      {
        ...base,
        train: [PARTS[0].from, PARTS[0].to],
        space: {
          operators: DEFAULT_OPERATORS,
          windows: [1, 5, 10, 20],
          constants: DEFAULT_CONSTANTS,
          features: panel.features,
          maxTokens: 15,
        },
        pool: { capacity: CAPACITY, l1: 5e-3, iterate: 'last', objective: { kind: 'ic' } },
        searcher,
        seed,
        budget: BUDGET,
        singles: CAPACITY,
        checkpointEvery: 0,
      },
      () => undefined,
    );
    const judged = judgeFormulas(
      {
        ...base,
        parts: PARTS,
        lag: 1,
        candidates: [result],
        l1: 5e-3,
        iterate: 'last',
        price: undefined,
        backtest: { top: 10, drop: 2, cost: 0.001, delay: 1, daysPerYear: 252 },
      },
      () => undefined,
    ).candidates[0];
    searches.push(result);
    runs.push({ result, judged });
    process.stderr.write(`${searcher.label} ${seed}: test IC ${judged.parts[2].ic.toFixed(4)}\n`);
  }
  const test = (pick) => runs.map(({ judged }) => pick(judged)[2].ic);
  const pool = test(({ parts }) => parts);
  const weighted = test(({ oneByOne }) => oneByOne.weighted);
  rows.push([
    searcher.label,
    text(runs.map(({ result }) => result.evaluations)),
    text(runs.map(({ result }) => result.trainIc)),
    text(pool),
    text(test(({ oneByOne }) => oneByOne.equal)),
    text(weighted),
    `${pool.filter((value, i) => value > weighted[i]).length} of ${SEEDS}`,
    text(runs.map(({ result }) => result.history.at(-1).entropyNats ?? Number.NaN)),
  ]);
}
const header = [
  'search',
  'distinct formulas',
  'train IC',
  'test IC',
  'one by one, equal weights',
  'one by one, weights as of a pool',
  'pool better',
  'entropy at the end (nats)',
];
console.log([header, ...rows].map((row) => row.join(' | ')).join('\n'));
writeFileSync(
  'docs/papers/formulaic-alphas.csv',
  `${[header, ...rows].map((row) => row.map((one) => (one.includes(',') ? `"${one}"` : one)).join(',')).join('\n')}\n`,
);

const byLabel = SEARCHERS.map(({ label }) => [label, searches.filter((search) => search.label === label)]);
const figure = await chartFigure({
  title: 'Pools of formulas for two planted factors',
  subtitle: `${DAYS} days, ${STOCKS} stocks, ${BUDGET} formulas a search, ${SEEDS} seeds; bands: one standard error`,
  charts: [
    {
      kind: 'lines',
      chart: {
        title: 'IC of the pool in training',
        xLabel: 'distinct formulas evaluated',
        yLabel: 'mean daily IC',
        series: byLabel.map(([name, own]) => ({ name, ...meanCurve(own, ({ ic }) => ic) })),
        dots: false,
      },
    },
    {
      kind: 'lines',
      chart: {
        title: 'Entropy of the token policy',
        xLabel: 'distinct formulas evaluated',
        yLabel: 'nats a token',
        yZero: true,
        series: byLabel
          .filter(([name]) => name.startsWith('policy'))
          .map(([name, own]) => ({ name, ...meanCurve(own, ({ entropyNats }) => entropyNats ?? Number.NaN) })),
        dots: false,
      },
    },
  ],
});
writeFileSync('docs/papers/formulaic-alphas.svg', await plotBytes(figure, 'formulaic-alphas.svg'));
