// Claim: the eigenvalues of a dense symmetric matrix in double precision come faster than from LAPACK's eigvalsh.
//
//   npm run build && node bench/symmetric-spectrum.mjs [--threads 2] [--orders 768,1000,3000] [--repeats 5]
//                    [--python PYTHON] [--json FILE]
//
// Every repeat takes each way once, in turn, on the same matrix of normal numbers: the native kernel, and with
// --python (an interpreter that has numpy and scipy) numpy.linalg.eigvalsh and scipy.linalg.eigvalsh on as many
// threads. Medians, with the least and the greatest, and the largest difference of the eigenvalues in n eps |A|.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const sources = new URL('../dist/src/', import.meta.url);
const { kernelStatus } = await import(new URL('kernels/native.js', sources));
const { symmetricSpectrum } = await import(new URL('kernels/symmetric-spectrum.js', sources));
const { createRandom } = await import(new URL('random.js', sources));

const { values: options } = parseArgs({
  options: {
    threads: { type: 'string', default: '2' },
    orders: { type: 'string', default: '768,1000,3000' },
    repeats: { type: 'string', default: '5' },
    python: { type: 'string', default: process.env.PYTHON },
    json: { type: 'string' },
  },
});
const threads = Number(options.threads);
const repeats = Number(options.repeats);
const status = kernelStatus();
if (!status.native) {
  console.error(`no native kernels: ${status.reason}`);
  process.exit(1);
}

function normalMatrix(n) {
  const random = createRandom(n);
  const matrix = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      matrix[i * n + j] = random.normal();
      matrix[j * n + i] = matrix[i * n + j];
    }
  }
  return matrix;
}

/** A Python process that computes once for every line it is sent. */
async function startPeer() {
  if (options.python === undefined) return undefined;
  const script = fileURLToPath(new URL('symmetric-spectrum.py', import.meta.url));
  const child = spawn(options.python, [script, String(threads)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error('the Python process ended early');
    return value;
  };
  const version = await read();
  const time = async (way, n, source, target) => {
    child.stdin.write(`${way} ${n} ${source} ${target}\n`);
    return Number(await read());
  };
  return { version, time, stop: () => child.stdin.end() };
}

/** Median, least and greatest of a figure over the repeats. */
function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, least: sorted[0], greatest: sorted[sorted.length - 1] };
}

/** Largest difference in units of n eps |A|. */
function difference(found, expected) {
  let most = 0;
  let norm = 0;
  for (let i = 0; i < found.length; i++) {
    most = Math.max(most, Math.abs(found[i] - expected[i]));
    norm = Math.max(norm, Math.abs(expected[i]));
  }
  return most / (found.length * Number.EPSILON * norm);
}

const peer = await startPeer();
const names = peer === undefined ? ['surprisal'] : ['surprisal', 'numpy', 'scipy'];
const folder = mkdtempSync(join(tmpdir(), 'surprisal-spectrum-'));
const [source, target] = [join(folder, 'matrix'), join(folder, 'values')];

async function measure(n) {
  const matrix = normalMatrix(n);
  writeFileSync(source, matrix);
  const times = Object.fromEntries(names.map((name) => [name, []]));
  let values;
  let distance = 0;
  for (let repeat = -1; repeat < repeats; repeat++) {
    for (const name of names) {
      let seconds;
      if (name === 'surprisal') {
        const copy = matrix.slice();
        const start = process.hrtime.bigint();
        values = symmetricSpectrum(copy, n, { threads });
        seconds = Number(process.hrtime.bigint() - start) / 1e9;
      } else {
        seconds = await peer.time(name, n, source, target);
        const bytes = readFileSync(target);
        distance = Math.max(distance, difference(values, new Float64Array(bytes.buffer, bytes.byteOffset, n)));
      }
      if (repeat >= 0) times[name].push(seconds);
    }
  }
  const milliseconds = Object.fromEntries(names.map((name) => [name, summary(times[name].map((t) => t * 1e3))]));
  const ratios = names.slice(1).map((name) => [name, summary(times[name].map((t, i) => t / times.surprisal[i]))]);
  return { n, milliseconds, ratios: Object.fromEntries(ratios), difference: peer === undefined ? null : distance };
}

const show = ({ median, least, greatest }, digits) =>
  `${median.toFixed(digits)} (${least.toFixed(digits)} to ${greatest.toFixed(digits)})`;
console.log(`${threads} threads, ${status.simd}, ${status.compiler}, ${repeats} repeats`);
console.log(peer?.version ?? 'LAPACK not measured: give --python an interpreter that has numpy and scipy');
const orders = [];
try {
  for (const n of options.orders.split(',').map(Number)) {
    const figures = await measure(n);
    orders.push(figures);
    console.log(`\nn = ${n}`);
    for (const name of names) console.log(`  ${name.padEnd(10)} ${show(figures.milliseconds[name], 1)} ms`);
    for (const [name, ratio] of Object.entries(figures.ratios)) {
      console.log(`  ${name} / surprisal: ${show(ratio, 2)}`);
    }
    if (figures.difference !== null) console.log(`  largest difference ${figures.difference.toFixed(3)} n eps |A|`);
  }
} finally {
  peer?.stop();
  rmSync(folder, { recursive: true, force: true });
}
const report = { threads, repeats, simd: status.simd, compiler: status.compiler, peer: peer?.version ?? null, orders };
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
else console.log(`\n${JSON.stringify(report)}`);
