/**
 * Aioli (Chen et al., ICLR 2025) against stratified mixing, DoReMi, DoGE and Skill-It on text: a small llama model goes on from a common
 * base, itself trained from random weights on equal shares, on three groups: State of the Union addresses before 1870 and after 1930,
 * and Moby Dick. Every method has the same steps in all (helper runs included) and is judged by the mean perplexity of the groups on
 * documents that nothing was chosen by. Methods with helper runs are also run with the same steps in their last run, helpers on top. A
 * seed is an order of the data.
 *
 * node bench/papers/aioli-text.mjs [--steps 512] [--base-steps 1000] [--seeds 3] [--threads 1] [--bin bin/surprisal.js] [--cache DIR]
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
    steps: { type: 'string', default: '512' },
    'base-steps': { type: 'string', default: '1000' },
    seeds: { type: 'string', default: '3' },
    threads: { type: 'string', default: '1' },
    bin: { type: 'string', default: 'bin/surprisal.js' },
    cache: { type: 'string' },
  },
});
const STEPS = Number(values.steps);
const SEEDS = Array.from({ length: Number(values.seeds) }, (_, seed) => seed);
const ROUND = STEPS / 8;
const AIOLI = ['--method', 'aioli', '--probe-rounds', '2', '--probe-steps', '3'];
const HELPED = { 'Skill-It': ['skill-it'], DoReMi: ['doremi'], DoGE: ['doge'] };
const METHODS = [
  ['stratified', ['--method', 'stratified'], 'total'],
  ['Aioli, recipe of the code', AIOLI, 'total'],
  ['Aioli, accumulating, eta 1', [...AIOLI, '--memory', 'accumulate', '--ema', 'none', '--eta', '1'], 'total'],
  ...Object.entries(HELPED).map(([name, [method]]) => [name, ['--method', method], 'total']),
  ...Object.entries(HELPED).map(([name, [method]]) => [`${name}, helper runs on top`, ['--method', method], 'final']),
];

const folder = mkdtempSync(join(tmpdir(), 'surprisal-aioli-'));
const cache = values.cache ?? folder;
mkdirSync(cache, { recursive: true });

const lines = (path) => gunzipSync(readFileSync(path)).toString('utf8').trim().split('\n');
const addresses = lines('fixtures/training/sotu_part.jsonl.gz');
const years = (keep) => addresses.filter((line) => keep(JSON.parse(line).year));
const GROUPS = {
  early: years((year) => year < 1870),
  recent: years((year) => year > 1930),
  moby: lines('fixtures/training/moby_part.jsonl.gz'),
};
// Of eight documents in a row one is to measure losses on, and one to judge by.
const part = (documents, remainder) =>
  documents.filter((_, i) => (remainder === undefined ? i % 8 !== 3 && i % 8 !== 7 : i % 8 === remainder));
const text = { '--group': undefined, '--eval-group': 3, '--test-group': 7 };
const groupArguments = Object.entries(text).flatMap(([flag, remainder]) => [
  flag,
  ...Object.entries(GROUPS).map(([name, documents]) => {
    const path = join(folder, `${name}${flag}.jsonl`);
    writeFileSync(path, `${part(documents, remainder).join('\n')}\n`);
    return `${name}=${path}`;
  }),
]);
const config = JSON.parse(readFileSync('fixtures/models/llama-sotu/config.json', 'utf8'));
const model = join(folder, 'config.json');
writeFileSync(
  model,
  JSON.stringify({
    ...config,
    hidden_size: 96,
    num_hidden_layers: 2,
    num_attention_heads: 3,
    num_key_value_heads: 3,
    head_dim: 32,
    intermediate_size: 256,
    max_position_embeddings: 128,
    torch_dtype: 'float32',
  }),
);

/** Trains a model on the groups; what is in the cache is not run again. */
function mix(report, out, own) {
  if (existsSync(report) && existsSync(out)) return;
  execFileSync(
    process.execPath,
    [
      ...[
        values.bin,
        'fuse',
        'mix',
        ...groupArguments,
        '--context',
        '128',
        '--batch-size',
        '8',
        '--eval-windows',
        '24',
      ],
      ...['--learning-rate', '0.002', '--keep', 'last', '--threads', values.threads, ...own],
      ...['--out', out, '--report', report, '--force', '--quiet'],
    ],
    { stdio: 'inherit' },
  );
}

const BASE_STEPS = values['base-steps'];
const base = join(cache, `base-${BASE_STEPS}`);
mix(join(cache, `base-${BASE_STEPS}.json`), base, [
  ...['--model', model, '--tokenizer', 'fixtures/models/llama-sotu', '--method', 'stratified', '--steps', BASE_STEPS],
  ...['--schedule', 'constant', '--warmup', '20', '--update-every', BASE_STEPS],
]);
const baseReport = JSON.parse(readFileSync(join(cache, `base-${BASE_STEPS}.json`), 'utf8'));
console.error(`base: perplexity ${baseReport.mean_test_perplexity.toFixed(3)}`);

const runs = [];
for (const seed of SEEDS) {
  for (const [name, method, budget] of METHODS) {
    const report = join(cache, `${name.replace(/[^A-Za-z0-9]+/g, '-')}-${STEPS}-${seed}.json`);
    if (!existsSync(report)) {
      mix(report, join(folder, 'model'), [
        ...['--model', base, '--steps', String(STEPS), '--budget', budget, '--update-every', String(ROUND)],
        ...['--seed', String(seed), ...method],
      ]);
    }
    const found = JSON.parse(readFileSync(report, 'utf8'));
    runs.push({ name, seed, ...found });
    console.error(
      `seed ${seed}, ${name}: perplexity ${found.mean_test_perplexity.toFixed(3)}, p ${found.proportions.map((p) => p.toFixed(3)).join(' ')}`,
    );
  }
}
rmSync(folder, { recursive: true, force: true });

