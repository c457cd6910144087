// Claim: stored pyramid codes decode at 300 million weights a second on one AVX2 core at D = 16, K = 23 (3 bits a
// weight with their gains), so that loading a quantised model is bound by its disk.
//
//   npm run build && node bench/pvq-decode.mjs [--threads 2] [--shapes 16:23:3,16:11:1,...] [--rows 1024]
//                    [--columns 4096] [--repeats 9] [--python PYTHON] [--json FILE]
//
// A shape is D:K:gain bits, or D:K:gain bits:groups of a super-group. Every repeat takes each way once, in turn:
// packing and unpacking of pulses and whole dequantisation (unpack, decode, gain), on one thread and on --threads; the
// TypeScript reference on a part of the rows; and with --python (an interpreter that has numpy) the same in NumPy,
// whose operations have one thread, where indices fit 64 bits. Million weights a second: medians, with the least and
// the greatest. Decoded pulses are compared with the originals on every way.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const sources = new URL('../dist/src/', import.meta.url);
const { configureKernels, kernelStatus } = await import(new URL('kernels/native.js', sources));
const { rowCodeBytes, rowIndexBytes, wordBits } = await import(new URL('kernels/pyramid.js', sources));
const { dequantizeRows, packCodes, packPulses, unpackPulses } = await import(
  new URL('kernels/pyramid-index.js', sources)
);
const { createRandom } = await import(new URL('random.js', sources));

const { values: options } = parseArgs({
  options: {
    threads: { type: 'string', default: '2' },
    shapes: { type: 'string', default: '16:23:3,16:11:1,16:48:4,8:13:2,32:48:2,64:92:3,128:378:4,8:6:1:16' },
    rows: { type: 'string', default: '1024' },
    columns: { type: 'string', default: '4096' },
    repeats: { type: 'string', default: '9' },
    python: { type: 'string', default: process.env.PYTHON },
    json: { type: 'string' },
  },
});
const threads = Number(options.threads);
const rows = Number(options.rows);
const columns = Number(options.columns);
const repeats = Number(options.repeats);
/** The reference works in big integers: a part of the rows is enough. */
const referenceRows = Math.max(1, rows >> 7);
const status = kernelStatus();
if (!status.native) {
  console.error(`no native kernels: ${status.reason}`);
  process.exit(1);
}

/** Pulses [rows, groups, D] near normal weights: floors of K |x| / |x|_1, the rest where most was cut off. */
function normalPulses(D, K) {
  const random = createRandom(D * 1000 + K);
  const pulses = new Int16Array(rows * columns);
  const x = new Float64Array(D);
  const cut = new Float64Array(D);
  // Every later block of groups is a copy of the first: normal numbers by the million take long.
  const distinct = Math.min(pulses.length, D * 8192);
  for (let at = 0; at < distinct; at += D) {
    let sum = 0;
    for (let i = 0; i < D; i++) {
      x[i] = random.normal();
      sum += Math.abs(x[i]);
    }
    let left = K;
    for (let i = 0; i < D; i++) {
      const exact = (K * Math.abs(x[i])) / sum;
      const pulse = Math.floor(exact);
      cut[i] = exact - pulse;
      pulses[at + i] = pulse;
      left -= pulse;
    }
    for (; left > 0; left--) {
      let most = 0;
      for (let i = 1; i < D; i++) if (cut[i] > cut[most]) most = i;
      pulses[at + most]++;
      cut[most] = -1;
    }
    for (let i = 0; i < D; i++) if (x[i] < 0) pulses[at + i] = -pulses[at + i];
  }
  for (let at = distinct; at < pulses.length; at += distinct) {
    pulses.set(pulses.subarray(0, Math.min(distinct, pulses.length - at)), at);
  }
  return pulses;
}

function seconds(work) {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start) / 1e9;
}

function requireEqual(actual, expected, way) {
  if (Buffer.compare(bytesOf(actual), bytesOf(expected)) !== 0) throw new Error(`${way} gave other values`);
}

const bytesOf = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** A Python process that does one way for every line it is sent. */
async function startPeer(folder, shape, encoded, pulses) {
  if (options.python === undefined || shape.superGroup > 1 || wordBits(shape) > 64) return undefined;
  const files = { pulses, index: encoded.index, gain: encoded.gain, scales: encoded.scales, levels: encoded.levels };
  for (const [name, array] of Object.entries(files)) writeFileSync(join(folder, name), bytesOf(array));
  const script = fileURLToPath(new URL('pvq-decode.py', import.meta.url));
  const sizes = [rows, columns, shape.groupLength, shape.pulses, shape.gainBits, wordBits(shape)].map(String);
  const child = spawn(options.python, [script, folder, ...sizes], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error('the Python process ended early');
    return value;
  };
  const version = await read();
  const time = async (way) => {
    child.stdin.write(`${way}\n`);
    return Number(await read());
  };
  return { version, time, stop: () => child.stdin.end() };
}

/** Median, least and greatest. */
function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, least: sorted[0], greatest: sorted[sorted.length - 1] };
}

