/**
 * What the Vendi score and its kin are said to do (specification of entropy analyses, section D).
 * Claims: the package's two printed values; scores fall as classes are dropped, order infinity follows the most frequent
 * mode and small orders the rare ones; the untruncated score of order 1 goes on growing with the number of items where
 * its truncation and RKE have settled (Ospanov & Farnia 2025); random features give low scores (Ospanov et al. 2024).
 */
import { writeFileSync } from 'node:fs';
import { featureSource } from '../../dist/src/diversity/feature-source.js';
import { gaussianGram } from '../../dist/src/diversity/gaussian-kernel.js';
import { gramSource } from '../../dist/src/diversity/gram-source.js';
import { truncatedSpectrum } from '../../dist/src/diversity/truncated-vendi.js';
import { kernelSpectrum, vendiScore, withUnitTrace } from '../../dist/src/diversity/vendi-score.js';
import { arrayMatrix } from '../../dist/src/formats/feature-matrix.js';
import { drawFrequencies, fourierMap } from '../../dist/src/linalg/random-features.js';
import { openProducts } from '../../dist/src/linalg/tiled-products.js';
import { createRandom } from '../../dist/src/random.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const THREADS = 2;
const products = openProducts({ threads: THREADS });
const rows = [];
const verdicts = [];

function judge(claim, holds, figures) {
  verdicts.push(holds);
  console.log(`${holds ? 'reproduced' : 'not reproduced'}: ${claim} (${figures})`);
}

const spectrumOf = async (source) => withUnitTrace(kernelSpectrum(await source.eigenvalues())).eigenvalues;
const kernel = async (x, n, d, sigma) =>
  spectrumOf(gramSource(await gaussianGram(x, n, d, sigma, products), n, { threads: THREADS }));

// The two values of the package's README.
const points = [0, 0, 10, 10, 20, 20];
const exponential = Float64Array.from({ length: 36 }, (_, at) =>
  Math.exp(-Math.abs(points[Math.floor(at / 6)] - points[at % 6])),
);
const three = Float64Array.of(1, 0.9, 0, 0.9, 1, 0, 0, 0, 1);
const printed = [
  vendiScore(await spectrumOf(gramSource(exponential, 6)), 1),
  vendiScore(await spectrumOf(gramSource(three, 3)), 1),
];
rows.push(['readme', 'exp(-|a-b|)', 'vendi_q1', printed[0]], ['readme', '3 x 3', 'vendi_q1', printed[1]]);
judge(
  'values of the README, 2.9999 and 2.1573',
  Math.abs(printed[0] - 2.9999) < 1e-4 && Math.abs(printed[1] - 2.1573) < 5e-5,
  printed.map((value) => value.toFixed(5)).join(', '),
);

// Labelled Gaussians: ten classes in 32 dimensions, so tight beside the kernel that each counts as about one item.
const D = 32;
const CLASSES = 10;
const ITEMS = 1000;
const SIGMA = 8;
const SPREAD = 0.1;
const centres = (() => {
  const random = createRandom(1);
  return Float64Array.from({ length: CLASSES * D }, () => 4 * random.normal());
})();

/** Items of classes with these shares; the number of items stays the same. */
function sample(shares, seed, n = ITEMS) {
  const random = createRandom(seed);
  const x = new Float64Array(n * D);
  let item = 0;
  let total = 0;
  for (const [label, share] of shares.entries()) {
    total += share;
    for (; item < Math.round(n * total); item++)
      for (let k = 0; k < D; k++) x[item * D + k] = centres[label * D + k] + SPREAD * random.normal();
  }
  return x;
}

const ORDERS = [0.5, 1, 2, Number.POSITIVE_INFINITY];
const scoresOf = async (shares, seed) => {
  const spectrum = await kernel(sample(shares, seed), ITEMS, D, SIGMA);
  return ORDERS.map((q) => vendiScore(spectrum, q));
};

const dropping = [];
for (let kept = CLASSES; kept >= 1; kept--) {
  const scores = await scoresOf(new Array(kept).fill(1 / kept), kept);
  dropping.push({ kept, scores });
  for (const [k, q] of ORDERS.entries()) rows.push(['mode dropping', `${kept} classes`, `vendi_q${q}`, scores[k]]);
}
judge(
  `every order falls as classes are dropped, at ${ITEMS} items`,
  ORDERS.every((_, k) => dropping.every(({ scores }, i) => i === 0 || scores[k] < dropping[i - 1].scores[k])),
  `order 1: ${dropping.map(({ scores }) => scores[1].toFixed(2)).join(', ')}`,
);

// One class grows at the cost of the others; or a class of ten items is dropped.
const even = await scoresOf(new Array(CLASSES).fill(0.1), 50);
const dominated = await scoresOf([0.55, ...new Array(CLASSES - 1).fill(0.05)], 51);
const withRare = await scoresOf([...new Array(CLASSES - 1).fill(0.99 / 9), 0.01], 52);
const withoutRare = await scoresOf([...new Array(CLASSES - 1).fill(1 / 9), 0], 52);
const fall = (from, to) => from.map((value, k) => Math.log(value / to[k]));
const byFrequent = fall(even, dominated);
const byRare = fall(withRare, withoutRare);
ORDERS.forEach((q, k) => {
  rows.push(['one class grows to 55 %', 'fall of the logarithm', `vendi_q${q}`, byFrequent[k]]);
  rows.push(['a class of 1 % is dropped', 'fall of the logarithm', `vendi_q${q}`, byRare[k]]);
});
judge(
  'order infinity falls most when one mode grows frequent',
  byFrequent.every((value, k) => k === ORDERS.length - 1 || value < byFrequent[ORDERS.length - 1]),
  byFrequent.map((value) => value.toFixed(3)).join(', '),
);
judge(
  'the smaller the order, the more it falls when a rare mode is dropped',
  byRare.every((value, k) => k === 0 || value < byRare[k - 1]),
  byRare.map((value) => value.toFixed(4)).join(', '),
);

