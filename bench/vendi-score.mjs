// Claim: the Vendi score of 10,000 embeddings of 768 dimensions by its dual, and that of a 3,000 x 3,000 kernel matrix,
// take a third of the time that the authors' package takes, and agree to 1e-6.
//
//   npm run build && node bench/vendi-score.mjs --python PYTHON [--threads 2] [--items 10000] [--columns 768]
//                    [--matrix 3000] [--repeats 5] [--json FILE]
//
// PYTHON is an interpreter that has vendi-score; without it only this project's side is timed. Both sides get the same
// bytes, f64, and the same threads, and run in turn. The dual includes the division of rows by their length. Beside it
// stands the same with single-precision products (--products f32), whose score is held to that of f64.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { dualSource } from '../dist/src/diversity/feature-source.js';
import { gramSource } from '../dist/src/diversity/gram-source.js';
import { unitGram, unitRows } from '../dist/src/diversity/unit-rows.js';
import { kernelSpectrum, vendiScore } from '../dist/src/diversity/vendi-score.js';
import { arrayMatrix } from '../dist/src/formats/feature-matrix.js';
import { kernelStatus } from '../dist/src/kernels/native.js';
import { openProducts } from '../dist/src/linalg/tiled-products.js';
import { createRandom } from '../dist/src/random.js';

const { values: options } = parseArgs({
  options: {
    python: { type: 'string' },
    threads: { type: 'string', default: '2' },
    items: { type: 'string', default: '10000' },
    columns: { type: 'string', default: '768' },
    matrix: { type: 'string', default: '3000' },
    repeats: { type: 'string', default: '5' },
    json: { type: 'string' },
  },
});
const [threads, items, columns, order, repeats] = [
  options.threads,
  options.items,
  options.columns,
  options.matrix,
  options.repeats,
].map(Number);

/** Ten clusters with spectra that fall off, as embeddings have. */
function embeddings(n, d, seed) {
  const random = createRandom(seed);
  const scales = Float64Array.from({ length: d }, (_, k) => 1 / Math.sqrt(1 + k / 8));
  const centres = Float64Array.from({ length: 10 * d }, (_, i) => random.normal() * scales[i % d]);
  const data = new Float64Array(n * d);
  for (let i = 0; i < n; i++) {
    const centre = (i % 10) * d;
    for (let k = 0; k < d; k++) data[i * d + k] = centres[centre + k] + random.normal() * scales[k];
  }
  return data;
}

function npy(data, shape) {
  const header = `{'descr': '<f8', 'fortran_order': False, 'shape': (${shape.join(', ')}), }`;
  const padded = `${header}${' '.repeat(63 - ((10 + header.length) % 64))}\n`;
  const head = Buffer.alloc(10);
  head.write('\x93NUMPY', 'latin1');
  head.writeUInt16LE(1, 6);
  head.writeUInt16LE(padded.length, 8);
  return Buffer.concat([head, Buffer.from(padded, 'latin1'), Buffer.from(data.buffer)]);
}

const products = openProducts({ threads });
const x = embeddings(items, columns, 1);
const k = await unitGram(unitRows(arrayMatrix('X', embeddings(order, columns, 2), order, columns)), threads);

async function timed(work) {
  const start = process.hrtime.bigint();
  const score = await work();
  return { seconds: Number(process.hrtime.bigint() - start) / 1e9, score };
}

const scored = async (source) => vendiScore(kernelSpectrum(await source.eigenvalues()).eigenvalues, 1);
const dual = (precision) =>
  timed(() => scored(dualSource(unitRows(arrayMatrix('X', x, items, columns)), { products, precision })));

async function startPeer() {
  if (options.python === undefined) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'surprisal-'));
  const files = ['x.npy', 'k.npy'].map((name) => join(folder, name));
  writeFileSync(files[0], npy(x, [items, columns]));
  writeFileSync(files[1], npy(k, [order, order]));
  const script = fileURLToPath(new URL('vendi-score.py', import.meta.url));
  const limits = Object.fromEntries(
    ['OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'].map((name) => [name, String(threads)]),
  );
  const child = spawn(options.python, [script, ...files], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ...limits },
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error('the peer ended early');
    return value;
  };
  const version = await read();
  return {
    version,
    async time(way) {
      child.stdin.write(`${way}\n`);
      const [seconds, score] = (await read()).split(' ').map(Number);
      return { seconds, score };
    },
    stop() {
      child.stdin.end();
      rmSync(folder, { recursive: true });
    },
  };
}

const peer = await startPeer();
const ways = [
  { name: 'dual', run: () => dual('f64') },
  { name: 'dual, f32 products', run: () => dual('f32') },
  { name: 'matrix', run: () => timed(() => scored(gramSource(k, order, { threads }))) },
  ...(peer
    ? [
        { name: 'vendi-score dual', run: () => peer.time('dual') },
        { name: 'vendi-score matrix', run: () => peer.time('matrix') },
      ]
    : []),
];
for (const way of ways) way.runs = [];
for (let repeat = -1; repeat < repeats; repeat++) {
  for (const way of ways) {
    const run = await way.run();
    if (repeat >= 0) way.runs.push(run);
  }
}
peer?.stop();

function summary(list) {
  const sorted = [...list].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, least: sorted[0], greatest: sorted[sorted.length - 1] };
}

const figures = ways.map(({ name, runs }) => ({
  way: name,
  seconds: summary(runs.map(({ seconds }) => seconds)),
  score: runs[0].score,
}));
const of = (name) => figures.find(({ way }) => way === name);
const status = kernelStatus();
console.log(
  `${items} x ${columns} features, matrix ${order} x ${order}, f64, ${threads} threads, ${status.simd}, ${repeats} repeats`,
);
for (const { way, seconds, score } of figures) {
  const { median, least, greatest } = seconds;
  const times = `${median.toFixed(3)} s (${least.toFixed(3)} to ${greatest.toFixed(3)})`;
  console.log(`${way.padEnd(20)}  ${times.padEnd(28)}  score ${score}`);
}
const ratios = {};
for (const [ours, theirs] of [
  ['dual', 'vendi-score dual'],
  ['dual, f32 products', 'vendi-score dual'],
  ['matrix', 'vendi-score matrix'],
]) {
  const [a, b] = [of(ours), of(theirs)];
  if (!b) continue;
  const speed = b.seconds.median / a.seconds.median;
  const ofLeast = b.seconds.least / a.seconds.least;
  const apart = Math.abs(a.score - b.score) / b.score;
  ratios[ours] = { speed, ofLeast, relativeDifference: apart };
  console.log(
    `${ours.padEnd(20)}  ${speed.toFixed(2)} times as fast (of the least times ${ofLeast.toFixed(2)}; aim 3), ` +
      `scores ${apart.toExponential(1)} apart (aim 1e-6)`,
  );
}
const report = { items, columns, order, threads, repeats, peer: peer?.version ?? null, figures, ratios };
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
else console.log(`\n${JSON.stringify(report)}`);
