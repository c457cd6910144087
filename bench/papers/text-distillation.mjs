/**
 * Distillation of a language model (issue of Plackett-Luce distillation on text): a student with half the layers of the
 * bundled llama model, its layers 0 and 2, taught by the whole model with each loss for equal steps from the same start on
 * the same batches. A seed is an order of the windows. Figures are of text that neither has seen.
 *
 * node bench/papers/text-distillation.mjs [--steps 300] [--seeds 3] [--bin bin/surprisal.js]
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const { values } = parseArgs({
  options: {
    steps: { type: 'string', default: '300' },
    seeds: { type: 'string', default: '3' },
    bin: { type: 'string', default: 'bin/surprisal.js' },
  },
});
const STEPS = Number(values.steps);
const SEEDS = Array.from({ length: Number(values.seeds) }, (_, seed) => seed);
const MODEL = 'fixtures/models/llama-sotu';
const LOSSES = [
  ['CE', 'ce'],
  ['KD, T = 1', 'kd(T=1)'],
  ['KD, T = 2', 'kd(T=2)'],
  ['CE + KD, halves', '0.5*ce + 0.5*kd(T=1)'],
  ['PLD', 'pld'],
  ['PLD, tau = 2', 'pld(tau=2)'],
  ['PLD of the top 64 and the tail', 'pld-partial(K=64)'],
];

const folder = mkdtempSync(join(tmpdir(), 'surprisal-text-'));
const runs = [];
for (const [name, loss] of LOSSES) {
  for (const seed of SEEDS) {
    const out = join(folder, 'student');
    const report = join(folder, 'report.json');
    execFileSync(
      process.execPath,
      [
        ...[values.bin, 'distill-pld', 'train', '--student', 'every:2', '--teacher', MODEL],
        ...['--data', 'fixtures/training/sotu_part.jsonl.gz', '--eval-data', 'fixtures/text/heldout_text.jsonl'],
        ...['--context', '128', '--batch-size', '8', '--steps', String(STEPS), '--learning-rate', '0.001'],
        ...['--warmup', '20', '--eval-every', '50', '--keep', 'last', '--seed', String(seed), '--loss', loss],
        ...['--out', out, '--report', report, '--force', '--quiet'],
      ],
      { stdio: 'inherit' },
    );
    const { evaluation, curve } = JSON.parse(readFileSync(report, 'utf8'));
    runs.push({ name, seed, evaluation, curve });
    const { nll_nats, perplexity } = evaluation.after;
    console.error(`${name}, seed ${seed}: ${nll_nats.mean.toFixed(4)} nats, perplexity ${perplexity.value.toFixed(2)}`);
  }
}
rmSync(folder, { recursive: true, force: true });

const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
const deviation = (list) =>
  Math.sqrt(mean(list.map((value) => (value - mean(list)) ** 2)) * (list.length / (list.length - 1)));
const of = (name, figure) => runs.filter((run) => run.name === name).map((run) => figure(run.evaluation.after));
const FIGURES = {
  perplexity: ({ perplexity }) => perplexity.value,
  nll_nats: ({ nll_nats }) => nll_nats.mean,
  kl_nats: ({ teacher }) => teacher.kl_nats.mean,
  agreement: ({ teacher }) => teacher.top1_agreement.mean,
  calibration_error: ({ calibration_error }) => calibration_error,
};
const header = ['loss', ...Object.keys(FIGURES).flatMap((figure) => [figure, `${figure}_sd`])];
const rows = LOSSES.map(([name]) => [
  `"${name}"`,
  ...Object.values(FIGURES).flatMap((figure) => [mean(of(name, figure)), deviation(of(name, figure))]),
]);
writeFileSync('docs/papers/text-distillation.csv', `${[header, ...rows].map((row) => row.join(',')).join('\n')}\n`);

const held = (name) => {
  const own = runs.filter((run) => run.name === name);
  const judged = own[0].curve.filter((point) => point.eval_loss_nats !== null).map((point) => point.step);
  const at = (step) => own.map(({ curve }) => curve.find((point) => point.step === step).eval_loss_nats);
  return {
    name,
    x: judged,
    y: judged.map((step) => mean(at(step))),
    standardError: judged.map((step) => deviation(at(step)) / Math.sqrt(own.length)),
  };
};
const [first] = runs;
const teacher = Math.exp(first.evaluation.after.teacher.nll_nats.mean);
const figure = await chartFigure({
  title: 'Half the layers, taught by the whole model',
  subtitle: `Bundled llama model, layers 0 and 2 of 4, ${STEPS} steps of 1,024 tokens, ${SEEDS.length} orders of the data`,
  charts: [
    {
      kind: 'lines',
      chart: {
        title: 'Held-out loss',
        note: `Before training ${first.evaluation.before.nll_nats.mean.toFixed(2)} nats, the teacher ${Math.log(teacher).toFixed(2)}.`,
        xLabel: 'step',
        yLabel: 'cross-entropy, nats',
        series: LOSSES.map(([name]) => held(name)),
      },
    },
  ],
});
writeFileSync('docs/papers/text-distillation.svg', await plotBytes(figure, 'text-distillation.svg'));

const before = first.evaluation.before;
console.log(`before training: perplexity ${before.perplexity.value.toFixed(2)}; the teacher: ${teacher.toFixed(2)}\n`);
console.log('| loss | perplexity | nats | KL from the teacher | agreement | calibration error |');
console.log('|---|---|---|---|---|---|');
for (const [name] of LOSSES) {
  const cell = (key, digits) => {
    const list = of(name, FIGURES[key]);
    return `${mean(list).toFixed(digits)} ± ${deviation(list).toFixed(digits)}`;
  };
  console.log(
    `| ${name} | ${cell('perplexity', 2)} | ${cell('nll_nats', 4)} | ${cell('kl_nats', 4)} | ${cell('agreement', 4)} | ${cell('calibration_error', 4)} |`,
  );
}
