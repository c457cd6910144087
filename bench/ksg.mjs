// Claim: the KSG estimate of mutual information of n = 10,000 and 100,000 points comes several times faster than with
// scikit-learn's k-d trees, to the same figure.
//
//   npm run build && node bench/ksg.mjs --python PYTHON [--points 10000,100000] [--threads 1] [--k 3] [--repeats 9]
//                    [--json FILE]
//
// Both sides compute the first estimator of Kraskov, Stögbauer and Grassberger on the same correlated normal pairs (f64,
// handed over in a file). scikit-learn is `sklearn.feature_selection._mutual_info._compute_mi_cc`, what its
// mutual_info_regression runs after it has scaled the data and added noise, on one thread; with --threads above 1 its
// neighbour search gets n_jobs. Repeats take both sides in turn; medians, with the least and the greatest. Without
// --python this side alone is measured. A million points are run once here.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const source = new URL('../dist/src/', import.meta.url);
const { kernelStatus } = await import(new URL('kernels/native.js', source));
const { continuousVariable, ksg1 } = await import(new URL('dependence/neighbour-information.js', source));
const { createRandom } = await import(new URL('random.js', source));

const { values: options } = parseArgs({
  options: {
    points: { type: 'string', default: '10000,100000' },
    threads: { type: 'string', default: '1' },
    k: { type: 'string', default: '3' },
    repeats: { type: 'string', default: '9' },
    python: { type: 'string' },
    json: { type: 'string' },
  },
});
const threads = Number(options.threads);
const k = Number(options.k);
const repeats = Number(options.repeats);
const CORRELATION = 0.6;

function pairs(n) {
  const random = createRandom(n);
  const x = new Float64Array(n);
  const y = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    x[i] = random.normal();
    y[i] = CORRELATION * x[i] + Math.sqrt(1 - CORRELATION ** 2) * random.normal();
  }
  return { x, y };
}

function here({ x, y }) {
  const start = performance.now();
  const { valueNats } = ksg1(continuousVariable(x), continuousVariable(y), { k, threads });
  return { seconds: (performance.now() - start) / 1000, nats: valueNats };
}

const scratch = mkdtempSync(join(tmpdir(), 'ksg-'));

/** A Python process that answers every line with the seconds and the figure of one run. */
async function startPeer() {
  if (options.python === undefined) return undefined;
  const script = fileURLToPath(new URL('ksg.py', import.meta.url));
  const child = spawn(options.python, [script, String(k), String(threads)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error('the Python process ended early');
    return value;
  };
  const version = await read();
  const ask = async (path) => {
    child.stdin.write(`${path}\n`);
    const [seconds, nats] = (await read()).split(' ').map(Number);
    return { seconds, nats };
  };
  return { version, ask, stop: () => child.stdin.end() };
}

function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return { median: sorted[sorted.length >> 1], least: sorted[0], greatest: sorted[sorted.length - 1] };
}

const peer = await startPeer();
const figures = [];
for (const n of options.points.split(',').map(Number)) {
  const data = pairs(n);
  const path = join(scratch, `${n}.f64`);
  writeFileSync(path, Buffer.concat([Buffer.from(data.x.buffer), Buffer.from(data.y.buffer)]));
  const mine = [];
  const theirs = [];
  let nats;
  let theirNats;
  for (let repeat = -1; repeat < repeats; repeat++) {
    const own = here(data);
    nats = own.nats;
    const other = await peer?.ask(path);
    if (repeat < 0) continue;
    mine.push(own.seconds);
    if (other) {
      theirs.push(other.seconds);
      theirNats = other.nats;
    }
  }
  const ratios = theirs.map((seconds, i) => seconds / mine[i]);
  figures.push({
    points: n,
    nats,
    seconds: summary(mine),
    ...(peer && {
      sklearnNats: theirNats,
      difference: Math.abs(nats - theirNats),
      sklearnSeconds: summary(theirs),
      ratio: summary(ratios),
    }),
  });
}
peer?.stop();
const million = here(pairs(1_000_000));
rmSync(scratch, { recursive: true });

const status = kernelStatus();
const show = ({ median, least, greatest }, scale = 1, digits = 2) =>
  `${(median * scale).toFixed(digits)} (${(least * scale).toFixed(digits)} to ${(greatest * scale).toFixed(digits)})`;
console.log(`KSG, k = ${k}, ${threads} thread(s), ${status.simd}, ${status.compiler}, ${repeats} repeats`);
for (const figure of figures) {
  console.log(`n = ${figure.points}: ${figure.nats.toFixed(9)} nats, ms ${show(figure.seconds, 1e3)}`);
  if (!peer) continue;
  console.log(`  ${peer.version}: ${figure.sklearnNats.toFixed(9)} nats, ms ${show(figure.sklearnSeconds, 1e3)}`);
  console.log(`  difference ${figure.difference.toExponential(1)}; times as fast ${show(figure.ratio)}, aim 3`);
}
const exact = -0.5 * Math.log(1 - CORRELATION ** 2);
console.log(
  `n = 1000000: ${million.nats.toFixed(6)} nats (exact ${exact.toFixed(6)}), ${million.seconds.toFixed(2)} s, once`,
);
const report = { k, threads, repeats, peer: peer?.version ?? null, figures, million, exactNats: exact };
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
