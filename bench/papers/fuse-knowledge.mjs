/**
 * A model with another tokenizer teaches one (specification of fusion, section A; FuseLLM, Wan et al. 2024; Fusion-X, Kong et
 * al. 2025). The bundled Llama, which has read addresses, goes on learning on addresses and on Moby Dick together, for equal
 * steps from the same start on the same batches: by the text alone, and by targets fused with the bundled Qwen2, which has
 * read Moby Dick by a tokenizer of its own. A seed is an order of the sequences (and the start of the selector). Figures are
 * of text that neither has seen.
 *
 * node bench/papers/fuse-knowledge.mjs [--steps 150] [--seeds 3] [--work folder] [--bin bin/surprisal.js]
 * With --work, reports and captures stay in a folder, and what is there is not made again.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const { values } = parseArgs({
  options: {
    steps: { type: 'string', default: '150' },
    seeds: { type: 'string', default: '3' },
    work: { type: 'string' },
    bin: { type: 'string', default: 'bin/surprisal.js' },
  },
});
const STEPS = Number(values.steps);
const SEEDS = Array.from({ length: Number(values.seeds) }, (_, seed) => seed);
const TEXTS = { addresses: 'sotu_part', novel: 'moby_part' };
/** Characters of each text: as many sequences of 128 tokens as the steps read once. */
const CHARACTERS = Math.ceil((STEPS * 8 * 128 * 2.3) / 2);
const ARMS = [
  { name: 'text alone', options: ['--strategy', 'clm'] },
  { name: 'MinCE', lambda: 0.9, options: ['--strategy', 'mince'] },
  { name: 'AvgCE', lambda: 0.9, options: ['--strategy', 'avgce'] },
  { name: 'Fusion-X', lambda: 0.9, options: ['--strategy', 'fusion-x'] },
  { name: 'MinCE', lambda: 0.5, options: ['--strategy', 'mince', '--lambda', '0.5'] },
  { name: 'AvgCE', lambda: 0.5, options: ['--strategy', 'avgce', '--lambda', '0.5'] },
  { name: 'Fusion-X', lambda: 0.5, options: ['--strategy', 'fusion-x', '--lambda', '0.5'] },
];
const DOMAINS = ['addresses', 'novel'];

const folder = values.work ?? mkdtempSync(join(tmpdir(), 'surprisal-fuse-'));
mkdirSync(folder, { recursive: true });

/** Documents from the first on until there are enough characters; the last one is cut. */
function firstCharacters(path) {
  let left = CHARACTERS;
  const kept = [];
  for (const line of gunzipSync(readFileSync(path)).toString().trim().split('\n')) {
    if (left <= 0) break;
    const text = JSON.parse(line).text.slice(0, left);
    left -= text.length;
    kept.push(JSON.stringify({ text }));
  }
  return `${kept.join('\n')}\n`;
}
const training = DOMAINS.map((domain) => join(folder, `${domain}-${STEPS}.jsonl`));
DOMAINS.forEach((domain, d) => {
  writeFileSync(training[d], firstCharacters(`fixtures/training/${TEXTS[domain]}.jsonl.gz`));
});
const heldOut = DOMAINS.map((domain) => join(folder, `${domain}.jsonl`));
const documents = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').trim().split('\n');
DOMAINS.forEach((domain, d) => {
  const ofDomain = documents.filter((line) => JSON.parse(line).id.startsWith('chapter') === (domain === 'novel'));
  writeFileSync(heldOut[d], `${ofDomain.join('\n')}\n`);
});

/** Runs one arm with one seed and gives its report. */
function runArm({ options }, arm, seed) {
  const out = join(folder, `out-${arm}-${seed}-${STEPS}`);
  const report = `${out}.json`;
  if (!existsSync(report)) {
    const words = [
      ...['fuse', 'knowledge', '--pivot', 'fixtures/models/llama-sotu', '--source', 'fixtures/models/qwen2-moby'],
      ...['--data', ...training, '--eval-data', ...heldOut, '--keep', 'last', '--context', '128'],
      ...[
        '--steps',
        String(STEPS),
        '--eval-every',
        String(Math.ceil(STEPS / 3)),
        '--warmup',
        String(Math.round(STEPS / 10)),
      ],
      ...['--batch-size', '8', '--learning-rate', '0.0005', '--seed', String(seed)],
      ...[
        '--captures',
        join(folder, `captures-${STEPS}`),
        '--out',
        out,
        '--report',
        report,
        '--force',
        '--quiet',
        ...options,
      ],
    ];
    execFileSync(process.execPath, [values.bin, ...words], { stdio: 'inherit' });
    rmSync(out, { recursive: true, force: true });
  }
  return JSON.parse(readFileSync(report, 'utf8'));
}

const runs = [];
for (const seed of SEEDS) {
  for (const [arm, one] of ARMS.entries()) {
    const report = runArm(one, arm, seed);
    runs.push({ arm, seed, report, target: report.targets[0] });
    const figures = report.targets[0].domains.map(({ after }) => after.perplexity.value.toFixed(2));
    console.error(`${one.name}, λ ${one.lambda ?? 1}, seed ${seed}: ${figures.join(', ')}`);
  }
}
if (values.work === undefined) rmSync(folder, { recursive: true, force: true });

