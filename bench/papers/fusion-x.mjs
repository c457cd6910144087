/**
 * Interference against the number of sources (specification of fusion, section B; Fusion-X, Kong et al. 2025). Five models are
 * fused into the bundled Llama on addresses and a novel: itself, a Qwen2 with another tokenizer, a mixture of experts, and two
 * poor ones, the bundled fine-tunes with noise on their weights. With the first 2 to 5 of them: how often the fused target is
 * wrong where a model that it keeps is right, and what the student is worth after equal steps. A seed is the noise, the start
 * of the selector and the order of the sequences.
 *
 * node bench/papers/fusion-x.mjs [--steps 40] [--seeds 2] [--noise 0.45] [--work folder] [--bin bin/surprisal.js]
 * With --work, models, reports and captures stay in a folder, and what is there is not made again.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { createRandom } from '../../dist/src/random.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const { values } = parseArgs({
  options: {
    steps: { type: 'string', default: '40' },
    seeds: { type: 'string', default: '2' },
    noise: { type: 'string', default: '0.45' },
    work: { type: 'string' },
    bin: { type: 'string', default: 'bin/surprisal.js' },
  },
});
const STEPS = Number(values.steps);
const NOISE = Number(values.noise);
const SEEDS = Array.from({ length: Number(values.seeds) }, (_, seed) => seed);
const COUNTS = [2, 3, 4, 5];
const LAMBDA = '0.5';
const DOMAINS = { addresses: 'sotu_part', novel: 'moby_part' };
/** Characters of each training text (as many sequences of 128 tokens as the steps read once), and of each held-out one. */
const CHARACTERS = Math.ceil((STEPS * 8 * 128 * 2.3) / 2);
const HELD_OUT = 12_000;

const folder = values.work ?? mkdtempSync(join(tmpdir(), 'surprisal-fusion-x-'));
mkdirSync(folder, { recursive: true });
const surprisal = (...words) => execFileSync(process.execPath, [values.bin, ...words, '--quiet'], { stdio: 'inherit' });

/** Documents from the first on until there are enough characters; the last one is cut. */
function write(path, texts, characters) {
  let left = characters;
  const lines = [];
  for (const text of texts) {
    if (left <= 0) break;
    lines.push(JSON.stringify({ text: text.slice(0, left) }));
    left -= text.length;
  }
  writeFileSync(path, `${lines.join('\n')}\n`);
  return path;
}
const textsOf = (bytes) =>
  bytes
    .toString()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
const heldOut = textsOf(readFileSync('fixtures/text/heldout_text.jsonl'));
const training = Object.entries(DOMAINS).map(([domain, file]) => {
  const documents = textsOf(gunzipSync(readFileSync(`fixtures/training/${file}.jsonl.gz`)));
  return write(
    join(folder, `${domain}-${STEPS}.jsonl`),
    documents.map(({ text }) => text),
    CHARACTERS,
  );
});
const judged = Object.keys(DOMAINS).map((domain) =>
  write(
    join(folder, `${domain}.jsonl`),
    heldOut.filter(({ id }) => id.startsWith('chapter') === (domain === 'novel')).map(({ text }) => text),
    HELD_OUT,
  ),
);

/** A model whose stored matrices (bfloat16) have noise of a share of their own standard deviation. */
function noisy(model, seed) {
  const out = join(folder, `noisy-${model}-${NOISE}-${seed}`);
  if (existsSync(out)) return out;
  cpSync(`fixtures/models/${model}`, out, { recursive: true });
  const path = join(out, 'model.safetensors');
  const file = readFileSync(path);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, start).toString());
  const random = createRandom(seed);
  const bits = new Uint32Array(1);
  const number = new Float32Array(bits.buffer);
  for (const [name, { shape, data_offsets: [from, to] = [] }] of Object.entries(header)) {
    if (name === '__metadata__' || shape.length < 2) continue;
    const stored = file.subarray(start + from, start + to);
    const weights = Float64Array.from({ length: stored.length / 2 }, (_, i) => {
      bits[0] = stored.readUInt16LE(2 * i) << 16;
      return number[0];
    });
    const deviation = Math.sqrt(weights.reduce((sum, w) => sum + w * w, 0) / weights.length);
    weights.forEach((weight, i) => {
      number[0] = weight + NOISE * deviation * random.normal();
      stored.writeUInt16LE(Math.min(0xffff, (bits[0] + 0x8000) >>> 16), 2 * i);
    });
  }
  writeFileSync(path, file);
  return out;
}

const ARMS = [
  { name: 'MinCE', options: () => ['--strategy', 'mince'] },
  { name: 'AvgCE', options: () => ['--strategy', 'avgce'] },
  { name: 'random gate', options: () => ['--strategy', 'fusion-x', '--gate', 'random'] },
  { name: 'Fusion-X', options: () => ['--strategy', 'fusion-x'] },
  {
    name: 'selector fitted alone',
    options: (count, seed) => ['--strategy', 'fusion-x', '--gate', gate(count, seed)],
  },
];
const place = (arm, count, seed) => join(folder, `out-${arm}-${count}-${seed}-${STEPS}-${NOISE}`);

/** A selector fitted to the cross-entropies that AvgCE has reported. */
function gate(count, seed) {
  const path = join(folder, `gate-${count}-${seed}-${STEPS}-${NOISE}.safetensors`);
  const scores = ['--train-gate', `${place(1, count, seed)}.csv`, '--seed', String(seed)];
  const columns = Array.from({ length: count }, (_, k) => `ce_nats_${k}`);
  if (!existsSync(path)) surprisal('fuse', 'select', ...scores, '--columns', ...columns, '--gate-out', path);
  return path;
}

