// Claim: error feedback of a [4096 x 4096] tensor at 3 bits a weight takes seconds on one core, most of it products.
//
//   npm run build && node bench/pvq-feedback.mjs [--rows 4096] [--columns 4096] [--group 16] [--pulses 23] [--gain-bits 3]
//                    [--repeats 3] [--threads 2] [--passes 1] [--json FILE]
//
// The Hessian is that of correlated Gaussian inputs, two tokens an input. Every repeat takes each way once, in turn, on
// one thread and on --threads. Medians, with the least and the greatest; losses beside the times.
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

const built = new URL('../dist/src/', import.meta.url);
const load = (path) => import(new URL(path, built));
const { addSecondMoment, multiply } = await load('kernels/gemm.js');
const { createRandom } = await load('random.js');
const { gainLevels } = await load('quantization/gain-levels.js');
const { factorHessian } = await load('quantization/hessian.js');
const { planFeedback, quantizeWithHessian } = await load('quantization/hessian-encoding.js');
const { encodeRows } = await load('quantization/encode-rows.js');

const { values: given } = parseArgs({
  options: {
    rows: { type: 'string', default: '4096' },
    columns: { type: 'string', default: '4096' },
    group: { type: 'string', default: '16' },
    pulses: { type: 'string', default: '23' },
    'gain-bits': { type: 'string', default: '3' },
    repeats: { type: 'string', default: '3' },
    threads: { type: 'string', default: '2' },
    passes: { type: 'string', default: '1' },
    json: { type: 'string' },
  },
});
const [rows, n, D, K, gainBits, repeats, most, passes] = [
  given.rows,
  given.columns,
  given.group,
  given.pulses,
  given['gain-bits'],
  given.repeats,
  given.threads,
  given.passes,
].map(Number);

const random = createRandom(1);
const normals = (count, fork) => {
  const source = random.fork(fork);
  return Float32Array.from({ length: count }, () => source.normal());
};

/** Inputs that a sparse mixing correlates: every one carries four tenths of the next, and all a tenth of a shared one. */
function hessian() {
  const H = new Float64Array(n * n);
  const tokens = 2 * n;
  const block = 512;
  for (let first = 0; first < tokens; first += block) {
    const raw = normals(block * (n + 1), 10 + first);
    const x = new Float32Array(block * n);
    for (let t = 0; t < block; t++) {
      const at = t * (n + 1);
      for (let i = 0; i < n; i++) x[t * n + i] = raw[at + i] + 0.4 * raw[at + ((i + 1) % n)] + 0.1 * raw[at + n];
    }
    addSecondMoment(x, block, n, H);
  }
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      const value = (2 / tokens) * H[i * n + j];
      H[i * n + j] = value;
      H[j * n + i] = value;
    }
  }
  return H;
}

const weights = normals(rows * n, 2);
const H = hessian();
const levels = Float32Array.from(gainLevels('lloyd', D, n, 2 ** gainBits));
const code = { groupLength: D, pulses: K, superGroup: 1, gainBits };
const plans = new Map();

/** Seconds of the clock and of the processor: they differ where other work runs beside. */
const seconds = (work) => {
  const from = process.hrtime.bigint();
  const used = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(used);
  return { clock: Number(process.hrtime.bigint() - from) / 1e9, processor: (user + system) / 1e6 };
};

const losses = new Map();
const encode = (name, options) => (threads) => {
  const { statistics } = quantizeWithHessian(weights, rows, n, plans.get(threads), code, levels, {
    threads,
    ...options,
  });
  losses.set(name, statistics.steps[statistics.steps.length - 1].loss / statistics.signal);
};

const ways = {
  'factor of the Hessian': (threads) => {
    plans.set(threads, factorHessian(H.slice(), n, { tensor: 'bench', tokens: 2 * n, threads }));
  },
  'couplings of the blocks': (threads) => plans.set(threads, planFeedback(plans.get(threads), D, threads)),
  'nearest (no Hessian)': (threads) => encodeRows(weights, rows, n, code, levels, { threads }),
  feedback: encode('feedback', { metricSearch: false, rowRefit: false }),
  'feedback, search in metric, row refit': encode('feedback, search in metric, row refit', {}),
  [`the same and ${passes} passes`]: encode(`the same and ${passes} passes`, { passes }),
  'one product of this size (f32)': (threads) => {
    const product = new Float32Array(rows * n);
    multiply(weights, Float32Array.from(H), product, { m: rows, n, k: n }, { threads });
  },
};

const times = new Map();
for (let repeat = 0; repeat < repeats; repeat++) {
  for (const threads of new Set([1, most])) {
    for (const [name, way] of Object.entries(ways)) {
      const key = `${name}|${threads}`;
      times.set(key, [...(times.get(key) ?? []), seconds(() => way(threads))]);
    }
  }
}

const results = [...times].map(([key, list]) => {
  const [name, threads] = key.split('|');
  const sorted = list.map(({ clock }) => clock).sort((a, b) => a - b);
  const processor = list.map((time) => time.processor).sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return {
    name,
    threads: Number(threads),
    median_s: sorted[middle],
    least_s: sorted[0],
    greatest_s: sorted[sorted.length - 1],
    processor_s: processor[middle],
    million_weights_per_s: (rows * n) / 1e6 / sorted[middle],
    ...(losses.has(name) && { relative_loss: losses.get(name) }),
  };
});
console.log(`[${rows} x ${n}], D ${D}, K ${K}, ${gainBits} gain bits; ${repeats} repeats`);
for (const r of results) {
  const loss = r.relative_loss === undefined ? '' : `  loss ${r.relative_loss.toExponential(3)}`;
  console.log(
    `${r.name.padEnd(42)} ${r.threads} threads  ${r.median_s.toFixed(2)} s (${r.least_s.toFixed(2)}-${r.greatest_s.toFixed(2)}), processor ${r.processor_s.toFixed(2)} s  ` +
      `${r.million_weights_per_s.toFixed(1)} Mw/s${loss}`,
  );
}
const peak = process.resourceUsage().maxRSS / 1024;
console.log(`peak memory ${peak.toFixed(0)} MiB`);
if (given.json)
  writeFileSync(
    given.json,
    `${JSON.stringify({ rows, columns: n, D, K, gainBits, results, peak_mib: peak }, null, 2)}\n`,
  );
