// Claim (a): the entropy of every row of a [512 x 131072] matrix of logits is bound by memory, not by arithmetic.
//
//   npm run build && node bench/entropy-kernel.mjs [--threads 2] [--rows 512] [--columns 131072] [--repeats 9]
//                    [--python PYTHON] [--json FILE]
//
// Every repeat takes each way once, in turn, so that all see the same noise: a plain read of the same memory, the
// native kernel on f32, bf16 and f16, all measures on f32, PyTorch twice (with --python, an interpreter that has
// torch). The TypeScript reference runs on a sixteenth of the rows. Medians, with the least and the greatest.
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const kernels = new URL('../dist/src/kernels/', import.meta.url);
const { configureKernels, kernelStatus, nativeKernels } = await import(new URL('native.js', kernels));
const { accumulateRows, createRowAccumulator, finalizeRows } = await import(new URL('row-statistics.js', kernels));
const { narrowFromF32 } = await import(new URL('dtypes.js', kernels));

const { values: options } = parseArgs({
  options: {
    threads: { type: 'string', default: '2' },
    rows: { type: 'string', default: '512' },
    columns: { type: 'string', default: '131072' },
    repeats: { type: 'string', default: '9' },
    python: { type: 'string' },
    json: { type: 'string' },
  },
});
const threads = Number(options.threads);
const rows = Number(options.rows);
const columns = Number(options.columns);
const repeats = Number(options.repeats);
const native = nativeKernels();
if (native === undefined) {
  console.error(`no native kernels: ${kernelStatus().reason}`);
  process.exit(1);
}

/** Normal logits of standard deviation 3. Every row is a rotation of one long row: drawing 67 million takes too long. */
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
  const all = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    const turn = (r * 7919) % columns;
    all.set(single.subarray(turn), r * columns);
    all.set(single.subarray(0, turn), r * columns + columns - turn);
  }
  return all;
}

function narrowed(single, dtype) {
  const bits = new Uint16Array(single.length);
  narrowFromF32(single, dtype, new Uint8Array(bits.buffer), threads);
  return bits;
}

const single = makeLogits();
const blocks = {
  F32: { data: single, dtype: 'F32', rows, columns },
  BF16: { data: narrowed(single, 'BF16'), dtype: 'BF16', rows, columns },
  F16: { data: narrowed(single, 'F16'), dtype: 'F16', rows, columns },
};

function seconds(work) {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start) / 1e9;
}

function statistics(block, measures) {
  const accumulator = createRowAccumulator(block.rows, { measures });
  accumulateRows(accumulator, block, { threads });
  return finalizeRows(accumulator, columns);
}

/** A PyTorch process that computes once for every line it is sent. */
async function startTorch() {
  if (options.python === undefined) return undefined;
  const script = fileURLToPath(new URL('entropy-kernel-torch.py', import.meta.url));
  const child = spawn(options.python, [script, rows, columns, threads].map(String), {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error('the PyTorch process ended early');
    return value;
  };
  const version = await read();
  const time = async (way) => {
    child.stdin.write(`${way}\n`);
    return Number(await read());
  };
  return { version, time, stop: () => child.stdin.end() };
}

const torch = await startTorch();
const elements = rows * columns;
const few = { ...blocks.F32, rows: Math.max(1, Math.floor(rows / 16)) };
const ways = [
  { name: 'plain read', elements, bytes: 4, time: () => seconds(() => native.readMemory(bytesOf(single), threads)) },
  { name: 'entropy f32', elements, bytes: 4, time: () => seconds(() => statistics(blocks.F32, 'entropy')) },
  { name: 'entropy bf16', elements, bytes: 2, time: () => seconds(() => statistics(blocks.BF16, 'entropy')) },
  { name: 'entropy f16', elements, bytes: 2, time: () => seconds(() => statistics(blocks.F16, 'entropy')) },
  { name: 'all measures f32', elements, bytes: 4, time: () => seconds(() => statistics(blocks.F32, 'full')) },
];
if (torch !== undefined) {
  ways.push({ name: 'torch log_softmax', elements, bytes: 4, time: () => torch.time('log_softmax') });
  ways.push({ name: 'torch Categorical', elements, bytes: 4, time: () => torch.time('categorical') });
}
ways.push({
  name: 'TypeScript f32',
  elements: few.rows * columns,
  bytes: 4,
  time: () => {
    configureKernels({ native: false });
    const time = seconds(() => statistics(few, 'entropy'));
    configureKernels({ native: true });
    return time;
  },
});

function bytesOf(array) {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

for (const way of ways) way.times = [];
for (let repeat = -1; repeat < repeats; repeat++) {
  for (const way of ways) {
    const time = await way.time();
    if (repeat >= 0) way.times.push(time);
  }
}
torch?.stop();

/** Median, least and greatest of a figure over the repeats. */
function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, least: sorted[0], greatest: sorted[sorted.length - 1] };
}

