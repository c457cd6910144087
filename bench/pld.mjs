// Claim: loss and gradient of Plackett-Luce distillation at [4096 x 32000] take a fifth of PyTorch's time, or less.
//
//   npm run build && node bench/pld.mjs [--rows 4096] [--classes 32000] [--listed 64] [--threads 2] [--repeats 5]
//                    [--python PYTHON] [--json FILE]
//
// f32 logits, normal with standard deviation 3; all classes, and a list of the teacher's likeliest with its tail. Both sides
// compute the loss of every row and the gradient of its sum. PyTorch (bench/pld.py, with --python) sorts, gathers, takes
// logcumsumexp and lets autograd do the rest: once with all rows in one graph, once in blocks of 64 rows, which is what its
// caches like. Sides take turns. Medians with the least and the greatest; memory is the peak beyond the two matrices of logits,
// which both sides hold.
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const kernels = new URL('../dist/src/kernels/', import.meta.url);
const { kernelStatus, peakResidentBytes } = await import(new URL('native.js', kernels));
const { plackettLuceRows } = await import(new URL('plackett-luce.js', kernels));

const { values: options } = parseArgs({
  options: {
    rows: { type: 'string', default: '4096' },
    classes: { type: 'string', default: '32000' },
    listed: { type: 'string', default: '64' },
    threads: { type: 'string', default: '2' },
    repeats: { type: 'string', default: '5' },
    python: { type: 'string' },
    json: { type: 'string' },
  },
});
const [rows, classes, listed, threads, repeats] = ['rows', 'classes', 'listed', 'threads', 'repeats'].map((name) =>
  Number(options[name]),
);
const MIB = 2 ** 20;

function uniforms(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 4294967296;
  };
}

/** Normal numbers of standard deviation 3: rotations of one long row, since drawing all takes too long. */
function makeLogits(seed) {
  const uniform = uniforms(seed);
  const single = Float32Array.from(
    { length: classes },
    () => 3 * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
  const all = new Float32Array(rows * classes);
  for (let r = 0; r < rows; r++) {
    const turn = Math.floor(uniform() * classes);
    all.set(single.subarray(turn), r * classes);
    all.set(single.subarray(0, turn), r * classes + classes - turn);
  }
  return all;
}

const student = makeLogits(1);
const teacher = makeLogits(2);
const draw = uniforms(3);
const labels = Int32Array.from({ length: rows }, () => Math.floor(draw() * classes));

const held = peakResidentBytes();
const gradient = new Float32Array(rows * classes);

function ours(length) {
  return {
    name: `surprisal ${kernelStatus().simd}`,
    listed: length,
    async run() {
      const start = process.hrtime.bigint();
      plackettLuceRows({
        rows,
        classes,
        student,
        teacher: { logits: teacher },
        labels,
        labelFirst: true,
        weights: 'teacher',
        temperature: 1,
        listed: length,
        tail: 'partial',
        missingLabel: 'error',
        gradient,
        overwrite: true,
        threads,
      });
      const seconds = Number(process.hrtime.bigint() - start) / 1e9;
      return { seconds, extra: peakResidentBytes() - held };
    },
    close() {},
  };
}

async function peer(length, block) {
  const child = spawn(options.python, [fileURLToPath(new URL('pld.py', import.meta.url))], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ask = async (line) => {
    child.stdin.write(`${line}\n`);
    const { value, done } = await lines.next();
    if (done) throw new Error('PyTorch ended');
    return JSON.parse(value);
  };
  const { held, torch } = await ask(JSON.stringify({ rows, classes, listed: length, block, threads }));
  return {
    name: `PyTorch ${torch}, ${block === 0 ? 'one graph' : `blocks of ${block}`}`,
    listed: length,
    async run() {
      const { seconds, peak } = await ask('again');
      return { seconds, extra: peak - held };
    },
    close: () => child.stdin.end(),
  };
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const results = [];
for (const length of [classes, listed]) {
  const sides = [ours(length)];
  if (options.python) sides.push(await peer(length, 64), await peer(length, 0));
  const times = sides.map(() => []);
  const extras = sides.map(() => 0);
  for (let i = 0; i <= repeats; i++) {
    for (const [s, side] of sides.entries()) {
      const { seconds, extra } = await side.run();
      if (i > 0) times[s].push(seconds);
      extras[s] = Math.max(extras[s], extra);
    }
  }
  const own = median(times[0]);
  console.log(`[${rows} x ${classes}], ${length === classes ? 'all classes' : `list of ${length} and its tail`}`);
  sides.forEach((side, s) => {
    side.close();
    const middle = median(times[s]);
    const span = `${Math.min(...times[s]).toFixed(2)}-${Math.max(...times[s]).toFixed(2)}`;
    const memory = `${Math.round(extras[s] / MIB)} MiB beyond the logits`;
    console.log(`  ${side.name.padEnd(34)} ${middle.toFixed(3)} s (${span}), ${(middle / own).toFixed(1)}x, ${memory}`);
    results.push({
      rows,
      classes,
      listed: length,
      side: side.name,
      seconds: times[s],
      median_seconds: middle,
      extra_bytes: extras[s],
    });
  });
}
if (options.json) writeFileSync(options.json, `${JSON.stringify({ threads, results }, null, 2)}\n`);
