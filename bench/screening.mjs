// Screening of 100,000 columns: time and peak memory of the real command, from an array and from a table.
//
//   npm run build && node bench/screening.mjs [--columns N] [--rows N] [--work DIR] [--python PYTHON] [--repeats N]
//
// The outcome is 2 x_1 + 3 |x_2| + noise. Cases: an .npy of float32 ranked by kernel densities and by bins; the same numbers
// as CSV; the CSV under a limit that does not hold the matrix, so that it goes to a temporary file. With --python, which needs
// numpy, scipy and KDEpy, the kernel estimate of some columns is timed there too. Seconds are medians with the least and the
// greatest; memory is the peak resident set of the whole process.
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createNpyWriter } from '../dist/src/formats/npy.js';

const { values: options } = parseArgs({
  options: {
    columns: { type: 'string', default: '100000' },
    rows: { type: 'string', default: '500' },
    repeats: { type: 'string', default: '3' },
    threads: { type: 'string', default: '2' },
    work: { type: 'string' },
    python: { type: 'string' },
  },
});
const columns = Number(options.columns);
const rows = Number(options.rows);
const work = options.work ?? mkdtempSync(join(tmpdir(), 'surprisal-screening-'));
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const WATCH =
  'data:text/javascript,import fs from "node:fs";process.on("exit",()=>{fs.writeSync(3,process.resourceUsage().maxRSS+"\\n")})';

let state = 12345;
const uniform = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return (state + 0.5) / 2 ** 32;
};
/** Twelve uniform numbers are normal enough here. */
const normal = () => {
  let sum = -6;
  for (let k = 0; k < 12; k++) sum += uniform();
  return sum;
};

const matrix = join(work, `x-${rows}-${columns}.npy`);
const outcome = join(work, `y-${rows}-${columns}.npy`);
const table = join(work, `x-${rows}-${columns}.csv`);

function make() {
  if (existsSync(table)) return;
  const npy = createNpyWriter(matrix, { dtype: 'F32', shape: [rows, columns] }, { force: true });
  const y = createNpyWriter(outcome, { dtype: 'F64', shape: [rows] }, { force: true });
  const csv = openSync(table, 'w');
  writeSync(csv, `${Array.from({ length: columns }, (_, j) => `x${j + 1}`).join(',')},y\n`);
  const line = new Float32Array(columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) line[j] = normal();
    const value = 2 * line[0] + 3 * Math.abs(line[1]) + normal();
    npy.write(new Uint8Array(line.buffer));
    y.write(new Uint8Array(Float64Array.of(value).buffer));
    writeSync(csv, `${Array.from(line, (entry) => String(Math.fround(entry))).join(',')},${value}\n`);
  }
  closeSync(csv);
  npy.commit();
  y.commit();
}

function run(more) {
  const report = join(work, 'report.json');
  const argv = ['--import', WATCH, here('../bin/surprisal.js'), 'analyze-entropy', 'screen', '--quiet', '--force'];
  argv.push('--permutations', '0', '--top', '10', '--threads', options.threads, '--report', report, ...more);
  const started = performance.now();
  const ended = spawnSync(process.execPath, argv, { stdio: ['ignore', 'pipe', 'pipe', 'pipe'], encoding: 'utf8' });
  if (ended.status !== 0) throw new Error(ended.stderr);
  const [first, second] = JSON.parse(readFileSync(report, 'utf8')).ranking;
  if (first.column.endsWith('1') === false && first.index !== 0) throw new Error(`ranked ${first.column} first`);
  return {
    seconds: (performance.now() - started) / 1000,
    peakMib: Math.max(...String(ended.output[3]).trim().split('\n').map(Number)) / 1024,
    found: [first.index, second.index].join(' '),
  };
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

make();
const array = ['--data', matrix, '--labels', outcome];
const text = ['--data', table, '--outcome', 'y'];
const CASES = [
  ['array, kernel', [...array, '--estimators', 'kernel']],
  ['array, bins', [...array, '--estimators', 'binned']],
  ['table, kernel', [...text, '--estimators', 'kernel']],
  ['table, bins', [...text, '--estimators', 'binned']],
  ['table, bins, on file', [...text, '--estimators', 'binned', '--max-memory', '512MiB']],
];
console.log(`${rows} x ${columns}; the table has ${Math.round(statSync(table).size / 2 ** 20)} MiB`);
for (const [name, argv] of CASES) {
  const runs = Array.from({ length: Number(options.repeats) }, () => run(argv));
  const seconds = runs.map((r) => r.seconds);
  const range = `${Math.min(...seconds).toFixed(1)} to ${Math.max(...seconds).toFixed(1)}`;
  const perColumn = ((1e6 * median(seconds)) / columns).toFixed(0);
  const peak = Math.max(...runs.map((r) => r.peakMib)).toFixed(0);
  console.log(
    `${name.padEnd(22)}${median(seconds).toFixed(1).padStart(7)} s (${range}), ${perColumn} us a column, peak ${peak} MiB, first two: ${runs[0].found}`,
  );
}
if (options.python !== undefined) {
  const script = `
import sys, time, warnings, numpy as np
warnings.simplefilter('ignore')
from KDEpy import FFTKDE
from KDEpy.bw_selection import silvermans_rule
X = np.load(sys.argv[1], mmap_mode='r')[:, :40].astype(float); y = np.load(sys.argv[2])
def scaled(x):
    q = np.percentile(x, [25, 50, 75]); x = (x - q[1]) / (q[2] - q[0])
    return x / silvermans_rule(x[:, None])
def mi(x, y):
    g, p = FFTKDE(kernel='epa', bw=1).fit(np.c_[x, y]).evaluate((300, 300))
    p = np.maximum(p.reshape(300, 300), 0); p /= p.sum(); a = p.sum(1, keepdims=True); b = p.sum(0, keepdims=True)
    m = p > 0
    return (p * np.log(np.where(m, p, 1) / np.where(m, a * b, 1))).sum()
s = scaled(y); t = time.perf_counter(); [mi(scaled(X[:, j]), s) for j in range(40)]
print((time.perf_counter() - t) / 40 * 1e6)
`;
  const path = join(work, 'peer.py');
  writeFileSync(path, script);
  const ended = spawnSync(options.python, [path, matrix, outcome], { encoding: 'utf8' });
  if (ended.status !== 0) throw new Error(ended.stderr);
  console.log(`KDEpy, kernel: ${Number(ended.stdout).toFixed(0)} us a column`);
}
if (options.work === undefined) rmSync(work, { recursive: true });
