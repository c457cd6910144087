// Claim: training a llama-style student takes no longer than PyTorch on the same threads.
//
//   npm run build && node bench/training.mjs --python PYTHON [--threads 2] [--batch 8] [--length 128] [--hidden 256]
//        [--layers 8] [--heads 8] [--kv-heads 4] [--intermediate 688] [--vocab 8192] [--repeats 9] [--json FILE]
//
// A step is forward, cross-entropy, backward and AdamW, on the same tokens from the same start. Every repeat takes each
// way once, in turn: this engine, transformers with sdpa and with eager attention. Medians of tokens per second.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const src = new URL('../dist/src/', import.meta.url);
const { openModelFiles } = await import(new URL('models/model-files.js', src));
const { openDecoderStudent } = await import(new URL('training/decoder-student.js', src));
const { createOptimizer } = await import(new URL('training/optimizer.js', src));
const { createObjective } = await import(new URL('training/objective.js', src));
const { createLoss } = await import(new URL('training/losses/index.js', src));
const { configureKernels, peakResidentBytes } = await import(new URL('kernels/native.js', src));
const { createRandom } = await import(new URL('random.js', src));

const text = (value) => ({ type: 'string', default: String(value) });
const { values: options } = parseArgs({
  options: {
    python: { type: 'string' },
    threads: text(2),
    batch: text(8),
    length: text(128),
    hidden: text(256),
    layers: text(8),
    heads: text(8),
    'kv-heads': text(4),
    intermediate: text(688),
    vocab: text(8192),
    repeats: text(9),
    json: { type: 'string' },
  },
});
const number = (name) => Number(options[name]);
const [threads, batch, length, repeats] = ['threads', 'batch', 'length', 'repeats'].map(number);
const python = options.python ?? process.env.PYTHON;
if (python === undefined) {
  console.error('pass --python, an interpreter with torch and transformers');
  process.exit(1);
}

const directory = mkdtempSync(join(tmpdir(), 'training-'));
const model = {
  vocab_size: number('vocab'),
  hidden_size: number('hidden'),
  intermediate_size: number('intermediate'),
  num_hidden_layers: number('layers'),
  num_attention_heads: number('heads'),
  num_key_value_heads: number('kv-heads'),
  max_position_embeddings: Math.max(256, length),
  tie_word_embeddings: false,
};

async function startPeer() {
  const script = fileURLToPath(new URL('training.py', import.meta.url));
  const child = spawn(python, [script, directory, String(threads), JSON.stringify({ model })], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error('the PyTorch process ended early');
    return JSON.parse(value);
  };
  const info = await read();
  const ask = async (request) => {
    child.stdin.write(`${JSON.stringify(request)}\n`);
    return read();
  };
  return { info, ask, stop: () => child.stdin.end() };
}

const RATE = 1e-3;
const peer = await startPeer();
configureKernels({ threads });
const files = openModelFiles(directory, threads);
const student = await openDecoderStudent(files, { precision: 'f32', threads, batch, length });
const optimizer = createOptimizer(student.parameters, { method: 'adamw', weightDecay: 0.01 });
const labels = (tokens) => Int32Array.from(tokens, (_, i) => ((i + 1) % length === 0 ? -100 : tokens[i + 1]));
const objective = createObjective([{ weight: 1, loss: createLoss('ce') }], { labels: (b) => b.labels });

let steps = 0;
async function ownStep(tokens) {
  const start = process.hrtime.bigint();
  const one = { tokens, batch, length, labels: labels(tokens), windows: new Int32Array(batch) };
  const visit = objective.begin(one, { step: steps + 1, epoch: 0 });
  await student.accumulate(one, visit.visit);
  const middle = process.hrtime.bigint();
  const { sum, validRows } = visit.totals();
  steps++;
  optimizer.step({ learningRate: RATE, gradientScale: 1 / validRows, clear: true, threads });
  const end = process.hrtime.bigint();
  return { seconds: Number(end - start) / 1e9, loss: sum / validRows, optimizer: Number(end - middle) / 1e9 };
}

const random = createRandom(3);
const times = { own: [], sdpa: [], eager: [] };
const optimizerTimes = [];
let last;
try {
  for (let repeat = -2; repeat < repeats; repeat++) {
    const tokens = Int32Array.from({ length: batch * length }, () => random.integer(model.vocab_size));
    const path = join(directory, 'tokens');
    writeFileSync(path, tokens);
    const request = { tokens: path, shape: [1, batch, length], rate: RATE, clip: null };
    const own = await ownStep(tokens);
    const sdpa = await peer.ask({ ...request, way: 'sdpa' });
    const eager = await peer.ask({ ...request, way: 'eager' });
    last = { own: own.loss, sdpa: sdpa.loss, peerPeak: sdpa.peak };
    if (repeat < 0) continue;
    times.own.push(own.seconds);
    optimizerTimes.push(own.optimizer);
    times.sdpa.push(sdpa.seconds);
    times.eager.push(eager.seconds);
  }
} finally {
  peer.stop();
  await student.close();
  rmSync(directory, { recursive: true, force: true });
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const tokens = batch * length;
const figures = Object.fromEntries(
  Object.entries(times).map(([way, seconds]) => [
    way,
    { seconds: median(seconds), tokensPerSecond: tokens / median(seconds) },
  ]),
);
console.log(
  `${(peer.info.parameters / 1e6).toFixed(1)} M parameters, batch ${batch} x ${length}, ${threads} threads, torch ${peer.info.torch}`,
);
for (const [way, { seconds, tokensPerSecond }] of Object.entries(figures)) {
  console.log(
    `${way.padEnd(6)} ${(seconds * 1e3).toFixed(1).padStart(8)} ms a step ${tokensPerSecond.toFixed(0).padStart(8)} tokens/s`,
  );
}
const ratio = Math.min(figures.sdpa.seconds, figures.eager.seconds) / figures.own.seconds;
console.log(
  `ratio to the faster of both: ${ratio.toFixed(2)}; optimizer ${(median(optimizerTimes) * 1e3).toFixed(1)} ms`,
);
console.log(`loss of the last step: ${last.own.toFixed(5)} here, ${last.sdpa.toFixed(5)} in PyTorch`);
console.log(
  `peak memory: ${(peakResidentBytes() / 2 ** 20).toFixed(0)} MiB here (estimate ${(student.plan.estimate.total / 2 ** 20).toFixed(0)}), ${(last.peerPeak / 2 ** 20).toFixed(0)} MiB in PyTorch (two models)`,
);
if (options.json)
  writeFileSync(
    options.json,
    `${JSON.stringify({ model, batch, length, threads, figures, ratio, ...last }, null, 2)}\n`,
  );
