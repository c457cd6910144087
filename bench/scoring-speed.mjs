// Claim (b): scoring is at least 1.2 times as fast as transformers on the same cores, and the entropy of every token
// costs less than a twentieth of the forward pass.
//
//   npm run build && node bench/scoring-speed.mjs --model DIR|FILE.gguf [--context 512] [--windows 4] [--threads 2]
//        [--repeats 7] [--transformers PYTHON] [--transformers-model DIR] [--llama PYTHON --gguf FILE] [--json FILE]
//
// All sides score the same random token ids, windows of one length, logits of every position. Every repeat takes each
// side once, in turn, so that all see the same noise. Ours is timed thrice: with all measures, with entropy and
// surprisal alone, and with the logits made and thrown away. Medians, with the least and the greatest.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const models = new URL('../dist/src/models/', import.meta.url);
const { createEngine, gatherRows } = await import(new URL('engine.js', models));
const { openModelFiles } = await import(new URL('model-files.js', models));

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    context: { type: 'string', default: '512' },
    windows: { type: 'string', default: '4' },
    threads: { type: 'string', default: '2' },
    repeats: { type: 'string', default: '7' },
    transformers: { type: 'string' },
    'transformers-model': { type: 'string' },
    llama: { type: 'string' },
    gguf: { type: 'string', multiple: true },
    json: { type: 'string' },
  },
});
const context = Number(options.context);
const count = Number(options.windows);
const threads = Number(options.threads);
const repeats = Number(options.repeats);
const tokens = context * count;

const engine = await createEngine(openModelFiles(options.model), {
  threads,
  maxMemoryBytes: 16e9,
  device: 'cpu',
  precision: 'f32',
  context,
});
const { hiddenSize, vocabularySize } = engine.model;
let state = 12345;
const windows = Array.from({ length: count }, () =>
  Int32Array.from({ length: context }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * vocabularySize);
  }),
);
const targets = Int32Array.from(windows.flatMap((window) => [...window.subarray(1), -1]));
const wanted = windows.map(() => [0, context]);
const streams = new Float32Array(tokens * hiddenSize);
const buffer = new Float32Array(tokens * hiddenSize);
let check = { surprisal: 0, entropy: 0 };

/** Seconds of one pass over all windows. */
async function ours(kind) {
  const start = performance.now();
  const rows = gatherRows(await engine.forward({ windows, streams }), hiddenSize, wanted, buffer);
  await engine.normalize(rows);
  if (kind === 'logits alone') {
    await engine.visitLogits([rows], () => undefined);
  } else {
    const request = kind === 'all measures' ? { topK: 10, renyiOrders: [0.5, 2] } : { topK: 0, renyiOrders: [] };
    const measures = kind === 'all measures' ? request : { ...request, measures: 'entropy' };
    const statistics = await engine.statistics(rows, targets, measures);
    const sum = (values) => values.reduce((total, x) => (Number.isNaN(x) ? total : total + x), 0);
    check = { surprisal: sum(statistics.surprisalNats), entropy: sum(statistics.entropyNats) };
  }
  return (performance.now() - start) / 1000;
}

const work = mkdtempSync(join(tmpdir(), 'surprisal-scoring-'));
const idsFile = join(work, 'ids.json');
writeFileSync(idsFile, JSON.stringify(windows.map((window) => [...window])));
const script = fileURLToPath(new URL('scoring-peers.py', import.meta.url));

async function startPeer(name, python, kind, path) {
  const child = spawn(python, [script, kind, path, String(threads), idsFile], { stdio: ['pipe', 'pipe', 'ignore'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ready = await lines.next();
  if (ready.value !== 'ready')
    throw new Error(`${name} did not start: run ${python} ${script} ${kind} ${path} by hand`);
  return {
    name,
    async run() {
      child.stdin.write('\n');
      return JSON.parse((await lines.next()).value);
    },
    close: () => child.stdin.end(),
  };
}

const peers = [];
if (options.transformers) {
  const path = options['transformers-model'] ?? options.model;
  peers.push(await startPeer('transformers f32', options.transformers, 'transformers', path));
}
for (const file of options.llama ? (options.gguf ?? []) : []) {
  peers.push(await startPeer(`llama.cpp ${file.split('/').at(-1)}`, options.llama, 'llama.cpp', file));
}

const rest = () => new Promise((resolve) => setTimeout(resolve, 400));
const KINDS = ['all measures', 'entropy and surprisal', 'logits alone'];
const times = new Map();
const put = (name, seconds) => times.set(name, [...(times.get(name) ?? []), seconds]);
for (let repeat = -1; repeat < repeats; repeat++) {
  // In turning order, and after a rest: threads of the side before spin for a while when their work is done.
  for (let turn = 0; turn < KINDS.length; turn++) {
    const kind = KINDS[(turn + repeat + KINDS.length) % KINDS.length];
    await rest();
    const seconds = await ours(kind);
    if (repeat >= 0) put(`surprisal, ${kind}`, seconds);
  }
  for (const peer of peers) {
    await rest();
    const seconds = await peer.run();
    for (const measure of ['surprisal', 'entropy']) {
      const difference = Math.abs(seconds[measure] - check[measure]) / Math.abs(check[measure]);
      peer.difference = Math.max(peer.difference ?? 0, difference);
    }
    if (repeat < 0) continue;
    put(`${peer.name}, forward`, seconds.forward);
    put(`${peer.name}, with entropy and surprisal`, seconds.forward + seconds.statistics);
  }
}
for (const peer of peers) peer.close();
await engine.close();
rmSync(work, { recursive: true });

const results = {};
console.log(`${options.model}: ${count} windows of ${context}, ${threads} threads, ${repeats} repeats`);
for (const [name, seconds] of times) {
  const sorted = [...seconds].sort((a, b) => a - b);
  const median = sorted[sorted.length >> 1];
  results[name] = {
    medianSeconds: median,
    least: sorted[0],
    greatest: sorted.at(-1),
    tokensPerSecond: tokens / median,
  };
  const spread = `${(tokens / sorted.at(-1)).toFixed(0)} to ${(tokens / sorted[0]).toFixed(0)}`;
  console.log(`${name.padEnd(52)} ${(tokens / median).toFixed(0).padStart(6)} tokens/s   (${spread})`);
}
/** Median of the ratios within a repeat: both sides of one ratio saw the same minute. */
const ratio = (above, below) => {
  const ratios = times.get(above).map((seconds, i) => seconds / times.get(below)[i]);
  return ratios.sort((a, b) => a - b)[ratios.length >> 1];
};
const summary = {
  entropyShareOfForward: ratio('surprisal, entropy and surprisal', 'surprisal, logits alone') - 1,
  allMeasuresShareOfForward: ratio('surprisal, all measures', 'surprisal, logits alone') - 1,
};
for (const { name, difference } of peers) {
  summary[`speedup over ${name}, with entropy and surprisal`] = ratio(
    `${name}, with entropy and surprisal`,
    'surprisal, all measures',
  );
  summary[`speedup over ${name}, forward alone`] = ratio(`${name}, forward`, 'surprisal, logits alone');
  summary[`largest relative difference from ${name}`] = difference;
}
console.log(summary);
if (options.json) writeFileSync(options.json, `${JSON.stringify({ options, results, summary }, null, 2)}\n`);