function runArm(arm, count, seed) {
  const out = place(arm, count, seed);
  const report = `${out}.json`;
  if (!existsSync(report)) {
    const poor = ['llama-sotu-ft-recent', 'llama-sotu-ft-moby'].map((model, i) => noisy(model, 2 * seed + i));
    const sources = ['fixtures/models/qwen2-moby', 'fixtures/models/mixtral-sotu-moby', ...poor].slice(0, count - 1);
    surprisal(
      ...[
        'fuse',
        'knowledge',
        '--pivot',
        'fixtures/models/llama-sotu',
        ...sources.flatMap((name) => ['--source', name]),
      ],
      ...['--data', ...training, '--eval-data', ...judged, '--keep', 'last', '--context', '128', '--batch-size', '8'],
      ...['--steps', String(STEPS), '--warmup', String(Math.round(STEPS / 10)), '--learning-rate', '0.0005'],
      ...['--lambda', LAMBDA, '--seed', String(seed), '--captures', join(folder, `captures-${STEPS}-${NOISE}-${seed}`)],
      ...['--out', out, '--report', report, '--table', `${out}.csv`, '--force', ...ARMS[arm].options(count, seed)],
    );
    rmSync(out, { recursive: true, force: true });
  }
  return JSON.parse(readFileSync(report, 'utf8')).targets[0];
}

const runs = [];
for (const seed of SEEDS) {
  for (const count of COUNTS) {
    for (const arm of ARMS.keys()) {
      const target = runArm(arm, count, seed);
      const nats = target.domains.reduce((sum, { after }) => sum + after.nll_nats.mean, 0) / target.domains.length;
      const poorWeight = target.weights.mean.slice(3).reduce((a, b) => a + b, 0);
      runs.push({
        ...{ arm, count, seed, target, perplexity: Math.exp(nats), poorWeight },
        ...{ interference: target.fused.interference, accuracy: target.fused.accuracy },
        sources: target.weights.effective_sources,
      });
      const { interference, perplexity } = runs.at(-1);
      console.error(
        `${ARMS[arm].name}, ${count} models, seed ${seed}: interference ${interference.toFixed(4)}, ` +
          `perplexity ${perplexity.toFixed(2)}, weight of the poor ${poorWeight.toFixed(3)}`,
      );
    }
  }
}
if (values.work === undefined) rmSync(folder, { recursive: true, force: true });

const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
const deviation = (list) =>
  list.length < 2 ? 0 : Math.sqrt(list.reduce((sum, value) => sum + (value - mean(list)) ** 2, 0) / (list.length - 1));
const FIGURES = ['interference', 'accuracy', 'perplexity', 'poorWeight', 'sources'];
const of = (arm, count, key) => runs.filter((run) => run.arm === arm && run.count === count).map((run) => run[key]);
const header = ['targets', 'models', ...FIGURES.flatMap((key) => [key, `${key}_sd`])];
const lines = ARMS.flatMap(({ name }, arm) =>
  COUNTS.map((count) =>
    [name, count, ...FIGURES.flatMap((key) => [mean(of(arm, count, key)), deviation(of(arm, count, key))])].join(','),
  ),
);
writeFileSync('docs/papers/fusion-x.csv', `${[header.join(','), ...lines].join('\n')}\n`);
const chart = (title, note, key, yLabel, yZero) => ({
  kind: 'lines',
  chart: {
    title,
    note,
    xLabel: 'models, the pivot included',
    yLabel,
    yZero,
    series: ARMS.map(({ name }, arm) => ({
      name,
      x: COUNTS,
      y: COUNTS.map((count) => mean(of(arm, count, key))),
      standardError: COUNTS.map((count) => deviation(of(arm, count, key)) / Math.sqrt(SEEDS.length)),
    })),
  },
});
const figure = await chartFigure({
  title: 'Sources that interfere',
  subtitle: `Up to five models into one, the last two of them poor; ${SEEDS.length} seeds`,
  charts: [
    chart(
      'Interference',
      'Share of positions at which the fused target is wrong while a model that it keeps is right.',
      'interference',
      'share',
      true,
    ),
    chart('The fused target', 'Share of positions at which its likeliest token is right.', 'accuracy', 'share', false),
    chart(
      'The student',
      `After ${STEPS} steps of 8 sequences, λ = ${LAMBDA}.`,
      'perplexity',
      'held-out perplexity',
      false,
    ),
  ],
});
writeFileSync('docs/papers/fusion-x.svg', await plotBytes(figure, 'fusion-x.svg'));

const ce = mean(runs.filter(({ count }) => count === 5).map(({ target }) => target.mean_ce_nats[0]));
console.log(`cross-entropy of the pivot ${ce.toFixed(2)} nats, of the five models with seed 0:`);
console.log(
  runs
    .find(({ count, seed }) => count === 5 && seed === 0)
    .target.mean_ce_nats.map((x) => x.toFixed(2))
    .join(', '),
);
for (const [key, digits, title] of [
  ['interference', 4, 'interference'],
  ['accuracy', 4, 'accuracy of the fused target'],
  ['perplexity', 2, 'held-out perplexity of the student'],
  ['poorWeight', 3, 'weight of the poor models'],
]) {
  console.log(`\n| ${title} | ${COUNTS.map((count) => `${count} models`).join(' | ')} |`);
  console.log(`|---|${COUNTS.map(() => '---|').join('')}`);
  ARMS.forEach(({ name }, arm) => {
    const cells = COUNTS.map(
      (count) => `${mean(of(arm, count, key)).toFixed(digits)} ± ${deviation(of(arm, count, key)).toFixed(digits)}`,
    );
    console.log(`| ${name} | ${cells.join(' | ')} |`);
  });
}
