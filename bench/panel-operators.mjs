/**
 * Rolling operators and correlations by day on a panel of 2,500 days x 5,000 stocks against NumPy and pandas doing the same.
 *
 * node bench/panel-operators.mjs [--days 2500] [--stocks 5000] [--threads 2] [--repeats 3] [--python PYTHON]
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import {
  dayMoments,
  dayRanks,
  elementwisePanel,
  normalisePanel,
  rollingPairPanel,
  rollingPanel,
} from '../dist/src/kernels/panel-operators.js';
import { createRandom } from '../dist/src/random.js';

const { values } = parseArgs({
  options: {
    days: { type: 'string', default: '2500' },
    stocks: { type: 'string', default: '5000' },
    threads: { type: 'string', default: '2' },
    repeats: { type: 'string', default: '3' },
    python: { type: 'string', default: process.env.PYTHON ?? 'python3' },
  },
});
const shape = { days: Number(values.days), stocks: Number(values.stocks) };
const threads = Number(values.threads);
const repeats = Number(values.repeats);
const WINDOW = 20;
const size = shape.days * shape.stocks;

const random = createRandom(1);
const x = new Float32Array(size);
const y = new Float32Array(size);
for (let s = 0; s < shape.stocks; s++) {
  let [a, b] = [50, 1e5];
  for (let t = 0; t < shape.days; t++) {
    a *= 1 + 0.04 * (random.uniform() - 0.5);
    b = 1e5 * (0.5 + random.uniform());
    x[t * shape.stocks + s] = a;
    y[t * shape.stocks + s] = b;
  }
}
const out = new Float32Array(size);
const deviations = new Float64Array(shape.days);

const rolling = (name) => () => rollingPanel(name, x, out, shape, WINDOW, threads);
const TASKS = {
  'x / y': () => elementwisePanel('Div', x, y, out, threads),
  'Mean 20d': rolling('Mean'),
  'Std 20d': rolling('Std'),
  'Max 20d': rolling('Max'),
  'Med 20d': rolling('Med'),
  'EMA 20d': rolling('EMA'),
  'Corr 20d': () => rollingPairPanel('Corr', x, y, out, shape, WINDOW, threads),
  'z-scores': () => normalisePanel(x, out, deviations, shape, threads),
  IC: () => dayMoments(x, y, shape, threads),
  'ranks by day': () => dayRanks(x, undefined, 'average', out, shape, threads),
};

const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
function time(task) {
  task();
  return median(
    Array.from({ length: repeats }, () => {
      const start = performance.now();
      task();
      return (performance.now() - start) / 1000;
    }),
  );
}

const ours = Object.fromEntries(Object.entries(TASKS).map(([name, task]) => [name, time(task)]));
const peak = process.resourceUsage().maxRSS / 1024;
const script = fileURLToPath(new URL('panel-operators.py', import.meta.url));
const peer = spawnSync(values.python, [script, values.days, values.stocks, values.threads, values.repeats], {
  encoding: 'utf8',
  maxBuffer: 1 << 24,
});
if (peer.status !== 0) process.stderr.write(peer.stderr ?? `${values.python} could not be run\n`);
const theirs = peer.status === 0 ? JSON.parse(peer.stdout) : {};
console.log(
  `${shape.days} x ${shape.stocks} float32, ${threads} threads, medians of ${repeats}; peak of this process ${peak.toFixed(0)} MiB`,
);
console.log('operator | surprisal (s) | NumPy (s) | pandas (s) | against the faster');
for (const [name, seconds] of Object.entries(ours)) {
  const { numpy, pandas } = theirs[name] ?? {};
  const best = Math.min(numpy ?? Infinity, pandas ?? Infinity);
  const show = (value) => (value === undefined || value === null ? '-' : value.toFixed(3));
  console.log(
    [
      name,
      show(seconds),
      show(numpy),
      show(pandas),
      Number.isFinite(best) ? `${(best / seconds).toFixed(1)}x` : '-',
    ].join(' | '),
  );
}