function inTypeScript(work) {
  configureKernels({ native: false });
  const time = seconds(work);
  configureKernels({ native: true });
  return time;
}

async function measure(shape) {
  const { groupLength: D, pulses: K, gainBits } = shape;
  const groups = columns / D;
  const pulses = normalPulses(D, K);
  const index = new Uint8Array(rows * rowIndexBytes(shape, groups));
  const gain = new Uint8Array(rows * rowCodeBytes(gainBits, groups));
  const codes = Uint8Array.from({ length: rows * groups }, (_, i) => i & (2 ** gainBits - 1));
  packCodes(codes, rows, groups, gainBits, gain);
  const scales = new Float32Array(rows).fill(0.02);
  const levels = Float32Array.from({ length: 2 ** gainBits }, (_, i) => 0.05 * (1 + i));
  const encoded = { rows, columns, code: shape, index, gain, scales, levels };
  const back = new Int16Array(pulses.length);
  const weights = new Float32Array(pulses.length);
  const few = new Float32Array(referenceRows * columns);
  packPulses(pulses, rows, groups, shape, index, threads);

  const ways = [];
  const counts = threads > 1 ? [1, threads] : [1];
  for (const count of counts) {
    const on = `${count} thread${count > 1 ? 's' : ''}`;
    const packed = new Uint8Array(index.length);
    const pack = () => seconds(() => packPulses(pulses, rows, groups, shape, packed, count));
    const unpack = () => seconds(() => unpackPulses(index, rows, groups, shape, back, count));
    const dequantize = () => seconds(() => dequantizeRows(encoded, weights, { threads: count }));
    ways.push({ name: `index and pack, ${on}`, rows, time: pack, check: () => requireEqual(packed, index, 'packing') });
    ways.push({ name: `decode, ${on}`, rows, time: unpack, check: () => requireEqual(back, pulses, 'decoding') });
    ways.push({ name: `dequantise, ${on}`, rows, time: dequantize, check: () => {} });
  }
  const part = pulses.subarray(0, referenceRows * columns);
  const partPacked = new Uint8Array(referenceRows * rowIndexBytes(shape, groups));
  ways.push({
    name: 'index and pack, TypeScript',
    rows: referenceRows,
    time: () => inTypeScript(() => packPulses(part, referenceRows, groups, shape, partPacked)),
    check: () => requireEqual(partPacked, index.subarray(0, partPacked.length), 'packing in TypeScript'),
  });
  ways.push({
    name: 'dequantise, TypeScript',
    rows: referenceRows,
    time: () => inTypeScript(() => dequantizeRows(encoded, few, { rowCount: referenceRows })),
    check: () => requireEqual(few, weights.subarray(0, few.length), 'dequantising in TypeScript'),
  });
  const folder = mkdtempSync(join(tmpdir(), 'surprisal-bench-'));
  try {
    const peer = await startPeer(folder, shape, encoded, pulses);
    if (peer !== undefined) {
      ways.push({ name: 'index and pack, NumPy', rows, time: () => peer.time('pack'), check: () => {} });
      ways.push({ name: 'dequantise, NumPy', rows, time: () => peer.time('dequantize'), check: () => {} });
    }
    for (const way of ways) way.times = [];
    for (let repeat = -1; repeat < repeats; repeat++) {
      for (const way of ways) {
        const time = await way.time();
        if (repeat >= 0) way.times.push(time);
        else way.check();
      }
    }
    peer?.stop();
    const figures = ways.map((way) => ({
      way: way.name,
      millionWeightsPerSecond: summary(way.times.map((time) => (way.rows * columns) / time / 1e6)),
    }));
    return { ...shape, indexBits: wordBits(shape), numpy: peer?.version ?? null, figures };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const shapes = options.shapes.split(',').map((text) => {
  const [groupLength, pulses, gainBits, superGroup = 1] = text.split(':').map(Number);
  if (columns % groupLength !== 0) throw new Error(`--columns must be a multiple of ${groupLength}`);
  return { groupLength, pulses, gainBits, superGroup };
});
console.log(
  `[${rows} x ${columns}] weights, ${status.simd}, ${status.compiler}, ${repeats} repeats, million weights/s`,
);
const results = [];
for (const shape of shapes) {
  const result = await measure(shape);
  results.push(result);
  const groups = shape.superGroup > 1 ? `, super-groups of ${shape.superGroup}` : '';
  console.log(`\nD = ${shape.groupLength}, K = ${shape.pulses}, ${result.indexBits} bits a word${groups}`);
  for (const { way, millionWeightsPerSecond: speed } of result.figures) {
    const digits = speed.median < 10 ? 2 : 0;
    const range = `${speed.least.toFixed(digits)} to ${speed.greatest.toFixed(digits)}`;
    console.log(`  ${way.padEnd(28)}  ${speed.median.toFixed(digits).padStart(6)}  (${range})`);
  }
}
const report = { rows, columns, threads, repeats, simd: status.simd, compiler: status.compiler, shapes: results };
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
