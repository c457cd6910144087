// Claim: a step of AdamW takes at most 1/1.2 of the time a parameter that torch.optim.AdamW takes, fused or foreach,
// whichever is faster.
//
//   npm run build && node bench/optimizers.mjs [--parameters 20000000] [--tensors 40] [--threads 2] [--repeats 15]
//                    [--python PYTHON] [--json FILE]
//
// Every repeat takes each way once, in turn. A bare step reads the gradients and moves parameters and moments; a whole
// step also takes the norm of all gradients, clips to it and leaves the gradients zero, as training does. f32, decay 0.01.
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = new URL('../dist/src/', import.meta.url);
const { configureKernels, kernelStatus } = await import(new URL('kernels/native.js', root));
const { sumOfSquares } = await import(new URL('kernels/optimizer-steps.js', root));
const { createOptimizer } = await import(new URL('training/optimizer.js', root));
const { clipCoefficient } = await import(new URL('training/clipping.js', root));
const { createRandom } = await import(new URL('random.js', root));

const { values: options } = parseArgs({
  options: {
    parameters: { type: 'string', default: '20000000' },
    tensors: { type: 'string', default: '40' },
    threads: { type: 'string', default: '2' },
    repeats: { type: 'string', default: '15' },
    python: { type: 'string' },
    json: { type: 'string' },
  },
});
const [parameters, tensors, threads, repeats] = ['parameters', 'tensors', 'threads', 'repeats'].map((name) =>
  Number(options[name]),
);
const length = Math.floor(parameters / tensors);
const count = length * tensors;
if (!kernelStatus().native) {
  console.error(`no native kernels: ${kernelStatus().reason}`);
  process.exit(1);
}

/** A set of `tensors` vectors with normal values, and gradients of length about 1e-3 each. */
function makeSet(size, pieces) {
  const random = createRandom(1);
  const noise = Float32Array.from({ length: 65536 }, () => random.normal());
  const [values, gradients] = [new Float32Array(size), new Float32Array(size)];
  for (let i = 0; i < size; i++) {
    values[i] = 0.02 * noise[i & 65535];
    gradients[i] = 1e-3 * noise[(i * 7 + 3) & 65535];
  }
  const each = size / pieces;
  const list = Array.from({ length: pieces }, (_, i) => ({
    name: `t${i}`,
    dims: [each],
    offset: i * each,
    length: each,
  }));
  return { precision: 'f32', parameters: list, values, gradients };
}

const set = makeSet(count, tensors);
const optimizer = createOptimizer(set, { method: 'adamw' });
const few = makeSet(Math.max(1, Math.floor(count / 32)), 1);
const slow = createOptimizer(few, { method: 'adamw' });

const seconds = (work) => {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start) / 1e9;
};

function wholeStep() {
  const norm = Math.sqrt(sumOfSquares(set.gradients, threads));
  optimizer.step({ learningRate: 1e-4, gradientScale: clipCoefficient(norm, 1), clear: true, threads });
}

/** A PyTorch process that makes one step for every line it is sent. */
async function startTorch() {
  if (options.python === undefined) return undefined;
  const script = fileURLToPath(new URL('optimizers.py', import.meta.url));
  const child = spawn(options.python, [script, count, tensors, threads].map(String), {
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
const ways = [
  {
    name: 'step',
    count,
    time: () => seconds(() => optimizer.step({ learningRate: 1e-4, threads })),
  },
  { name: 'whole step', count, time: () => seconds(wholeStep) },
];
if (torch !== undefined) {
  for (const way of ['fused', 'foreach', 'fused+clip', 'foreach+clip'])
    ways.push({ name: `torch ${way}`, count, time: () => torch.time(way) });
}
ways.push({
  name: 'TypeScript step',
  count: few.values.length,
  time: () => {
    configureKernels({ native: false });
    const time = seconds(() => slow.step({ learningRate: 1e-4 }));
    configureKernels({ native: true });
    return time;
  },
});

const fresh = set.gradients.slice();
for (const way of ways) way.times = [];
for (let repeat = -2; repeat < repeats; repeat++) {
  for (const way of ways) {
    set.gradients.set(fresh);
    const time = await way.time();
    if (repeat >= 0) way.times.push(time);
  }
}
torch?.stop();

function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, least: sorted[0], greatest: sorted[sorted.length - 1] };
}
const show = ({ median, least, greatest }, digits) =>
  `${median.toFixed(digits)} (${least.toFixed(digits)} to ${greatest.toFixed(digits)})`;

const figures = ways.map((way) => ({
  way: way.name,
  nanosecondsPerParameter: summary(way.times.map((time) => (time * 1e9) / way.count)),
}));
const status = kernelStatus();
console.log(`AdamW, ${count} parameters in ${tensors} tensors, ${threads} threads, ${status.simd}, ${repeats} repeats`);
for (const { way, nanosecondsPerParameter } of figures)
  console.log(`${way.padEnd(20)}  ${show(nanosecondsPerParameter, 3)} ns/parameter`);

/** Ratio of two ways, repeat by repeat: both sides of a repeat ran next to each other. */
function ratio(ours, theirs) {
  const [a, b] = [ours, theirs].map((name) => ways.find((way) => way.name === name));
  if (a === undefined || b === undefined) return undefined;
  const least = Math.min(...b.times) / b.count / (Math.min(...a.times) / a.count);
  return { ...summary(a.times.map((time, i) => b.times[i] / b.count / (time / a.count))), ofLeastTimes: least };
}

const ratios = [
  ['step against torch fused', ratio('step', 'torch fused')],
  ['step against torch foreach', ratio('step', 'torch foreach')],
  ['whole step against torch fused', ratio('whole step', 'torch fused+clip')],
  ['whole step against torch foreach', ratio('whole step', 'torch foreach+clip')],
  ['step against TypeScript', ratio('step', 'TypeScript step')],
];
for (const [name, value] of ratios) {
  const text =
    value === undefined
      ? 'not measured: give --python an interpreter that has torch'
      : `${show(value, 2)}; of the least times ${value.ofLeastTimes.toFixed(2)}`;
  console.log(`${name.padEnd(32)}  ${text}${name.includes('torch') ? '  aim 1.2' : ''}`);
}
const report = { count, tensors, threads, repeats, simd: status.simd, torch: torch?.version ?? null, figures };
report.ratios = Object.fromEntries(ratios.map(([name, value]) => [name, value ?? null]));
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
else console.log(`\n${JSON.stringify(report)}`);
