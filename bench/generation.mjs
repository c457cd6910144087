// Claim: text is generated at least as fast as by transformers on the same threads, and steering costs less than 3 %.
//
//   npm run build && node bench/generation.mjs --model MODEL [--threads 2] [--prompt 64] [--tokens 48] [--repeats 5]
//                    [--batches 1,8] [--python PYTHON] [--json FILE]
//
// MODEL is a Llama-like model directory or .gguf; with --python (an interpreter with torch and transformers; for a .gguf
// also gguf and accelerate) transformers generates from the same prompts in f32. Every repeat takes each way once, in
// turn, so that all see the same noise. Ways: greedy, greedy with a vector added to the middle layer at all positions,
// and sampled at temperature 0.8 with top-p 0.9. Seconds are those of the whole call, the prompt included. Medians, with
// the least and the greatest, of tokens per second; the cost of steering is the median of the ratios within a repeat.
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const source = new URL('../dist/src/', import.meta.url);
const { openLanguageModel } = await import(new URL('models/language-model.js', source));
const { generate } = await import(new URL('decoding/generation.js', source));

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    threads: { type: 'string', default: '2' },
    prompt: { type: 'string', default: '64' },
    tokens: { type: 'string', default: '48' },
    repeats: { type: 'string', default: '5' },
    batches: { type: 'string', default: '1,8' },
    python: { type: 'string' },
    json: { type: 'string' },
  },
});
if (options.model === undefined) {
  console.error('--model names a model directory or a .gguf file');
  process.exit(2);
}
const threads = Number(options.threads);
const maxNewTokens = Number(options.tokens);
const promptLength = Number(options.prompt);

const model = await openLanguageModel(options.model, {
  threads,
  maxMemoryBytes: 2 ** 33,
  device: 'cpu',
  precision: 'f32',
  context: promptLength + maxNewTokens,
});
const { vocabularySize, hiddenSize, layers } = model.info;
const layer = Math.floor(layers / 2);
// A vector of small numbers: it changes the text, not the work.
const vector = Float32Array.from({ length: hiddenSize }, (_, i) => 0.02 * Math.sin(1 + i));
const prompts = (batch) =>
  Array.from({ length: batch }, (_, b) =>
    Int32Array.from(
      { length: promptLength },
      (_, i) => (7919 * (i + 1) + 104729 * b) % Math.min(vocabularySize, 40000),
    ),
  );

const WAYS = {
  greedy: { plan: { steps: [], greedy: true } },
  steered: {
    plan: { steps: [], greedy: true },
    steering: { terms: [{ layer, operator: 'add', vector, scale: 1 }], positions: { kind: 'all' } },
  },
  sampled: {
    plan: {
      steps: [
        { kind: 'temperature', temperature: 0.8 },
        { kind: 'top-p', p: 0.9 },
      ],
    },
  },
};

async function ours(way, batch) {
  const begin = performance.now();
  const made = await generate(model, { ...WAYS[way], prompts: prompts(batch), maxNewTokens, stopIds: [], seed: 1 });
  return { seconds: (performance.now() - begin) / 1000, tokens: made.map(([{ tokens }]) => [...tokens]) };
}

function startPeer() {
  const script = fileURLToPath(new URL('generation.py', import.meta.url));
  const child = spawn(options.python, [script, options.model, String(threads)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ask = async (request) => {
    child.stdin.write(`${JSON.stringify(request)}\n`);
    const { value, done } = await lines.next();
    if (done) throw new Error('the peer ended');
    return JSON.parse(value);
  };
  return { ask, close: () => child.stdin.end() };
}

const peer = options.python === undefined ? undefined : startPeer();
const theirs = (way, batch) =>
  peer.ask({ way, prompts: prompts(batch).map((ids) => [...ids]), tokens: maxNewTokens, layer, vector: [...vector] });

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const results = [];
for (const batch of options.batches.split(',').map(Number)) {
  const takers = [['surprisal', ours], ...(peer ? [['transformers', theirs]] : [])];
  const rates = new Map();
  let equal;
  for (let repeat = -1; repeat < Number(options.repeats); repeat++) {
    for (const way of Object.keys(WAYS)) {
      const tokens = [];
      for (const [name, take] of takers) {
        const made = await take(way, batch);
        tokens.push(made.tokens);
        if (repeat < 0) continue;
        const key = `${name} ${way}`;
        rates.set(key, [...(rates.get(key) ?? []), (batch * maxNewTokens) / made.seconds]);
      }
      if (way === 'greedy' && tokens.length > 1) {
        equal = tokens[0].filter((row, b) => row.join() === tokens[1][b].join()).length;
      }
    }
  }
  console.log(`batch ${batch}, prompt ${promptLength}, ${maxNewTokens} tokens, ${threads} threads`);
  for (const [key, values] of rates) {
    const [least, greatest] = [Math.min(...values), Math.max(...values)];
    console.log(
      `  ${key.padEnd(24)} ${median(values).toFixed(1)} tokens/s (${least.toFixed(1)} to ${greatest.toFixed(1)})`,
    );
    results.push({ batch, way: key, tokensPerSecond: median(values), least, greatest });
  }
  for (const [name] of takers) {
    const plain = rates.get(`${name} greedy`);
    const cost = median(rates.get(`${name} steered`).map((rate, i) => plain[i] / rate - 1));
    console.log(`  cost of steering, ${name}: ${(100 * cost).toFixed(1)} %`);
    results.push({ batch, way: `${name} cost of steering`, share: cost });
  }
  if (peer) {
    for (const way of Object.keys(WAYS)) {
      const ratio = median(rates.get(`surprisal ${way}`).map((rate, i) => rate / rates.get(`transformers ${way}`)[i]));
      console.log(`  surprisal / transformers, ${way}: ${ratio.toFixed(2)}`);
      results.push({ batch, way: `ratio ${way}`, ratio });
    }
    console.log(`  equal greedy continuations: ${equal} of ${batch}`);
  }
}
peer?.close();
await model.close();
if (options.json) writeFileSync(options.json, `${JSON.stringify(results, null, 2)}\n`);
