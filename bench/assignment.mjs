// Claim: the optimal assignment of n rows to n columns, certified, comes faster than from scipy's
// linear_sum_assignment, and n = 14336 (the neurons of one expert of Mixtral) is a matter of seconds.
//
//   npm run build && node bench/assignment.mjs [--orders 2048,4096,8192] [--once 14336] [--repeats 3] [--threads 2]
//                    [--python PYTHON] [--json FILE]
//
// Gains are products of 256-dimensional normal vectors in single precision, the hardest case of neurons that have
// nothing to do with each other. Every repeat takes each way once, in turn, on the same gains: the exact mode on one
// thread and on all, auction, greedy, and with --python (an interpreter that has numpy and scipy)
// linear_sum_assignment, which has one thread. Orders under --once take each way a single time, without a warm-up.
// Medians, with the least and the greatest; gains relative to that of the exact mode.
import { spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const sources = new URL('../dist/src/', import.meta.url);
const { kernelStatus } = await import(new URL('kernels/native.js', sources));
const { multiply } = await import(new URL('kernels/gemm.js', sources));
const { solveAssignment } = await import(new URL('kernels/linear-assignment.js', sources));
const { createRandom } = await import(new URL('random.js', sources));

const { values: options } = parseArgs({
  options: {
    threads: { type: 'string', default: '2' },
    orders: { type: 'string', default: '2048,4096,8192' },
    once: { type: 'string', default: '14336' },
    repeats: { type: 'string', default: '3' },
    python: { type: 'string', default: process.env.PYTHON },
    json: { type: 'string' },
  },
});
const threads = Number(options.threads);
const status = kernelStatus();
if (!status.native) {
  console.error(`no native kernels: ${status.reason}`);
  process.exit(1);
}
const WIDTH = 256;
const numbers = (list) => list.split(',').filter(Boolean).map(Number);

function gainsOf(n) {
  const random = createRandom(n);
  const [a, b] = [0, 1].map(() => Float32Array.from({ length: n * WIDTH }, () => random.normal()));
  return multiply(a, b, new Float32Array(n * n), { m: n, n, k: WIDTH }, { transposeB: true, threads });
}

function writeGains(path, gains, n) {
  const file = openSync(path, 'w');
  for (let i = 0; i < n; i += 256) {
    const block = gains.subarray(i * n, Math.min(n, i + 256) * n);
    writeSync(file, new Uint8Array(block.buffer, block.byteOffset, block.byteLength));
  }
  closeSync(file);
}

/** A Python process that solves once for every line it is sent. */
async function startPeer() {
  if (options.python === undefined) return undefined;
  const script = fileURLToPath(new URL('assignment.py', import.meta.url));
  const child = spawn(options.python, [script], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error('the Python process ended early');
    return value;
  };
  const version = await read();
  const solve = async (n, source) => {
    child.stdin.write(`${n} ${source}\n`);
    const [seconds, gain] = (await read()).split(' ').map(Number);
    return { seconds, gain };
  };
  return { version, solve, stop: () => child.stdin.end() };
}

/** Median, least and greatest of a figure over the repeats. */
function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, least: sorted[0], greatest: sorted[sorted.length - 1] };
}

const peer = await startPeer();
const folder = mkdtempSync(join(tmpdir(), 'surprisal-assignment-'));
const source = join(folder, 'gains');

async function measure(n, repeats, warmUps) {
  const gains = gainsOf(n);
  if (peer !== undefined) writeGains(source, gains, n);
  const timed = (mode, count) => () => {
    const start = process.hrtime.bigint();
    const { gain, gap } = solveAssignment(gains, n, { mode, threads: count });
    return { seconds: Number(process.hrtime.bigint() - start) / 1e9, gain, gap };
  };
  const ways = [
    { name: 'exact, 1 thread', solve: timed('exact', 1) },
    ...(threads > 1 ? [{ name: `exact, ${threads} threads`, solve: timed('exact', threads) }] : []),
    { name: 'auction', solve: timed('auction', threads) },
    { name: 'greedy', solve: timed('greedy', threads) },
    ...(peer === undefined ? [] : [{ name: 'scipy, 1 thread', solve: () => peer.solve(n, source) }]),
  ];
  for (const way of ways) way.runs = [];
  for (let repeat = -warmUps; repeat < repeats; repeat++) {
    for (const way of ways) {
      const run = await way.solve();
      if (repeat >= 0) way.runs.push(run);
    }
  }
  const best = ways[0].runs[0].gain;
  const figures = ways.map(({ name, runs }) => ({
    name,
    seconds: summary(runs.map((run) => run.seconds)),
    gain: runs[0].gain,
    shareOfExact: runs[0].gain / best,
    relativeGap: runs[0].gap === undefined ? null : runs[0].gap / best,
  }));
  const scipy = ways.find((way) => way.name.startsWith('scipy'));
  const ratios = scipy === undefined ? [] : ways.filter((way) => way !== scipy && way.name.startsWith('exact'));
  const faster = ratios.map(({ name, runs }) => [
    name,
    summary(runs.map((run, i) => scipy.runs[i].seconds / run.seconds)),
  ]);
  return { n, figures, timesFasterThanScipy: Object.fromEntries(faster) };
}

const show = ({ median, least, greatest }, digits) =>
  least === greatest
    ? median.toFixed(digits)
    : `${median.toFixed(digits)} (${least.toFixed(digits)} to ${greatest.toFixed(digits)})`;
console.log(`${threads} threads, ${status.simd}, ${status.compiler}, ${options.repeats} repeats`);
console.log(peer?.version ?? 'scipy not measured: give --python an interpreter that has numpy and scipy');
const orders = [];
try {
  const plan = [...numbers(options.orders).map((n) => [n, Number(options.repeats), 1])];
  for (const n of numbers(options.once)) plan.push([n, 1, 0]);
  for (const [n, repeats, warmUps] of plan) {
    const result = await measure(n, repeats, warmUps);
    orders.push(result);
    console.log(`\nn = ${n}`);
    for (const { name, seconds, shareOfExact, relativeGap } of result.figures) {
      const gap = relativeGap === null ? '' : `  gap ${relativeGap.toExponential(1)}`;
      console.log(`  ${name.padEnd(18)} ${show(seconds, 3)} s  gain / exact ${shareOfExact.toFixed(9)}${gap}`);
    }
    for (const [name, ratio] of Object.entries(result.timesFasterThanScipy)) {
      console.log(`  scipy / ${name}: ${show(ratio, 1)}; aim 2`);
    }
  }
} finally {
  peer?.stop();
  rmSync(folder, { recursive: true, force: true });
}
const report = { threads, simd: status.simd, compiler: status.compiler, peer: peer?.version ?? null, orders };
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
else console.log(`\n${JSON.stringify(report)}`);
