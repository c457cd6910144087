// Claim: rows of weights are encoded as pyramid codes (search, gains, row scales, index, packing) at 100 million weights
// a second on one AVX2 core at D = 16, K = 23, 3 gain bits (3 bits a weight).
//
//   npm run build && node bench/pvq-encode.mjs [--threads 2] [--shapes 16:23:3,16:11:1,...] [--rows 1024]
//                    [--columns 4096] [--repeats 9] [--simd 1|2] [--python PYTHON] [--json FILE]
//
// A shape is D:K:gain bits. Every repeat takes each way once, in turn: every search mode on one thread and on --threads;
// rounding of the same tensor to 4 bits with absmax scales of 128 weights; the TypeScript reference on a part of the
// rows; and with --python (an interpreter that has numpy) greedy search, gains and row scales in NumPy, without
// packing, on a part of the rows, on one thread. --simd 1 lowers the processor to AVX2. Million weights a second:
// medians, with the least and the greatest; dB of sum w^2 / sum (w - what)^2.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const sources = new URL('../dist/src/', import.meta.url);
const { configureKernels, kernelStatus, nativeKernels } = await import(new URL('kernels/native.js', sources));
const { roundToAbsmax } = await import(new URL('kernels/absmax-rounding.js', sources));
const { encodeRows } = await import(new URL('quantization/encode-rows.js', sources));
const { gainLevels } = await import(new URL('quantization/gain-levels.js', sources));
const { createRandom } = await import(new URL('random.js', sources));

const { values: options } = parseArgs({
  options: {
    threads: { type: 'string', default: '2' },
    shapes: { type: 'string', default: '16:23:3,8:13:2,16:11:1,16:48:4,32:48:2,64:92:3,128:184:3' },
    rows: { type: 'string', default: '1024' },
    columns: { type: 'string', default: '4096' },
    repeats: { type: 'string', default: '9' },
    simd: { type: 'string', default: '2' },
    python: { type: 'string', default: process.env.PYTHON },
    json: { type: 'string' },
  },
});
const [threads, rows, columns, repeats] = [options.threads, options.rows, options.columns, options.repeats].map(Number);
const slowRows = Math.max(1, rows >> 6);
const native = nativeKernels();
if (native === undefined) {
  console.error(`no native kernels: ${kernelStatus().reason}`);
  process.exit(1);
}
native.limitSimd(Number(options.simd));
const status = kernelStatus();

/** Normal weights; every later block of rows is a copy of the first: normal numbers by the million take long. */
function normalWeights() {
  const random = createRandom(1);
  const distinct = Math.min(rows, 64) * columns;
  const weights = new Float32Array(rows * columns);
  for (let i = 0; i < distinct; i++) weights[i] = random.normal();
  for (let at = distinct; at < weights.length; at += distinct) {
    weights.set(weights.subarray(0, Math.min(distinct, weights.length - at)), at);
  }
  return weights;
}

function seconds(work) {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start) / 1e9;
}

/** A Python process that encodes once for every line it is sent. */
async function startPeer(folder, { D, K }, weights, levels) {
  if (options.python === undefined) return undefined;
  writeFileSync(join(folder, 'weights'), new Uint8Array(weights.buffer, 0, 4 * slowRows * columns));
  writeFileSync(join(folder, 'levels'), new Uint8Array(levels.buffer));
  const script = fileURLToPath(new URL('pvq-encode.py', import.meta.url));
  const child = spawn(options.python, [script, folder, slowRows, columns, D, K].map(String), {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error('the Python process ended early');
    return value;
  };
  const version = await read();
  const time = async () => {
    child.stdin.write('encode\n');
    const [elapsed, dB] = (await read()).split(' ').map(Number);
    return { elapsed, dB };
  };
  return { version, time, stop: () => child.stdin.end() };
}

function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, least: sorted[0], greatest: sorted[sorted.length - 1] };
}

const weights = normalWeights();
const few = weights.subarray(0, slowRows * columns);
const MODES = ['greedy', 'fixed-point', 'best', 'exact'];
const report = {
  rows,
  columns,
  threads,
  repeats,
  simd: status.simd,
  compiler: status.compiler,
  numpy: null,
  shapes: [],
};
console.log(
  `[${rows} x ${columns}] normal weights, ${status.simd}, ${status.compiler}, ${repeats} repeats; Mweights/s`,
);
const folder = mkdtempSync(join(tmpdir(), 'pvq-encode-'));
try {
  for (const text of options.shapes.split(',')) {
    const [D, K, gainBits] = text.split(':').map(Number);
    const levels = Float32Array.from(gainLevels('lloyd', D, columns, 2 ** gainBits));
    const code = { groupLength: D, pulses: K, gainBits, superGroup: 1 };
    const encode = (x, count, mode, used) => {
      const { statistics } = encodeRows(x, count, columns, code, levels, { mode, threads: used });
      return 10 * Math.log10(statistics.weightEnergy / statistics.squaredError);
    };
    const ways = [];
    const counts = threads === 1 ? [1] : [1, threads];
    for (const mode of MODES) {
      for (const used of counts) {
        const way = { name: `${mode}, ${used} thread${used === 1 ? '' : 's'}`, elements: rows * columns, times: [] };
        way.time = () =>
          seconds(() => {
            way.dB = encode(weights, rows, mode, used);
          });
        ways.push(way);
      }
    }
    for (const used of counts) {
      const name = `RTN int4 g128, ${used} thread${used === 1 ? '' : 's'}`;
      const time = () => seconds(() => roundToAbsmax(weights, rows, columns, 128, used));
      ways.push({ name, elements: rows * columns, times: [], time });
    }
    for (const mode of ['greedy', 'exact']) {
      const way = { name: `TypeScript ${mode}`, elements: slowRows * columns, times: [] };
      way.time = () => {
        configureKernels({ native: false });
        const elapsed = seconds(() => {
          way.dB = encode(few, slowRows, mode, 1);
        });
        configureKernels({ native: true });
        return elapsed;
      };
      ways.push(way);
    }
    const peer = await startPeer(folder, { D, K }, weights, levels);
    if (peer !== undefined) {
      report.numpy = peer.version;
      const way = { name: 'NumPy greedy', elements: slowRows * columns, times: [] };
      way.time = async () => {
        const { elapsed, dB } = await peer.time();
        way.dB = dB;
        return elapsed;
      };
      ways.push(way);
    }
    for (let repeat = -1; repeat < repeats; repeat++) {
      for (const way of ways) {
        const elapsed = await way.time();
        if (repeat >= 0) way.times.push(elapsed);
      }
    }
    peer?.stop();
    console.log(`\nD=${D} K=${K} gain bits=${gainBits}`);
    const figures = ways.map((way) => {
      const megaweights = summary(way.times.map((elapsed) => way.elements / elapsed / 1e6));
      const { median, least, greatest } = megaweights;
      const speed = `${median.toFixed(1)} (${least.toFixed(1)} to ${greatest.toFixed(1)})`;
      const quality = way.dB === undefined ? '' : `${way.dB.toFixed(3)} dB`;
      console.log(`${way.name.padEnd(24)}  ${speed.padEnd(28)}  ${quality}`);
      return { way: way.name, megaweightsPerSecond: megaweights, sqnrDb: way.dB ?? null };
    });
    report.shapes.push({ D, K, gainBits, figures });
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
else console.log(`\n${JSON.stringify(report)}`);
