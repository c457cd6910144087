/**
 * Recovery of merged and compressed experts by training (specification of expert merging, section 5; MC-SMoE, Li et al. 2024;
 * LoSparse, Li et al. 2023). The bundled model of 8 experts becomes one of 4, by M-SMoE and with the layers refitted, and each
 * is trained for equal steps from the same start on the same batches by cross-entropy alone, by the loss of MC-SMoE, and by PLD.
 * Then every matrix of its experts becomes rank 32 plus a tenth of the rows, at equal bytes: without training, trained as it
 * was cut, and cut while it is trained. A seed is an order of the windows. Figures are of text that no model has seen.
 *
 * node bench/papers/expert-recovery.mjs [--steps 100] [--seeds 2] [--work folder] [--bin bin/surprisal.js]
 * With --work, models and reports stay in a folder, and what is there is not made again.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const { values } = parseArgs({
  options: {
    steps: { type: 'string', default: '100' },
    seeds: { type: 'string', default: '2' },
    work: { type: 'string' },
    bin: { type: 'string', default: 'bin/surprisal.js' },
  },
});
const STEPS = Number(values.steps);
const SEEDS = Array.from({ length: Number(values.seeds) }, (_, seed) => seed);
const MODEL = 'fixtures/models/mixtral-sotu-moby';
const TEXT = 'fixtures/training/sotu_part.jsonl.gz';
const RANK = '32';
const SHARE = '0.1';
const MC_SMOE = 'ce + 0.2*kd(T=2,norm=sequences)';

const folder = values.work ?? mkdtempSync(join(tmpdir(), 'surprisal-recovery-'));
mkdirSync(folder, { recursive: true });
const surprisal = (...words) => execFileSync(process.execPath, [values.bin, ...words, '--quiet'], { stdio: 'inherit' });

const merged = join(folder, 'merged');
const refitted = join(folder, 'refitted');
const compressed = join(folder, 'compressed');
const merge = ['merge-moe', 'merge', '--model', MODEL, '--experts', '4', '--router-rows', 'mean', '--data', TEXT];
const calibration = ['--calib-tokens', '32768', '--calib-length', '256'];
const unless = (path, ...words) => existsSync(path) || surprisal(...words, '--out', path);
unless(merged, ...merge, ...calibration);
unless(refitted, ...merge, ...calibration, '--refit', 'layer');
unless(compressed, 'merge-moe', 'compress', '--model', MODEL, '--rank', RANK, '--keep-rows', SHARE);

const loSparse = ['--losparse-rank', RANK, '--losparse-share', SHARE];
const LOSSES = [
  ['CE', 'ce'],
  ['CE + 0.2 KL', MC_SMOE],
  ['PLD', 'pld'],
];
const CASES = [
  ...LOSSES.map(([name, loss]) => ({ chart: 'merged', start: 'M-SMoE, 4 experts', name, loss, model: merged })),
  ...LOSSES.map(([name, loss]) => ({ chart: 'merged', start: 'refitted, 4 experts', name, loss, model: refitted })),
  { chart: 'parts', start: 'rank 32 and a tenth', name: 'cut, then trained', loss: MC_SMOE, model: compressed },
  {
    chart: 'parts',
    start: 'rank 32 and a tenth',
    name: 'cut in training',
    loss: MC_SMOE,
    model: MODEL,
    options: loSparse,
  },
  {
    chart: 'parts',
    start: 'refitted, rank 32 and a tenth',
    name: 'cut in training',
    loss: MC_SMOE,
    model: refitted,
    options: loSparse,
  },
];

/** Bytes of the routed experts of a directory. */
function expertBytes(directory) {
  const file = readFileSync(join(directory, 'model.safetensors'));
  const header = JSON.parse(file.subarray(8, 8 + Number(file.readBigUInt64LE(0))).toString());
  const of = ([name, { data_offsets: [from, to] = [0, 0] }]) => (name.includes('.experts.') ? to - from : 0);
  return Object.entries(header).reduce((sum, entry) => sum + of(entry), 0);
}

