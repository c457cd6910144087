// Claim (c): the process never exceeds --max-memory, and the plan's estimate of the peak is honest.
//
//   npm run build && node bench/peak-memory.mjs [--work DIR] [--cases NAME,...] [--json FILE]
//
// Every case makes a model of a shape (bench/make-model.mjs), scores random token ids under a limit with the real
// command, and reads the peak resident memory of the whole process, weights included, as the kernel counted it. One
// run asks for less than the least, to show the refusal.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: { work: { type: 'string' }, cases: { type: 'string' }, json: { type: 'string' } },
});
const work = options.work ?? mkdtempSync(join(tmpdir(), 'surprisal-memory-'));
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const MIB = 1 << 20;

/** rows windows of context tokens; limit in MiB. */
const CASES = {
  'qwen-512MB': { shape: 'qwen2-0.5b', layers: 2, vocab: 151936, context: 1024, rows: 8, limit: 488 },
  'qwen-least': { shape: 'qwen2-0.5b', layers: 2, vocab: 151936, context: 1024, rows: 4, limit: 'least' },
  'qwen-resident': { shape: 'qwen2-0.5b', layers: 2, vocab: 151936, context: 1024, rows: 8, limit: 2048 },
  'smollm-streamed': { shape: 'smollm-135m', layers: 6, vocab: 49152, context: 512, rows: 40, limit: 320 },
  'smollm-resident': { shape: 'smollm-135m', layers: 6, vocab: 49152, context: 512, rows: 40, limit: 1024 },
  'narrow-many-rows': { shape: 'long-context', layers: 2, vocab: 1000, context: 512, rows: 256, limit: 320 },
  '7b-layer': { shape: 'llama-7b', layers: 1, vocab: 32000, context: 1024, rows: 2, limit: 1700 },
  'long-context': { shape: 'long-context', layers: 2, vocab: 1000, context: 16384, rows: 1, limit: 512 },
};

function modelOf({ shape, layers, vocab, context }) {
  const path = join(work, `${shape}-${layers}-${vocab}-${context}`);
  if (!existsSync(join(path, 'config.json'))) {
    const args = ['--shape', shape, '--layers', String(layers), '--vocab', String(vocab), '--out', path];
    const made = spawnSync(process.execPath, [
      here('make-model.mjs'),
      ...args,
      '--positions',
      String(Math.max(4096, context)),
    ]);
    if (made.status !== 0) throw new Error(String(made.stderr));
  }
  return path;
}

/** Random ids [rows, context] as an int32 .npy file. */
function writeIds(path, rows, context, vocab) {
  const text = `{'descr': '<i4', 'fortran_order': False, 'shape': (${rows}, ${context}), }`;
  const header = Buffer.from(`${text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11)}\n`);
  const start = Buffer.alloc(10);
  start.write('\x93NUMPY\x01\x00', 0, 'latin1');
  start.writeUInt16LE(header.length, 8);
  let state = 1;
  const ids = Int32Array.from({ length: rows * context }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * vocab);
  });
  writeFileSync(path, Buffer.concat([start, header, Buffer.from(ids.buffer)]));
}

/** Writes the peak resident set to descriptor 3 when the process (or its worker, which sees the same) ends. */
const WATCH =
  'data:text/javascript,import fs from "node:fs";process.on("exit",()=>{fs.writeSync(3,process.resourceUsage().maxRSS+"\\n")})';

function score(model, ids, context, limitMib, more = []) {
  const args = ['--import', WATCH, here('../bin/surprisal.js'), 'analyze-entropy', 'tokens', '--model', model];
  args.push('--data', ids, '--context', String(context), '--prefix-token', '0', '--threads', '2', '--force');
  args.push('--max-memory', `${limitMib}MiB`, '--out', join(work, 'tokens.csv'), ...more);
  const started = performance.now();
  const run = spawnSync(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe', 'pipe'], encoding: 'utf8' });
  const peaks = String(run.output[3]).trim().split('\n').map(Number);
  return {
    status: run.status,
    text: `${run.stdout}${run.stderr}`,
    peakMib: Math.max(...peaks) / 1024,
    seconds: (performance.now() - started) / 1000,
  };
}

const results = [];
const wanted = options.cases?.split(',') ?? Object.keys(CASES);
for (const name of wanted) {
  const { rows, context, vocab, limit, ...shape } = CASES[name];
  const model = modelOf({ ...shape, vocab, context });
  const ids = join(work, 'ids.npy');
  writeIds(ids, rows, context, vocab);
  const refusal = score(model, ids, context, 1, ['--dry-run']);
  const least = Number(/at least (\d+)MiB/.exec(refusal.text)?.[1]);
  const limitMib = limit === 'least' ? least : limit;
  const planned = score(model, ids, context, limitMib, ['--dry-run']);
  const estimateMib = Number(/peak memory, MiB\s+(\d+)/.exec(planned.text)?.[1]);
  const residence = /weights\s+(.+)/.exec(planned.text)?.[1] ?? '';
  const run = score(model, ids, context, limitMib);
  if (run.status !== 0) throw new Error(`${name}: ${planned.text}\n${run.text}`);
  const holds = run.peakMib <= limitMib;
  results.push({
    name,
    rows,
    context,
    limitMib,
    leastMib: least,
    estimateMib,
    peakMib: run.peakMib,
    residence,
    holds,
    seconds: run.seconds,
    refusal: refusal.text.trim(),
  });
  const cells = [
    name.padEnd(17),
    `limit ${limitMib}`,
    `least ${least}`,
    `estimate ${estimateMib}`,
    `peak ${run.peakMib.toFixed(0)} MiB`,
  ];
  console.log(`${cells.join('  ')}  ${residence}  ${run.seconds.toFixed(1)} s  ${holds ? 'holds' : 'EXCEEDED'}`);
}
console.log(`\nrefusal: ${results[0]?.refusal}`);
if (options.json) writeFileSync(options.json, `${JSON.stringify({ mib: MIB, results }, null, 2)}\n`);
if (!options.work) rmSync(work, { recursive: true });
process.exit(results.every((result) => result.holds) ? 0 : 1);
