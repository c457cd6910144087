// Claim: the row entropies of one causal head over 32,768 tokens need neither 32,768 x 32,768 numbers nor the time that
// making them takes.
//
//   npm run build && node bench/attention-entropy-32k.mjs [--length 32768] [--dims 64,128] [--threads 2] [--repeats 3]
//                    [--python PYTHON] [--json FILE]
//
// Every measurement is a process of its own, so that its peak resident memory is its own. In turn: the kernel on f32,
// the kernel on f64, PyTorch's dense softmax (with --python, an interpreter that has torch: at 32,768 tokens it needs some 13 GB), all on
// the same queries and keys. Medians of the repeats with the least and the greatest; memory beyond that of a process
// that holds the inputs alone. The sum of the entropies shows that both sides found the same.
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    length: { type: 'string', default: '32768' },
    dims: { type: 'string', default: '64,128' },
    threads: { type: 'string', default: '2' },
    repeats: { type: 'string', default: '3' },
    python: { type: 'string', default: process.env.PYTHON },
    json: { type: 'string' },
    measure: { type: 'string' },
  },
});
const length = Number(options.length);
const threads = Number(options.threads);

/** Uniform in -2..2 by a congruence that the Python side repeats: queries, then keys, [length, dim] each. */
function draw(count, seed) {
  const values = new Float32Array(count);
  let state = seed;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[i] = (state / 4294967296) * 4 - 2;
  }
  return values;
}

/** One measurement in this process: prints seconds, bytes beyond the inputs, and the sum of the entropies. */
async function measure(precision, dim) {
  const src = new URL('../dist/src/', import.meta.url);
  const { attentionEntropiesFromQueryKeys } = await import(new URL('entropy/attention.js', src));
  const { nativeKernels, peakResidentBytes, kernelStatus } = await import(new URL('kernels/native.js', src));
  if (nativeKernels() === undefined) throw new Error(`no native kernels: ${kernelStatus().reason}`);
  const widen = (values) => (precision === 'f64' ? Float64Array.from(values) : values);
  const queries = widen(draw(length * dim, 1));
  const keys = widen(draw(length * dim, 2));
  const shape = { heads: 1, keyHeads: 1, headDim: dim, queryCount: length, keyCount: length };
  const before = peakResidentBytes();
  const start = process.hrtime.bigint();
  const rows = attentionEntropiesFromQueryKeys({ ...shape, queries, keys, scale: 1 / Math.sqrt(dim) }, { threads });
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  const sum = rows.entropyNats.reduce((a, b) => a + b, 0);
  console.log(JSON.stringify({ seconds, bytes: peakResidentBytes() - before, sum }));
}

if (options.measure !== undefined) {
  await measure(options.measure, Number(options.dims));
  process.exit(0);
}

function child(command, argv) {
  const { status, stdout, stderr } = spawnSync(command, argv.map(String), { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ended with ${status}: ${stderr.trim().split('\n').pop()}`);
  return JSON.parse(stdout);
}

const self = fileURLToPath(import.meta.url);
const peer = fileURLToPath(new URL('attention-entropy-32k.py', import.meta.url));
const ways = [
  [
    'kernel f32',
    (dim) =>
      child(process.execPath, [self, '--measure', 'f32', '--dims', dim, '--length', length, '--threads', threads]),
  ],
  [
    'kernel f64',
    (dim) =>
      child(process.execPath, [self, '--measure', 'f64', '--dims', dim, '--length', length, '--threads', threads]),
  ],
  ...(options.python === undefined
    ? []
    : [['torch dense f32', (dim) => child(options.python, [peer, length, dim, threads])]]),
];

function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, least: sorted[0], greatest: sorted[sorted.length - 1] };
}

const figures = [];
console.log(`one causal head, ${length} tokens, ${threads} threads, ${options.repeats} repeats`);
console.log(
  ['dim', 'way'.padEnd(16), 'seconds'.padEnd(24), 'MiB beyond inputs'.padEnd(18), 'sum of entropies'].join('  '),
);
for (const dim of options.dims.split(',').map(Number)) {
  const runs = new Map(ways.map(([name]) => [name, []]));
  for (let repeat = 0; repeat < Number(options.repeats); repeat++) {
    for (const [name, run] of ways) runs.get(name).push(run(dim));
  }
  for (const [name, own] of runs) {
    const seconds = summary(own.map((run) => run.seconds));
    const mebibytes = summary(own.map((run) => run.bytes / 2 ** 20));
    figures.push({ dim, way: name, seconds, mebibytes, sum: own[0].sum });
    const { median, least, greatest } = seconds;
    console.log(
      [
        String(dim).padStart(3),
        name.padEnd(16),
        `${median.toFixed(2)} (${least.toFixed(2)} to ${greatest.toFixed(2)})`.padEnd(24),
        mebibytes.median.toFixed(0).padEnd(18),
        own[0].sum.toFixed(3),
      ].join('  '),
    );
  }
  const [ours, dense] = ['kernel f32', 'torch dense f32'].map((way) =>
    figures.find((f) => f.dim === dim && f.way === way),
  );
  if (dense === undefined) continue;
  const faster = dense.seconds.median / ours.seconds.median;
  const smaller = dense.mebibytes.median / Math.max(1, ours.mebibytes.median);
  console.log(`     ${faster.toFixed(1)} times faster, ${smaller.toFixed(0)} times less memory than the dense way`);
}
if (options.json !== undefined) {
  writeFileSync(
    options.json,
    `${JSON.stringify({ length, threads, repeats: Number(options.repeats), figures }, null, 2)}\n`,
  );
}