// Convergence with the number of items: one Gaussian in 32 dimensions and a narrow kernel.
const NARROW = 4;
const T = 50;
const sizes = [250, 500, 1000, 2000, 4000];
const normal = (() => {
  const random = createRandom(7);
  return Float64Array.from({ length: sizes[sizes.length - 1] * D }, () => random.normal());
})();
const growth = [];
for (const n of sizes) {
  const spectrum = await kernel(normal.slice(0, n * D), n, D, NARROW);
  const truncated = vendiScore(truncatedSpectrum(spectrum, T, n), 1);
  const scores = {
    'VS order 1': vendiScore(spectrum, 1),
    [`truncated, t = ${T}`]: truncated,
    RKE: vendiScore(spectrum, 2),
  };
  growth.push({ n, scores });
  for (const [name, value] of Object.entries(scores)) rows.push(['convergence', `${n} items`, name, value]);
}
const names = Object.keys(growth[0].scores);
const last = names.map((name) => growth[growth.length - 1].scores[name] / growth[growth.length - 2].scores[name] - 1);
judge(
  'from 2,000 to 4,000 items the untruncated score grows by more than 5 %, truncated score and RKE by less than 2 %',
  last[0] > 0.05 && Math.abs(last[1]) < 0.02 && Math.abs(last[2]) < 0.02,
  names.map((name, i) => `${name} ${(100 * last[i]).toFixed(2)} %`).join(', '),
);

// Random features: the mean of five draws of the frequencies, at each number of them.
const biased = normal.slice(0, ITEMS * D);
const matrix = arrayMatrix('X', biased, ITEMS, D);
const exact = vendiScore(await kernel(biased, ITEMS, D, NARROW), 1);
rows.push(['random features', 'exact', 'vendi_q1', exact]);
const features = [];
for (const frequencies of [32, 64, 128, 256, 512, 1024]) {
  const values = [];
  for (let seed = 0; seed < 5; seed++) {
    const omega = drawFrequencies(D, frequencies, NARROW, seed);
    const map = fourierMap(matrix, omega, frequencies, { products });
    const source = featureSource(matrix, map, { path: 'fkea', products });
    values.push(vendiScore(await spectrumOf(source), 1));
  }
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const spread = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1);
  features.push({ frequencies, mean, error: Math.sqrt(spread / values.length) });
  rows.push(['random features', `D = ${frequencies}`, 'vendi_q1', mean]);
}
judge(
  'scores of random features are low and rise with D towards the exact score',
  features.every(({ mean }, i) => mean < exact && (i === 0 || mean > features[i - 1].mean)),
  `${features.map(({ frequencies, mean }) => `${frequencies}: ${mean.toFixed(1)}`).join(', ')}, exact ${exact.toFixed(1)}`,
);
await products.close();

const quoted = (text) => (/[",]/.test(String(text)) ? `"${text}"` : String(text));
const csv = ['experiment,setting,measure,value', ...rows.map((row) => row.map(quoted).join(','))];
writeFileSync('docs/papers/vendi-score.csv', `${csv.join('\n')}\n`);
const figure = await chartFigure({
  title: 'The Vendi score under known changes',
  subtitle: `Gaussian mixtures in ${D} dimensions, Gaussian kernel`,
  charts: [
    {
      kind: 'lines',
      chart: {
        title: 'Classes dropped, items kept',
        note: `${ITEMS} items of 10 to 1 classes, sigma ${SIGMA}.`,
        xLabel: 'classes',
        yLabel: 'effective number of items',
        yScale: 'log',
        series: ORDERS.map((q, k) => ({
          name: `order ${q === Number.POSITIVE_INFINITY ? 'inf' : q}`,
          x: dropping.map(({ kept }) => kept),
          y: dropping.map(({ scores }) => scores[k]),
        })),
      },
    },
    {
      kind: 'lines',
      chart: {
        title: 'Growth with the number of items',
        note: `One Gaussian, sigma ${NARROW}.`,
        xLabel: 'items',
        yLabel: 'effective number of items',
        xScale: 'log',
        yScale: 'log',
        series: names.map((name) => ({
          name,
          x: sizes,
          y: growth.map(({ scores }) => scores[name]),
        })),
      },
    },
    {
      kind: 'lines',
      chart: {
        title: 'Bias of random features',
        note: `The same Gaussian, ${ITEMS} items; mean and standard error of five draws.`,
        xLabel: 'frequencies D',
        yLabel: 'effective number of items',
        xScale: 'position',
        yZero: true,
        series: [
          {
            name: 'FKEA',
            x: features.map(({ frequencies }) => frequencies),
            y: features.map(({ mean }) => mean),
            standardError: features.map(({ error }) => error),
          },
        ],
        references: [{ label: 'exact', value: exact }],
      },
    },
  ],
});
writeFileSync('docs/papers/vendi-score.svg', await plotBytes(figure, 'vendi-score.svg'));
if (!verdicts.every(Boolean)) console.log('not all claims were reproduced');
