// Claims: one step of sampling at V = 151,936 costs far less than transformers' processors on the same row, and a million
// rows run in bounded memory.
//
//   npm run build && node bench/samplers.mjs [--python PYTHON] [--vocabulary 151936] [--repeats 31] [--threads 2]
//                    [--rows 1000000] [--row-vocabulary 1024] [--json FILE]
//
// Both sides in turn on the same row, medians of the repeats, transformers with the same threads. A row has the shape of
// a language model's: a bulk of deviation 2, and 200 tokens that fall like a power law from 16 above it. PYTHON is an
// interpreter that has torch and transformers; without it our side alone is timed. --rows 0 leaves the long run out.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const source = new URL('../dist/src/', import.meta.url);
const { createRandom } = await import(new URL('random.js', source));
const { configureKernels, kernelStatus, peakResidentBytes } = await import(new URL('kernels/native.js', source));
const { filterTokens } = await import(new URL('kernels/token-filter.js', source));
const { createSequenceSampler, planFilters } = await import(new URL('decoding/sampler.js', source));
const { parseSamplingPlan } = await import(new URL('decoding/sampler-text.js', source));

const { values: options } = parseArgs({
  options: {
    python: { type: 'string' },
    vocabulary: { type: 'string', default: '151936' },
    repeats: { type: 'string', default: '31' },
    threads: { type: 'string', default: '2' },
    rows: { type: 'string', default: '1000000' },
    'row-vocabulary': { type: 'string', default: '1024' },
    json: { type: 'string' },
  },
});
const vocabulary = Number(options.vocabulary);
const repeats = Number(options.repeats);
const threads = Number(options.threads);
configureKernels({ threads });

/** [ours, theirs; none where transformers has no such processor] */
const PIPELINES = [
  ['temperature=1.5', 'temperature=1.5'],
  ['top-k=50', 'top_k=50'],
  ['temperature=1.5,top-p=0.9', 'temperature=1.5,top_p=0.9'],
  ['temperature=1.5,min-p=0.1', 'temperature=1.5,min_p=0.1'],
  ['typical=0.9', 'typical=0.9'],
  ['epsilon=0.0003', 'epsilon=0.0003'],
  ['eta=0.0003', 'eta=0.0003'],
  ['temperature=1.5,top-h=0.4:transformers', 'temperature=1.5,top_h=0.4'],
  ['temperature=1.5,top-h=0.4', undefined],
  ['top-n-sigma=1', undefined],
  ['mirostat-v1', undefined],
  ['mirostat-v2', undefined],
];

const random = createRandom(7);
const row = Float32Array.from({ length: vocabulary }, () => 2 * random.normal());
for (let k = 0; k < Math.min(200, vocabulary); k++) row[random.integer(vocabulary)] = 16 - 2 * Math.log(k + 1);

async function startPeer() {
  if (options.python === undefined) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'samplers-'));
  const file = join(folder, 'row.bin');
  writeFileSync(file, new Uint8Array(row.buffer));
  const script = fileURLToPath(new URL('samplers.py', import.meta.url));
  const child = spawn(options.python, [script, file, String(threads)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const version = (await lines.next()).value;
  return {
    version,
    time: async (text) => {
      child.stdin.write(`${text}\n`);
      return Number((await lines.next()).value);
    },
    stop: () => {
      child.stdin.end();
      rmSync(folder, { recursive: true });
    },
  };
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const peer = await startPeer();
console.log(`${kernelStatus().simd}, V = ${vocabulary}, medians of ${repeats}, ms a step`);
const steps = [];
for (const [ours, theirs] of PIPELINES) {
  const sampler = createSequenceSampler(parseSamplingPlan(ours), { seed: 1, sequence: 0 });
  const times = { ours: [], theirs: [] };
  let keptCount = 0;
  for (let i = 0; i < repeats; i++) {
    const start = process.hrtime.bigint();
    keptCount = sampler.next(row).keptCount;
    times.ours.push(Number(process.hrtime.bigint() - start) / 1e6);
    if (peer !== undefined && theirs !== undefined) times.theirs.push(1000 * (await peer.time(theirs)));
  }
  const step = { pipeline: ours, keptCount, milliseconds: median(times.ours) };
  if (times.theirs.length > 0) step.transformersMilliseconds = median(times.theirs);
  steps.push(step);
  const other = step.transformersMilliseconds;
  console.log(
    `${ours.padEnd(42)} kept ${String(keptCount).padStart(6)}  ${step.milliseconds.toFixed(3).padStart(7)}` +
      (other === undefined
        ? ''
        : `  transformers ${other.toFixed(3).padStart(8)}  x ${(other / step.milliseconds).toFixed(1)}`),
  );
}
peer?.stop();

/** Rows come in blocks, as from a dump; nothing of a block is kept. */
function manyRows(rows, width) {
  const together = 4096;
  const block = Float32Array.from({ length: together * width }, () => 2.5 * random.normal());
  const pipelines = [planFilters(parseSamplingPlan('temperature=1.5,top-h=0.4'))];
  const before = peakResidentBytes();
  const start = process.hrtime.bigint();
  let kept = 0;
  for (let first = 0; first < rows; first += together) {
    const count = Math.min(together, rows - first);
    const { figures } = filterTokens({ logits: block, rows: count, vocabulary: width, pipelines, threads });
    for (const n of figures.keptCount) kept += n;
  }
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  return { rows, vocabulary: width, seconds, keptMean: kept / rows, grownBytes: peakResidentBytes() - before };
}

const rows = Number(options.rows);
const long = rows > 0 ? manyRows(rows, Number(options['row-vocabulary'])) : undefined;
if (long !== undefined) {
  console.log(
    `${long.rows} rows of ${long.vocabulary}, temperature 1.5, top-H: ${long.seconds.toFixed(1)} s, ` +
      `${Math.round(long.rows / long.seconds)} rows/s, memory grew by ${(long.grownBytes / 2 ** 20).toFixed(0)} MiB`,
  );
}
if (options.json) writeFileSync(options.json, `${JSON.stringify({ vocabulary, threads, steps, long }, null, 2)}\n`);
