// Rotations of the rows of a weight matrix at widths of real models, beside a copy of the same memory.
//
//   npm run build && node bench/hadamard.mjs [--threads 2] [--widths 4096,3072,11008,14336,18944] [--weights 16]
//                    [--repeats 7] [--python PYTHON] [--json FILE]
//
// Million weights a second on f32 rows, `--weights` million of them: the native kernel on one thread and on --threads,
// forward and inverse; a copy of the same memory; with --python (an interpreter that has numpy and torch) the same
// rotation by butterflies and a product with the core, as QuaRot does it, in NumPy and in PyTorch on one thread and on
// --threads, and up to a width of 4096 by one product with the dense matrix in PyTorch. Every repeat takes each way once, in turn. Medians,
// with the least and the greatest, and the largest difference to the peer's result.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const sources = new URL('../dist/src/', import.meta.url);
const { kernelStatus } = await import(new URL('kernels/native.js', sources));
const { rotateRows } = await import(new URL('kernels/hadamard.js', sources));
const { hadamardCore, planRotation, signsFromBits } = await import(new URL('linalg/hadamard.js', sources));
const { createRandom } = await import(new URL('random.js', sources));

const { values: options } = parseArgs({
  options: {
    threads: { type: 'string', default: '2' },
    widths: { type: 'string', default: '4096,3072,11008,14336,18944' },
    weights: { type: 'string', default: '16' },
    repeats: { type: 'string', default: '7' },
    python: { type: 'string', default: process.env.PYTHON },
    json: { type: 'string' },
  },
});
/** Widest dense matrix that is multiplied by. */
const MOST_DENSE = 4096;
const threads = Number(options.threads);
const repeats = Number(options.repeats);
const status = kernelStatus();
if (!status.native) {
  console.error(`no native kernels: ${status.reason}`);
  process.exit(1);
}

/** A Python process that rotates once for every line it is sent, and answers with its seconds. */
async function startPeer() {
  if (options.python === undefined) return undefined;
  const script = fileURLToPath(new URL('hadamard.py', import.meta.url));
  const child = spawn(options.python, [script, String(threads)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error('the Python process ended early');
    return value;
  };
  const version = await read();
  const ask = async (...words) => {
    child.stdin.write(`${words.join(' ')}\n`);
    return Number(await read());
  };
  return { version, ask, stop: () => child.stdin.end() };
}

function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, least: sorted[0], greatest: sorted[sorted.length - 1] };
}

function normals(length) {
  const random = createRandom(length);
  const x = new Float32Array(length);
  for (let i = 0; i < length; i++) x[i] = random.normal();
  return x;
}

const peer = await startPeer();
const folder = mkdtempSync(join(tmpdir(), 'surprisal-hadamard-'));
const file = (name) => join(folder, name);

/** Ways by name; each rotates the rows once and gives its seconds. */
function waysOf(rows, rotation, source) {
  const target = source.slice();
  const timed = (work) => async () => {
    const start = process.hrtime.bigint();
    work();
    return Number(process.hrtime.bigint() - start) / 1e9;
  };
  const ways = {
    copy: timed(() => target.set(source)),
    'surprisal, 1 thread': timed(() => rotateRows(target, rows, rotation, 'forward', 1)),
    [`surprisal, ${threads} threads`]: timed(() => rotateRows(target, rows, rotation, 'forward', threads)),
    'surprisal inverse, 1 thread': timed(() => rotateRows(target, rows, rotation, 'inverse', 1)),
  };
  if (peer === undefined) return ways;
  for (const [way, count] of [
    ['numpy', 1],
    ['torch', 1],
    ['torch', threads],
    ['dense', threads],
  ]) {
    if (way === 'dense' && rotation.length > MOST_DENSE) continue;
    ways[`${way}, ${count} thread${count === 1 ? '' : 's'}`] = () => peer.ask('time', way, count);
  }
  return ways;
}

/** Largest difference between the peer's result and ours on the same rows, whose entries have variance one. */
async function differenceToPeer(rotation, rows, source) {
  const expected = source.slice();
  rotateRows(expected, rows, rotation, 'forward', threads);
  await peer.ask('result', file('result'));
  const bytes = readFileSync(file('result'));
  const found = new Float32Array(bytes.buffer, bytes.byteOffset, expected.length);
  return expected.reduce((most, value, i) => Math.max(most, Math.abs(value - found[i])), 0);
}

async function measure(n) {
  const rows = Math.max(1, Math.round((Number(options.weights) * 1e6) / n));
  const rotation = planRotation(n, 1n);
  const source = normals(rows * n);
  if (peer !== undefined) {
    const { kind, core } = rotation;
    if (kind === 'blocks' || kind === 'none') throw new Error(`width ${n} has no core to compare`);
    writeFileSync(file('rows'), source);
    writeFileSync(file('core'), hadamardCore({ kind, core }));
    writeFileSync(file('signs'), signsFromBits(rotation.signs, n));
    await peer.ask('load', rows, n, core, file('rows'), file('core'), file('signs'));
  }
  const difference = peer === undefined ? null : await differenceToPeer(rotation, rows, source);
  const ways = waysOf(rows, rotation, source);
  const speeds = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
  for (let repeat = -1; repeat < repeats; repeat++) {
    for (const [name, way] of Object.entries(ways)) {
      const seconds = await way();
      if (repeat >= 0) speeds[name].push((rows * n) / seconds / 1e6);
    }
  }
  const figures = Object.fromEntries(Object.entries(speeds).map(([name, values]) => [name, summary(values)]));
  return { n, rows, core: rotation.core, kind: rotation.kind, million_weights_per_second: figures, difference };
}

const show = ({ median, least, greatest }) =>
  `${median.toFixed(0).padStart(6)} (${least.toFixed(0)} to ${greatest.toFixed(0)})`;
console.log(`${status.simd}, ${status.compiler}, ${repeats} repeats, million weights a second`);
console.log(peer?.version ?? 'Python not measured: give --python an interpreter that has numpy and torch');
const widths = [];
try {
  for (const n of options.widths.split(',').map(Number)) {
    const figures = await measure(n);
    widths.push(figures);
    console.log(`\nn = ${n}, core ${figures.core} (${figures.kind}), ${figures.rows} rows`);
    for (const [name, speed] of Object.entries(figures.million_weights_per_second)) {
      console.log(`  ${name.padEnd(28)} ${show(speed)}`);
    }
    if (figures.difference !== null)
      console.log(`  largest difference to PyTorch ${figures.difference.toExponential(1)}`);
  }
} finally {
  peer?.stop();
  rmSync(folder, { recursive: true, force: true });
}
const report = { threads, repeats, simd: status.simd, compiler: status.compiler, peer: peer?.version ?? null, widths };
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
else console.log(`\n${JSON.stringify(report)}`);