const figures = ways.map((way) => ({
  way: way.name,
  milliseconds: summary(way.times.map((t) => (t * 1e3 * elements) / way.elements)),
  gigabytesPerSecond: summary(way.times.map((t) => (way.elements * way.bytes) / t / 1e9)),
  gigaelementsPerSecond: summary(way.times.map((t) => way.elements / t / 1e9)),
}));
const show = ({ median, least, greatest }, digits) =>
  `${median.toFixed(digits)} (${least.toFixed(digits)} to ${greatest.toFixed(digits)})`;
const status = kernelStatus();
console.log(
  `[${rows} x ${columns}] logits, ${threads} threads, ${status.simd}, ${status.compiler}, ${repeats} repeats`,
);
console.log(['way'.padEnd(18), 'ms'.padEnd(28), 'GB/s'.padEnd(26), 'Gelements/s'].join('  '));
for (const figure of figures) {
  console.log(
    [
      figure.way.padEnd(18),
      show(figure.milliseconds, 1).padEnd(28),
      show(figure.gigabytesPerSecond, 2).padEnd(26),
      show(figure.gigaelementsPerSecond, 3),
    ].join('  '),
  );
}

/**
 * Ratio of two ways, repeat by repeat, both sides of a repeat having run next to each other; and that of the least
 * times of each, which a busy machine disturbs less.
 */
function ratio(numerator, denominator) {
  const perElement = (way) => way.elements;
  const [top, bottom] = [numerator, denominator].map((name) => ways.find((way) => way.name === name));
  if (top === undefined || bottom === undefined) return undefined;
  const quotient = (a, b) => perElement(top) / a / (perElement(bottom) / b);
  const ofLeastTimes = quotient(Math.min(...top.times), Math.min(...bottom.times));
  return { ...summary(top.times.map((t, i) => quotient(t, bottom.times[i]))), ofLeastTimes };
}

const ratios = [
  ['share of read bandwidth, f32', ratio('entropy f32', 'plain read'), 0.5],
  ['bf16 against f32, elements/s', ratio('entropy bf16', 'entropy f32'), 1.3],
  ['against torch log_softmax', ratio('entropy f32', 'torch log_softmax'), 10],
  ['against torch Categorical', ratio('entropy f32', 'torch Categorical'), 10],
  ['against TypeScript', ratio('entropy f32', 'TypeScript f32'), undefined],
];
console.log('');
for (const [name, value, aim] of ratios) {
  const text =
    value === undefined
      ? 'not measured: give --python an interpreter that has torch'
      : `${show(value, 2)}; of the least times ${value.ofLeastTimes.toFixed(2)}`;
  console.log(`${name.padEnd(30)}  ${text}${aim === undefined ? '' : `  aim ${aim}`}`);
}
const report = {
  rows,
  columns,
  threads,
  repeats,
  simd: status.simd,
  compiler: status.compiler,
  torch: torch?.version ?? null,
  figures,
  ratios: Object.fromEntries(ratios.map(([name, value]) => [name, value ?? null])),
};
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
else console.log(`\n${JSON.stringify(report)}`);