const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
const deviation = (list) =>
  list.length < 2 ? 0 : Math.sqrt(list.reduce((sum, value) => sum + (value - mean(list)) ** 2, 0) / (list.length - 1));
const ofArm = (arm) => runs.filter((run) => run.arm === arm);
const perplexities = (arm, d) => ofArm(arm).map(({ target }) => target.domains[d].after.perplexity.value);
/** Geometric mean of the two texts: exp of the mean cross-entropy. */
const both = (arm) =>
  ofArm(arm).map(({ target }) => Math.exp(mean(target.domains.map(({ after }) => after.nll_nats.mean))));
/** Differences from the text alone with the same seed, in nats. */
const gains = (arm, d) =>
  ofArm(arm).map(({ seed, target }) => {
    const plain = runs.find((run) => run.arm === 0 && run.seed === seed).target;
    return target.domains[d].after.nll_nats.mean - plain.domains[d].after.nll_nats.mean;
  });

const columns = ['targets', 'lambda', ...DOMAINS.flatMap((d) => [d, `${d}_sd`]), 'both', 'both_sd'];
const gainColumns = DOMAINS.flatMap((d) => [`${d}_gain_nats`, `${d}_gain_nats_sd`]);
const lines = ARMS.map(({ name, lambda = 1 }, arm) =>
  [
    ...[name, lambda],
    ...DOMAINS.flatMap((_, d) => [mean(perplexities(arm, d)), deviation(perplexities(arm, d))]),
    ...[mean(both(arm)), deviation(both(arm))],
    ...DOMAINS.flatMap((_, d) => [mean(gains(arm, d)), deviation(gains(arm, d))]),
  ].join(','),
);
writeFileSync('docs/papers/fuse-knowledge.csv', `${[[...columns, ...gainColumns].join(','), ...lines].join('\n')}\n`);

const curves = ARMS.map(({ name, lambda }, arm) => {
  const own = ofArm(arm);
  const judged = own[0].target.curve.filter(({ eval_loss_nats }) => eval_loss_nats !== null).map(({ step }) => step);
  const at = (step) => own.map(({ target }) => target.curve.find((point) => point.step === step).eval_loss_nats);
  const before = own[0].target.evaluation.before.nll_nats.mean;
  return {
    name: lambda === undefined ? name : `${name}, λ = ${lambda}`,
    x: [0, ...judged],
    y: [before, ...judged.map((step) => mean(at(step)))],
  };
});
const figure = await chartFigure({
  title: 'A model with another tokenizer teaches',
  subtitle: `Bundled Llama taught by the bundled Qwen2, ${STEPS} steps of 8 sequences, ${SEEDS.length} orders of the data`,
  charts: [
    {
      kind: 'lines',
      chart: {
        title: 'Both held-out texts',
        xLabel: 'step',
        yLabel: 'cross-entropy, nats',
        yZero: false,
        series: curves,
      },
    },
    {
      kind: 'heat-map',
      chart: {
        title: 'Against the text alone',
        note: 'Difference of the held-out cross-entropy, nats; below 0 fusion is better.',
        rows: ARMS.slice(1).map(({ name, lambda }) => `${name}, λ = ${lambda}`),
        columns: DOMAINS,
        rowLabel: 'targets',
        columnLabel: 'held-out text',
        values: ARMS.slice(1).flatMap((_, i) => DOMAINS.map((__, d) => mean(gains(i + 1, d)))),
        valueLabel: 'nats',
        kind: 'signed',
      },
    },
  ],
});
writeFileSync('docs/papers/fuse-knowledge.svg', await plotBytes(figure, 'fuse-knowledge.svg'));

const [{ report, target }] = runs;
const { alignment, kept_mass } = report.sources[0];
const share = (value) => `${(100 * value).toFixed(1)} %`;
console.log(
  `aligned exactly ${share(alignment.exact)}, fallback ${share(alignment.fallback)}, mass kept ${share(kept_mass)}`,
);
console.log(
  `before: ${target.domains.map(({ name, before }) => `${name} ${before.perplexity.value.toFixed(2)}`).join(', ')}`,
);
for (const arm of [1, 3]) {
  const { weights, choice_by_domain, near_ties, fused } = ofArm(arm)[0].target;
  const choices = choice_by_domain.map(({ domain, shares }) => `${domain} ${shares.map(share).join(' and ')}`);
  console.log(
    `${ARMS[arm].name}: ${choices.join(', ')}; near ties ${share(near_ties)}; interference ${share(fused.interference)};`,
  );
  console.log(`  effective sources ${weights.effective_sources.toFixed(2)}`);
}
console.log(
  `\n| targets | λ | ${DOMAINS.join(' | ')} | both | ${DOMAINS.map((d) => `gain on ${d}, nats`).join(' | ')} |`,
);
console.log(`|---|---|${'---|'.repeat(2 * DOMAINS.length + 1)}`);
const cell = (list, digits) => `${mean(list).toFixed(digits)} ± ${deviation(list).toFixed(digits)}`;
ARMS.forEach(({ name, lambda }, arm) => {
  const figures = [...DOMAINS.map((_, d) => cell(perplexities(arm, d), 2)), cell(both(arm), 2)];
  const gained = DOMAINS.map((_, d) => (arm === 0 ? '' : cell(gains(arm, d), 4)));
  console.log(`| ${name} | ${lambda ?? 1} | ${[...figures, ...gained].join(' | ')} |`);
});
