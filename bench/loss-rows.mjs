// Losses of rows with their gradients, [rows x vocabulary] float32, against the same in PyTorch on as many threads.
//   npm run build && node bench/loss-rows.mjs [--rows 1024] [--classes 32000] [--python PATH]
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { lossRows, sparseRows } from '../dist/src/kernels/loss-rows.js';
import { configureKernels } from '../dist/src/kernels/native.js';
import { createRandom } from '../dist/src/random.js';

const { values } = parseArgs({
  options: {
    rows: { type: 'string', default: '1024' },
    classes: { type: 'string', default: '32000' },
    threads: { type: 'string', default: '2' },
    repeats: { type: 'string', default: '5' },
    python: { type: 'string', default: process.env.PYTHON ?? 'python3' },
  },
});
const [rows, classes, threads, repeats] = ['rows', 'classes', 'threads', 'repeats'].map((key) => Number(values[key]));
configureKernels({ threads });

const random = createRandom(1);
const base = Float32Array.from({ length: classes }, () => 3 * random.normal());
const rowsOf = (shift) =>
  Float32Array.from({ length: rows * classes }, (_, i) => base[(i * shift + (i >> 7)) % classes]);
const student = rowsOf(7);
const teacher = rowsOf(11);
const labels = Int32Array.from({ length: rows }, (_, row) => (row * 31) % classes);
const losses = new Float64Array(rows);
const gradient = new Float32Array(rows * classes);
const k = 64;
const ids = Int32Array.from({ length: rows * k }, (_, i) => ((i % k) * 97) % classes);
const logProbs = new Float64Array(rows * k).fill(Math.log(0.9 / k));
const leftover = new Float64Array(rows).fill(0.1);

const shared = { rows, classes, student, teacher, labels, losses, gradient, scale: 1 / rows };
const cases = {
  'cross-entropy': () => lossRows({ kind: 'cross-entropy', smoothing: 0 }, shared),
  'forward KL': () => lossRows({ kind: 'forward-kl', temperature: 2 }, shared),
  'reverse KL': () => lossRows({ kind: 'reverse-kl', temperature: 1 }, shared),
  JSD: () => lossRows({ kind: 'jsd', temperature: 1, beta: 0.5 }, shared),
  'comp-sum 1.7': () => lossRows({ kind: 'comp-sum', tau: 1.7 }, shared),
  'top-64 KL': () => sparseRows({ ...shared, k, ids, logProbs, leftover, temperature: 1, rule: 'symmetric-uniform' }),
};
const median = (list) => list.sort((a, b) => a - b)[list.length >> 1];
const own = Object.fromEntries(
  Object.entries(cases).map(([name, run]) => {
    run();
    const seconds = Array.from({ length: repeats }, () => {
      const start = performance.now();
      run();
      return (performance.now() - start) / 1000;
    });
    return [name, median(seconds)];
  }),
);
const script = fileURLToPath(new URL('loss-rows.py', import.meta.url));
const peer = JSON.parse(
  execFileSync(values.python, [script, String(rows), String(classes), String(threads), String(repeats)], {
    encoding: 'utf8',
  }),
);
console.log(`[${rows} x ${classes}] float32, ${threads} threads, loss and gradient, median of ${repeats}`);
for (const [name, seconds] of Object.entries(own)) {
  const theirs = peer[name];
  const ratio = theirs === undefined ? '' : `  PyTorch ${theirs.toFixed(3)} s  ${(theirs / seconds).toFixed(2)}x`;
  console.log(`${name.padEnd(14)} ${seconds.toFixed(3)} s${ratio}`);
}
