// Claim: training follows PyTorch's loss curve to 1e-3 from the same start on the same batches, with warm-up and cosine,
// clipping and accumulation.
//
//   npm run build && node bench/loss-curve.mjs --python PYTHON [--steps 200] [--accumulate 2] [--batch 4] [--length 64]
//        [--hidden 128] [--layers 4] [--vocab 1024] [--rate 1e-3] [--warmup 20] [--clip 1] [--threads 2]
//        [--data fixtures/text/heldout_text.jsonl] [--json FILE]
//
// Tokens are the bytes of the text, so that there is something to learn. Prints the largest and the mean difference of the
// losses of all steps, and those of the norms of the gradient, relative. Beside it the same between PyTorch's own two
// attentions (eager and sdpa): differences of rounding grow from step to step, and this is how much.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const src = new URL('../dist/src/', import.meta.url);
const { openModelFiles } = await import(new URL('models/model-files.js', src));
const { openDecoderStudent } = await import(new URL('training/decoder-student.js', src));
const { createObjective } = await import(new URL('training/objective.js', src));
const { createLoss } = await import(new URL('training/losses/index.js', src));
const { train } = await import(new URL('training/trainer.js', src));
const { createSchedule } = await import(new URL('training/schedules.js', src));
const { configureKernels } = await import(new URL('kernels/native.js', src));
const { createRandom } = await import(new URL('random.js', src));

const text = (value) => ({ type: 'string', default: String(value) });
const { values: options } = parseArgs({
  options: {
    python: { type: 'string' },
    data: text(fileURLToPath(new URL('../fixtures/text/heldout_text.jsonl', import.meta.url))),
    steps: text(200),
    accumulate: text(2),
    batch: text(4),
    length: text(64),
    hidden: text(128),
    layers: text(4),
    vocab: text(1024),
    rate: text(1e-3),
    warmup: text(20),
    clip: text(1),
    threads: text(2),
    json: { type: 'string' },
  },
});
const number = (name) => Number(options[name]);
const [steps, accumulate, batch, length, threads] = ['steps', 'accumulate', 'batch', 'length', 'threads'].map(number);
const python = options.python ?? process.env.PYTHON;
if (python === undefined) {
  console.error('pass --python, an interpreter with torch and transformers');
  process.exit(1);
}

const directory = mkdtempSync(join(tmpdir(), 'loss-curve-'));
const model = {
  vocab_size: number('vocab'),
  hidden_size: number('hidden'),
  intermediate_size: Math.round((8 * number('hidden')) / 3),
  num_hidden_layers: number('layers'),
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 256,
  tie_word_embeddings: true,
};
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

const bytes = readFileSync(options.data);
const random = createRandom(4);
/** Micro-batches of all steps: windows of bytes at random places. */
const batches = Array.from({ length: steps * accumulate }, () => {
  const tokens = new Int32Array(batch * length);
  for (let b = 0; b < batch; b++) {
    const at = random.integer(bytes.length - length);
    tokens.set(bytes.subarray(at, at + length), b * length);
  }
  const labels = Int32Array.from(tokens, (_, i) => ((i + 1) % length === 0 ? -100 : tokens[i + 1]));
  return { tokens, labels, batch, length, windows: new Int32Array(batch) };
});

const info = await read();
configureKernels({ threads });
const schedule = { schedule: 'cosine', learningRate: number('rate'), warmupSteps: number('warmup'), totalSteps: steps };
const own = [];
const student = await openDecoderStudent(openModelFiles(directory, threads), {
  precision: 'f32',
  threads,
  batch,
  length,
});
const objective = createObjective([{ weight: 1, loss: createLoss('ce') }], { labels: (b) => b.labels });
await train(
  student,
  { perEpoch: batches.length, batch: (index) => batches[index] },
  objective,
  {
    steps,
    optimizer: { method: 'adamw', weightDecay: 0.01 },
    schedule,
    accumulate,
    clipNorm: number('clip'),
    threads,
  },
  { onStep: (record) => void own.push(record) },
);
await student.close();

const rateOf = createSchedule(schedule);
const theirs = [];
const control = [];
try {
  const file = join(directory, 'tokens');
  for (let step = 0; step < steps; step++) {
    const joined = new Int32Array(accumulate * batch * length);
    for (let m = 0; m < accumulate; m++) joined.set(batches[step * accumulate + m].tokens, m * batch * length);
    writeFileSync(file, joined);
    for (const [way, curve] of [
      ['eager', theirs],
      ['sdpa', control],
    ]) {
      const request = { tokens: file, shape: [accumulate, batch, length], way, rate: rateOf(step) };
      child.stdin.write(`${JSON.stringify({ ...request, clip: number('clip') })}\n`);
      curve.push(await read());
    }
  }
} finally {
  child.stdin.end();
  rmSync(directory, { recursive: true, force: true });
}

const errors = own.map(({ loss }, s) => Math.abs(loss - theirs[s].loss));
const norms = own.map(({ gradientNorm }, s) => Math.abs(gradientNorm - theirs[s].norm) / theirs[s].norm);
const spread = theirs.map(({ loss }, s) => Math.abs(loss - control[s].loss));
const largest = (values) => Math.max(...values);
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
console.log(
  `${(info.parameters / 1e6).toFixed(2)} M parameters, ${steps} steps of ${accumulate} x ${batch} x ${length}, torch ${info.torch}`,
);
console.log(
  `loss ${own[0].loss.toFixed(4)} -> ${own[steps - 1].loss.toFixed(4)} here, ${theirs[0].loss.toFixed(4)} -> ${theirs[steps - 1].loss.toFixed(4)} in PyTorch`,
);
console.log(
  `difference of losses: largest ${largest(errors).toExponential(2)} (step ${errors.indexOf(largest(errors)) + 1}), mean ${mean(errors).toExponential(2)}`,
);
console.log(
  `difference of norms, relative: largest ${largest(norms).toExponential(2)}, mean ${mean(norms).toExponential(2)}`,
);
console.log(
  `PyTorch's sdpa against its eager attention: largest ${largest(spread).toExponential(2)}, mean ${mean(spread).toExponential(2)}`,
);
if (options.json) {
  const curve = own.map(({ loss, gradientNorm }, s) => ({
    step: s + 1,
    loss,
    peer: theirs[s].loss,
    gradientNorm,
    peerNorm: theirs[s].norm,
  }));
  writeFileSync(options.json, `${JSON.stringify({ model, curve }, null, 2)}\n`);
}
process.exitCode = largest(errors) < 1e-3 ? 0 : 1;
