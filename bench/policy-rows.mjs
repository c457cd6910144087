// Claim: log-sum-exp, entropy and selected log-probability of [6256 x 151936] bfloat16 logits in one pass are at least 10 times
// as fast as PyTorch. 6256 x 151936 is the shape of TRL pull request 7066.
//
//   npm run build && node bench/policy-rows.mjs --python PYTHON [--rows 6256] [--columns 151936] [--threads 2] [--repeats 3]
//                    [--json FILE]
//
// PYTHON needs torch. Both sides read the same logits (1.9 GB at full size); PyTorch takes chunks of 128 rows in float32, as TRL
// does, by log_softmax and by logsumexp without storing log-probabilities. Ways take turns; medians.
import { spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const kernels = new URL('../dist/src/kernels/', import.meta.url);
const { accumulateRows, createRowAccumulator, finalizeRows } = await import(new URL('row-statistics.js', kernels));
const { narrowFromF32 } = await import(new URL('dtypes.js', kernels));

const { values: options } = parseArgs({
  options: {
    python: { type: 'string', default: 'python3' },
    rows: { type: 'string', default: '6256' },
    columns: { type: 'string', default: '151936' },
    threads: { type: 'string', default: '2' },
    repeats: { type: 'string', default: '3' },
    json: { type: 'string' },
  },
});
const rows = Number(options.rows);
const columns = Number(options.columns);
const threads = Number(options.threads);

/** Normal logits of standard deviation 3; every row is a rotation of one, since a billion draws take too long. */
function makeLogits() {
  const single = new Float32Array(columns);
  let state = 12345;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 4294967296;
  };
  for (let i = 0; i < columns; i++) {
    single[i] = 3 * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  }
  const narrow = new Uint16Array(columns);
  narrowFromF32(single, 'BF16', new Uint8Array(narrow.buffer), threads);
  const all = new Uint16Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    const turn = (r * 7919) % columns;
    all.set(narrow.subarray(turn), r * columns);
    all.set(narrow.subarray(0, turn), r * columns + columns - turn);
  }
  return all;
}

const data = makeLogits();
const targets = Int32Array.from({ length: rows }, (_, r) => (r * 104729) % columns);
const folder = mkdtempSync(join(tmpdir(), 'policy-rows-'));
const file = openSync(join(folder, 'logits'), 'w');
// One write may not be larger than 2 GB.
for (let r = 0; r < rows; r += 1024) writeSync(file, data.subarray(r * columns, Math.min(rows, r + 1024) * columns));
closeSync(file);
writeFileSync(join(folder, 'targets'), targets);

function ours() {
  const start = process.hrtime.bigint();
  const accumulator = createRowAccumulator(rows, { measures: 'entropy' });
  accumulateRows(accumulator, { data, dtype: 'BF16', rows, columns }, { targets, threads });
  const { entropyNats, surprisalNats } = finalizeRows(accumulator, columns);
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  return { seconds, entropy: entropyNats.slice(0, 8), selected: surprisalNats.slice(0, 8).map((value) => -value) };
}

const script = fileURLToPath(new URL('policy-rows.py', import.meta.url));
const argv = [script, rows, columns, threads, join(folder, 'logits'), join(folder, 'targets')].map(String);
const child = spawn(options.python, argv, { stdio: ['pipe', 'pipe', 'inherit'] });
const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
const version = (await lines.next()).value;
const torch = async (way) => {
  child.stdin.write(`${way}\n`);
  const { value, done } = await lines.next();
  if (done) throw new Error('the PyTorch process ended early');
  return JSON.parse(value);
};

const times = { ours: [], 'torch log_softmax': [], 'torch logsumexp': [] };
let worst = 0;
for (let repeat = 0; repeat < Number(options.repeats); repeat++) {
  const own = ours();
  times.ours.push(own.seconds);
  for (const way of ['log_softmax', 'logsumexp']) {
    const theirs = await torch(way);
    times[`torch ${way}`].push(theirs.seconds);
    for (const name of ['entropy', 'selected']) {
      theirs[name].forEach((value, i) => {
        worst = Math.max(worst, Math.abs(value - own[name][i]));
      });
    }
  }
}
child.stdin.end();
rmSync(folder, { recursive: true });
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
console.log(`[${rows} x ${columns}] bf16, ${threads} threads, torch ${version}`);
for (const [way, seconds] of Object.entries(times)) {
  console.log(`${way.padEnd(20)} ${median(seconds).toFixed(3)} s  (${seconds.map((s) => s.toFixed(3)).join(', ')})`);
}
for (const way of ['torch log_softmax', 'torch logsumexp']) {
  console.log(`${way} / ours: ${(median(times[way]) / median(times.ours)).toFixed(1)} (aim 10)`);
}
console.log(`largest difference of entropy and selected log-probability: ${worst.toExponential(2)} nats`);
if (options.json) writeFileSync(options.json, JSON.stringify({ options, version, times, worst }, null, 2));
