// Lines of JSON with lists of numbers into typed arrays: the native scanner, JSON.parse, and Python's json, orjson and polars
// (what of them is installed) into NumPy arrays. Also a whole dump into blocks by openRollouts.
//   npm run build && node bench/json-columns.mjs [--tokens 2e6] [--threads 2] [--python PATH]
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { readJsonLines } from '../dist/src/kernels/json-columns.js';
import { configureKernels } from '../dist/src/kernels/native.js';
import { openRollouts } from '../dist/src/policy/rollouts/open-rollouts.js';
import { rolloutLine } from '../dist/src/policy/rollouts/rollout-line.js';
import { createRandom } from '../dist/src/random.js';

const { values } = parseArgs({
  options: {
    tokens: { type: 'string', default: '2e6' },
    threads: { type: 'string', default: '2' },
    repeats: { type: 'string', default: '5' },
    python: { type: 'string', default: process.env.PYTHON ?? 'python3' },
  },
});
const [tokens, threads, repeats] = ['tokens', 'threads', 'repeats'].map((key) => Number(values[key]));
const folder = mkdtempSync(join(tmpdir(), 'surprisal-json-'));
const path = join(folder, 'dump.jsonl');

function writeDump() {
  const random = createRandom(1);
  const file = openSync(path, 'w');
  for (let done = 0, r = 0; done < tokens; r++) {
    const length = 1000 + Math.floor(2000 * random.uniform());
    const list = (scale) => Float64Array.from({ length }, () => scale * Math.log(random.uniform()));
    const record = {
      step: Math.floor(r / 64),
      promptId: `p${Math.floor(r / 8)}`,
      tokens: Int32Array.from({ length }, () => Math.floor(150000 * random.uniform())),
      logProb: list(0.5),
      oldLogProb: list(0.5),
      entropy: list(-0.5),
      reward: r % 2,
    };
    writeSync(file, rolloutLine(record, r));
    done += length;
  }
  closeSync(file);
}

const median = (list) => list.sort((a, b) => a - b)[list.length >> 1];
async function seconds(run) {
  await run();
  const times = [];
  for (let i = 0; i < repeats; i++) {
    const start = performance.now();
    await run();
    times.push((performance.now() - start) / 1000);
  }
  return median(times);
}

/** In blocks of whole lines, as a dump is read. */
function parse(bytes, native, count) {
  configureKernels({ native });
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.lastIndexOf(10, Math.min(bytes.length, at + 8e6) - 1) + 1;
    for (const _ of readJsonLines(bytes.subarray(at, end), () => true, count));
    at = end;
  }
  configureKernels({ native: true });
}

const request = {
  paths: [path],
  map: {},
  exactLimit: 2e7,
  advantage: 'dump',
  markerChoice: 'last',
  temperature: 1,
  promptFormat: 'auto',
  context: 2048,
  threads,
  maxMemory: 8e9,
  workDirectory: folder,
};

try {
  writeDump();
  const bytes = readFileSync(path);
  const megabytes = bytes.length / 1e6;
  const rows = [
    [`scanner, ${threads} threads`, await seconds(() => parse(bytes, true, threads))],
    ['scanner, 1 thread', await seconds(() => parse(bytes, true, 1))],
    ['JSON.parse', await seconds(() => parse(bytes, false, 1))],
    [`openRollouts, ${threads} threads`, await seconds(async () => (await openRollouts(request)).close())],
  ];
  const script = fileURLToPath(new URL('json-columns.py', import.meta.url));
  const peers = JSON.parse(execFileSync(values.python, [script, path, String(repeats)], { encoding: 'utf8' }));
  rows.push(...Object.entries(peers));
  process.stdout.write(`${tokens} tokens, ${megabytes.toFixed(0)} MB\n`);
  for (const [name, time] of rows)
    process.stdout.write(`${name.padEnd(24)} ${time.toFixed(3)} s  ${(megabytes / time).toFixed(0)} MB/s\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