const runs = [];
for (const seed of SEEDS) {
  for (const [place, { start, name, loss, model, options = [] }] of CASES.entries()) {
    const out = join(folder, `out-${place}-${seed}-${STEPS}`);
    const report = `${out}.json`;
    unless(
      out,
      ...['merge-moe', 'recover', '--model', model, '--teacher', MODEL, '--data', TEXT, '--context', '128'],
      ...[
        '--eval-data',
        'fixtures/text/heldout_text.jsonl',
        '--eval-every',
        String(Math.ceil(STEPS / 4)),
        '--keep',
        'last',
      ],
      ...[
        '--steps',
        String(STEPS),
        '--warmup',
        String(Math.floor(STEPS / 10)),
        '--learning-rate',
        '0.001',
        '--seed',
        String(seed),
      ],
      ...['--loss', loss, '--report', report, '--force', ...options],
    );
    const { evaluation, curve } = JSON.parse(readFileSync(report, 'utf8'));
    runs.push({ place, seed, evaluation, curve, bytes: expertBytes(out), untrained: expertBytes(model) });
    const { perplexity, teacher } = evaluation.after;
    console.error(
      `${start}, ${name}, seed ${seed}: ${perplexity.value.toFixed(2)}, KL ${teacher.kl_nats.mean.toFixed(4)}`,
    );
  }
}
if (values.work === undefined) rmSync(folder, { recursive: true, force: true });

const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
const deviation = (list) =>
  list.length < 2
    ? 0
    : Math.sqrt(mean(list.map((value) => (value - mean(list)) ** 2)) * (list.length / (list.length - 1)));
const FIGURES = {
  perplexity: ({ perplexity }) => perplexity.value,
  nll_nats: ({ nll_nats }) => nll_nats.mean,
  kl_nats: ({ teacher }) => teacher.kl_nats.mean,
  agreement: ({ teacher }) => teacher.top1_agreement.mean,
};
const ofCase = (place) => runs.filter((run) => run.place === place);
const row = (start, name, loss, bytes, evaluations) => ({
  start,
  name,
  loss,
  bytes,
  cells: Object.values(FIGURES).map((figure) => evaluations.map(figure)),
});
const rows = CASES.flatMap(({ start, name, loss, options }, place) => {
  const own = ofCase(place);
  const [first] = own;
  const trained = row(
    start,
    name,
    loss,
    first.bytes,
    own.map(({ evaluation }) => evaluation.after),
  );
  const isFirst = CASES.findIndex((other) => other.start === start) === place;
  if (!isFirst || options) return [trained];
  return [row(start, 'no training', '', first.untrained, [first.evaluation.before]), trained];
});
const header = [
  'model',
  'training',
  'loss',
  'expert_bytes',
  ...Object.keys(FIGURES).flatMap((key) => [key, `${key}_sd`]),
];
const lines = rows.map(({ start, name, loss, bytes, cells }) =>
  [`"${start}"`, `"${name}"`, `"${loss}"`, bytes, ...cells.flatMap((list) => [mean(list), deviation(list)])].join(','),
);
writeFileSync('docs/papers/expert-recovery.csv', `${[header.join(','), ...lines].join('\n')}\n`);

const series = (chart) =>
  CASES.flatMap((one, place) => {
    if (one.chart !== chart) return [];
    const own = ofCase(place);
    const judged = own[0].curve.filter(({ eval_loss_nats }) => eval_loss_nats !== null).map(({ step }) => step);
    const at = (step) => own.map(({ curve }) => curve.find((point) => point.step === step).eval_loss_nats);
    const before = own.map(({ evaluation }) => evaluation.before.nll_nats.mean);
    return [
      {
        name: `${one.start}: ${one.name}`,
        x: [0, ...judged],
        y: [mean(before), ...judged.map((step) => mean(at(step)))],
      },
    ];
  });
const teacher = runs[0].evaluation.before.teacher.nll_nats.mean;
const lineChart = (title, chart) => ({
  kind: 'lines',
  chart: {
    title,
    note: `The original ${teacher.toFixed(2)}.`,
    xLabel: 'step',
    yLabel: 'held-out cross-entropy, nats',
    series: series(chart),
  },
});
const figure = await chartFigure({
  title: 'Experts recovered by training',
  subtitle: `Bundled model of 8 experts, ${STEPS} steps of 1,024 tokens, ${SEEDS.length === 1 ? 'one order' : `${SEEDS.length} orders`} of the data`,
  charts: [lineChart('8 experts merged to 4', 'merged'), lineChart('Experts as low rank and sparse rows', 'parts')],
});
writeFileSync('docs/papers/expert-recovery.svg', await plotBytes(figure, 'expert-recovery.svg'));

console.log(`the original: perplexity ${Math.exp(teacher).toFixed(2)}\n`);
console.log('| experts | training | bytes of the experts | perplexity | KL from the original | agreement |');
console.log('|---|---|---|---|---|---|');
for (const { start, name, bytes, cells } of rows) {
  const [perplexity, , kl, agreement] = cells.map(
    (list) => (digits) =>
      list.length < 2
        ? mean(list).toFixed(digits)
        : `${mean(list).toFixed(digits)} ± ${deviation(list).toFixed(digits)}`,
  );
  console.log(`| ${start} | ${name} | ${bytes} | ${perplexity(2)} | ${kl(4)} | ${agreement(3)} |`);
}