const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
const deviation = (list) =>
  Math.sqrt(mean(list.map((value) => (value - mean(list)) ** 2)) * (list.length / Math.max(1, list.length - 1)));
const own = (name) => runs.filter((run) => run.name === name);
/** Two-sided 95 % points of Student's t by degrees of freedom. */
const T = [Number.NaN, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];
const names = METHODS.map(([name]) => name);
const table = names.map((name) => {
  const mine = own(name);
  const perplexity = mine.map((run) => run.mean_test_perplexity);
  const difference = mine.map((run, i) => run.mean_test_perplexity - own('stratified')[i].mean_test_perplexity);
  const half = (T[difference.length - 1] * deviation(difference)) / Math.sqrt(difference.length);
  const groups = mine[0].groups.map((_, j) => mean(mine.map((run) => Math.exp(run.losses[j].test.mean_nats))));
  const p = mine[0].groups.map((_, j) => mean(mine.map((run) => run.proportions[j])));
  const { budget } = mine[0];
  return {
    name,
    perplexity: mean(perplexity),
    sd: deviation(perplexity),
    difference: mean(difference),
    half,
    groups,
    p,
    budget,
  };
});
const header = [
  ...[
    'method',
    'total_steps',
    'final_steps',
    'probe_steps',
    'perplexity',
    'perplexity_sd',
    'difference',
    'difference_half_width',
  ],
  ...['early_perplexity', 'recent_perplexity', 'moby_perplexity', 'p_early', 'p_recent', 'p_moby'],
];
const rows = table.map(({ name, budget, perplexity, sd, difference, half, groups, p }) => [
  ...[`"${name}"`, budget.total_steps, budget.final_steps, budget.probe_steps, perplexity, sd, difference, half],
  ...groups,
  ...p,
]);
writeFileSync('docs/papers/aioli-text.csv', `${[header, ...rows].map((row) => row.join(',')).join('\n')}\n`);

const shown = names.slice(0, 6);
const curve = (name) => {
  const mine = own(name);
  const rounds = mine[0].runs.at(-1).rounds;
  const at = (r) =>
    mine.map((run) => mean(run.runs.at(-1).rounds[r].losses_nats) - mean(ofStratified(run.seed, rounds[r].step)));
  const kept = rounds.map((_, r) => r).filter((r) => ofStratified(0, rounds[r].step) !== undefined);
  return {
    name,
    x: kept.map((r) => rounds[r].step),
    y: kept.map((r) => mean(at(r))),
    standardError: kept.map((r) => deviation(at(r)) / Math.sqrt(mine.length)),
  };
};
function ofStratified(seed, step) {
  const [run] = own('stratified').filter((one) => one.seed === seed);
  return run.runs[0].rounds.find((round) => round.step === step)?.losses_nats;
}
const share = (name, j) => {
  const mine = own(name);
  const rounds = mine[0].runs[0].rounds;
  return {
    x: rounds.map(({ step }) => step),
    y: rounds.map((_, r) => mean(mine.map((run) => run.runs[0].rounds[r].proportions[j]))),
  };
};
const figure = await chartFigure({
  title: 'Mixing three groups of text',
  subtitle: `Llama, 2 layers of 96, from a base of ${BASE_STEPS} steps on equal shares; ${STEPS} steps of 1,024 tokens in all, ${SEEDS.length} seeds`,
  charts: [
    {
      kind: 'lines',
      chart: {
        title: 'Validation loss beside stratified mixing',
        note: 'Mean of the groups, difference at the same step; Aioli without helper runs. Band: one standard error over seeds.',
        xLabel: 'step',
        yLabel: 'nats above stratified',
        references: [{ value: 0, label: 'stratified' }],
        series: shown.filter((name) => name.startsWith('Aioli')).map(curve),
      },
    },
    {
      kind: 'lines',
      chart: {
        title: 'Proportion of Moby Dick',
        note: 'In the run that learns proportions; mean over seeds.',
        xLabel: 'step',
        yLabel: 'proportion',
        references: [{ value: 1 / 3, label: 'equal' }],
        series: shown.slice(1).map((name) => ({ name, ...share(name, 2) })),
      },
    },
  ],
});
writeFileSync('docs/papers/aioli-text.svg', await plotBytes(figure, 'aioli-text.svg'));

console.log(
  '| method | steps in all | last run | mean perplexity | beside stratified | early | recent | Moby Dick | p |',
);
console.log('|---|---|---|---|---|---|---|---|---|');
for (const { name, budget, perplexity, sd, difference, half, groups, p } of table) {
  const cells = [
    `${perplexity.toFixed(2)} (${sd.toFixed(2)})`,
    name === 'stratified' ? '' : `${difference >= 0 ? '+' : ''}${difference.toFixed(2)} ± ${half.toFixed(2)}`,
    ...groups.map((value) => value.toFixed(2)),
    p.map((value) => value.toFixed(3)).join(', '),
  ];
  console.log(`| ${name} | ${budget.total_steps} | ${budget.final_steps} | ${cells.join(' | ')} |`);
}
