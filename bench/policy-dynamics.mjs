// Claim: `analyze-policy dynamics` on a dump of 10 million tokens is at least 5 times as fast as NumPy taking the same figures,
// within 1 GB.
//
//   npm run build && node bench/policy-dynamics.mjs --python PYTHON [--tokens 1e7] [--steps 20] [--threads 2] [--repeats 5]
//                    [--dump FILE.npz] [--json FILE]
//
// PYTHON needs numpy, pandas and polars. Every repeat takes each way once, in turn: ours on an open dump (its index in memory, its
// columns read by range from the file) and NumPy's on arrays in memory, both from the file, pandas and Polars on arrays. Ours does more (standard errors by response and all columns of the table); figures that
// both have are compared. Peak memory is that of the real command in a process of its own.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const source = new URL('../dist/src/', import.meta.url);
const { configureKernels } = await import(new URL('kernels/native.js', source));
const { openRollouts } = await import(new URL('policy/rollouts/open-rollouts.js', source));
const { measureDynamics } = await import(new URL('policy/dynamics/analyse-dynamics.js', source));
const { dynamicsBody } = await import(new URL('policy/dynamics/dynamics-report.js', source));
const { USUAL_ALARMS } = await import(new URL('policy/dynamics/entropy-alarms.js', source));

const { values: options } = parseArgs({
  options: {
    python: { type: 'string', default: 'python3' },
    tokens: { type: 'string', default: '1e7' },
    steps: { type: 'string', default: '20' },
    threads: { type: 'string', default: '2' },
    repeats: { type: 'string', default: '5' },
    dump: { type: 'string' },
    json: { type: 'string' },
  },
});
const threads = Number(options.threads);
const script = fileURLToPath(new URL('policy-dynamics.py', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'policy-dynamics-'));
const dump = options.dump ?? join(folder, 'dump.npz');
if (!existsSync(dump)) {
  const made = spawnSync(options.python, [script, 'make', dump, options.tokens, options.steps], { encoding: 'utf8' });
  if (made.status !== 0) throw new Error(made.stderr);
}
configureKernels({ threads });
const request = {
  paths: [dump],
  map: {},
  exactLimit: 2e7,
  advantage: 'grpo',
  markerChoice: 'last',
  temperature: 1,
  promptFormat: 'auto',
  context: 8192,
  threads,
  maxMemory: 8 * 2 ** 30,
  workDirectory: folder,
};
const settings = {
  clip: { low: 0.2, high: 0.2 },
  lengthLimit: null,
  table: null,
  frequent: 30,
  exactLimit: 2e7,
  threads,
};
const measure = (rollouts) => dynamicsBody(measureDynamics(rollouts, settings), USUAL_ALARMS);

function startPython() {
  const child = spawn(options.python, [script, 'serve', dump], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async ask(way) {
      child.stdin.write(`${way}\n`);
      const { value, done } = await lines.next();
      if (done) throw new Error('the Python process ended early');
      return JSON.parse(value);
    },
    stop: () => child.stdin.end(),
  };
}

/** Largest difference of the figures that both have, relative to the larger of the value and 1. */
function disagreement(ours, theirs) {
  let worst = { difference: 0 };
  let compared = 0;
  for (const [t, row] of theirs.entries()) {
    for (const [name, value] of Object.entries(row)) {
      const own = ours[t][name];
      if (typeof own !== 'number') throw new Error(`ours has no ${name} at step ${row.step}`);
      const difference = Math.abs(own - value) / Math.max(1, Math.abs(value));
      compared++;
      if (difference > worst.difference) worst = { difference, name, step: row.step, ours: own, theirs: value };
    }
  }
  return { compared, ...worst };
}

const clock = async (work) => {
  const start = process.hrtime.bigint();
  const result = await work();
  return { result, seconds: Number(process.hrtime.bigint() - start) / 1e9 };
};

const peer = startPython();
const rollouts = await openRollouts(request);
const times = {};
const note = (way, seconds) => {
  times[way] ??= [];
  times[way].push(seconds);
};
let agreement;
for (let repeat = -1; repeat < Number(options.repeats); repeat++) {
  const own = await clock(() => measure(rollouts));
  const numpy = await peer.ask('numpy');
  const fromFile = await clock(async () => {
    const opened = await openRollouts(request);
    try {
      return measure(opened);
    } finally {
      opened.close();
    }
  });
  const numpyFile = await peer.ask('numpy-file');
  const pandas = await peer.ask('pandas');
  const polars = await peer.ask('polars');
  if (repeat < 0) {
    agreement = {
      numpy: disagreement(own.result.by_step, numpy.rows),
      pandas: disagreement(own.result.by_step, pandas.rows),
      polars: disagreement(own.result.by_step, polars.rows),
    };
    continue;
  }
  note('ours, open', own.seconds);
  note('NumPy, in memory', numpy.seconds);
  note('ours, from the file', fromFile.seconds);
  note('NumPy, from the file', numpyFile.seconds);
  note('pandas, in memory', pandas.seconds);
  note('polars, in memory', polars.seconds);
}
peer.stop();
rollouts.close();

const timings = join(folder, 'timings.json');
const binary = fileURLToPath(new URL('../bin/surprisal.js', import.meta.url));
const argv = [binary, 'analyze-policy', 'dynamics', '--data', dump, '--out', join(folder, 'steps.csv')];
const ran = spawnSync(process.execPath, [...argv, '--threads', String(threads), '--timings', timings, '--quiet'], {
  encoding: 'utf8',
});
if (ran.status !== 0) throw new Error(ran.stderr);
const command = JSON.parse(readFileSync(timings, 'utf8'));
rmSync(folder, { recursive: true });

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const medians = Object.fromEntries(Object.entries(times).map(([way, seconds]) => [way, median(seconds)]));
for (const [way, seconds] of Object.entries(times)) {
  const [least, most] = [Math.min(...seconds), Math.max(...seconds)];
  console.log(`${way.padEnd(24)} ${medians[way].toFixed(3)} s  (${least.toFixed(3)} to ${most.toFixed(3)})`);
}
const ratio = medians['NumPy, in memory'] / medians['ours, open'];
const fileRatio = medians['NumPy, from the file'] / medians['ours, from the file'];
console.log(`NumPy / ours: ${ratio.toFixed(1)} in memory, ${fileRatio.toFixed(1)} from the file (aim 5)`);
console.log(`pandas / ours: ${(medians['pandas, in memory'] / medians['ours, open']).toFixed(1)}`);
console.log(`polars / ours: ${(medians['polars, in memory'] / medians['ours, open']).toFixed(1)}`);
console.log(`figures compared with Polars: ${JSON.stringify(agreement.polars)}`);
console.log(`figures compared with NumPy: ${JSON.stringify(agreement.numpy)}`);
console.log(`figures compared with pandas: ${JSON.stringify(agreement.pandas)}`);
console.log(`the command: ${JSON.stringify(command)}`);
if (options.json) writeFileSync(options.json, JSON.stringify({ options, times, medians, agreement, command }, null, 2));
