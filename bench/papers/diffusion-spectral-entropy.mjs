/**
 * Two experiments on diffusion spectral entropy (Liao et al. 2023; specification of entropy analyses, section C).
 *
 * Noise: a helix of 300 points in d = 3, 20, 100, 500 dimensions under isotropic noise of one total variance. Claims: DSE
 * at t = 5 does not depend on d, while the classic entropy of binned coordinates is log2 n from d = 20 on.
 *
 * Training: a small network on digits with true and with shuffled labels. Claims: on held-out digits DSMI(Z; Y) of the
 * last hidden layer rises with true labels and stays flat with shuffled ones; DSE rises during training. DSE is measured
 * at the median distance of each epoch, which forgets the scale, and at that of epoch 0, which does not.
 */
import { writeFileSync } from 'node:fs';
import { createRandom } from '../../dist/src/random.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';
import { measureRepresentations } from '../../dist/src/representations/representations-job.js';
import { representationsBody } from '../../dist/src/representations/representations-report.js';
import { drawDigits } from '../digits.mjs';

const SETTINGS = {
  sigma: { kind: 'median' },
  times: [1],
  operator: 'K',
  method: 'exact',
  mostRows: 10_000,
  variants: [],
  neighbours: 10,
  bins: 2,
  constantColumns: 'error',
  sweep: [],
  curveSizes: [],
  repetitions: 5,
  categories: 10,
  probes: 64,
  features: 512,
  landmarks: 512,
  seed: 0,
  threads: 2,
  maxMemoryBytes: 2 ** 31,
};

/** The first set of the report on one matrix `[rows, columns]`. */
async function measure(data, rows, columns, settings, labels) {
  const all = { ...SETTINGS, ...settings };
  const found = await measureRepresentations(
    {
      sets: [{ name: 'points', layer: null, source: { kind: 'array', name: 'points', data, rows, columns } }],
      references: labels ? [{ kind: 'labels', name: 'labels', labels }] : [],
      settings: all,
    },
    () => undefined,
  );
  return representationsBody(found, null, all).sets[0];
}

// Noise ----------------------------------------------------------------------------------------------------------------

const POINTS = 300;
const TURNS = 2;
const RADIUS = 5;
const RISE = 10;
const TOTAL_VARIANCE = 0.25;
const DIMENSIONS = [3, 20, 100, 500];
const DRAWS = 10;

/** Points along a helix in the first three dimensions, plus normal noise of variance TOTAL_VARIANCE / d in each. */
function noisyHelix(d, random) {
  const points = new Float64Array(POINTS * d);
  const deviation = Math.sqrt(TOTAL_VARIANCE / d);
  for (let i = 0; i < POINTS; i++) {
    const share = i / (POINTS - 1);
    const angle = 2 * Math.PI * TURNS * share;
    points.set([RADIUS * Math.cos(angle), RADIUS * Math.sin(angle), RISE * share], i * d);
    for (let j = 0; j < d; j++) points[i * d + j] += deviation * random.normal();
  }
  return points;
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const deviation = (values) => {
  const centre = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1));
};

const noise = [];
for (const d of DIMENSIONS) {
  const draws = { t1: [], t5: [], classic: [] };
  for (let draw = 0; draw < DRAWS; draw++) {
    const points = noisyHelix(d, createRandom(7).fork(d).fork(draw));
    const settings = { sigma: { kind: 'value', sigma: 1 }, times: [1, 5], variants: ['shannon'] };
    const { entropies, variants } = await measure(points, POINTS, d, settings);
    draws.t1.push(entropies[0].dse_bits);
    draws.t5.push(entropies[1].dse_bits);
    draws.classic.push(variants.shannon_2_bins_entropy_bits);
  }
  noise.push({
    d,
    ...Object.fromEntries(
      Object.entries(draws).flatMap(([name, values]) => [
        [name, mean(values)],
        [`${name}Std`, deviation(values)],
      ]),
    ),
  });
}

// Training -------------------------------------------------------------------------------------------------------------

const TRAINED = 1000;
const HELD_OUT = 1000;
const SIDE = 14;
const WIDTHS = [SIDE * SIDE, 128, 64, 10];
const EPOCHS = 60;
const BATCH = 50;
const RATE = 1e-3;
const SEEDS = [1, 2, 3];
const LOOKS = [0, 1, 2, 4, 8, 15, 30, 45, 60];

/** Means of 2 x 2 pixels. */
function halved(points, n) {
  const small = new Float64Array(n * SIDE * SIDE);
  for (let i = 0; i < n; i++)
    for (let y = 0; y < 2 * SIDE; y++)
      for (let x = 0; x < 2 * SIDE; x++)
        small[i * SIDE * SIDE + (y >> 1) * SIDE + (x >> 1)] += points[i * 784 + y * 28 + x] / 4;
  return small;
}

/** Weights `[inputs, outputs]` and biases of He et al. 2015, with the moments of Adam. */
function createNetwork(random) {
  return WIDTHS.slice(1).map((outputs, l) => {
    const inputs = WIDTHS[l];
    const size = (inputs + 1) * outputs;
    const parameters = new Float64Array(size);
    for (let i = 0; i < inputs * outputs; i++) parameters[i] = random.normal() * Math.sqrt(2 / inputs);
    return { inputs, outputs, parameters, first: new Float64Array(size), second: new Float64Array(size) };
  });
}

/** Activations of every layer for `count` inputs; the last one are logits. */
function forward(network, x, count) {
  const activations = [x];
  network.forEach(({ inputs, outputs, parameters }, l) => {
    const from = activations[l];
    const to = new Float64Array(count * outputs);
    for (let r = 0; r < count; r++) {
      const out = to.subarray(r * outputs, (r + 1) * outputs);
      out.set(parameters.subarray(inputs * outputs));
      for (let i = 0; i < inputs; i++) {
        const value = from[r * inputs + i];
        if (value === 0) continue;
        for (let o = 0; o < outputs; o++) out[o] += value * parameters[i * outputs + o];
      }
      if (l < network.length - 1) for (let o = 0; o < outputs; o++) out[o] = Math.max(0, out[o]);
    }
    activations.push(to);
  });
  return activations;
}

/** One step of Adam (Kingma & Ba 2015) on the mean cross-entropy of a batch. */
function trainStep(network, x, labels, count, step) {
  const activations = forward(network, x, count);
  let gradient = activations[network.length];
  const classes = WIDTHS[WIDTHS.length - 1];
  for (let r = 0; r < count; r++) {
    const row = gradient.subarray(r * classes, (r + 1) * classes);
    const most = Math.max(...row);
    let total = 0;
    for (let c = 0; c < classes; c++) {
      row[c] = Math.exp(row[c] - most);
      total += row[c];
    }
    for (let c = 0; c < classes; c++) row[c] = (row[c] / total - (labels[r] === c ? 1 : 0)) / count;
  }
  for (let l = network.length - 1; l >= 0; l--) {
    const { inputs, outputs, parameters, first, second } = network[l];
    const from = activations[l];
    const slopes = new Float64Array(parameters.length);
    const back = new Float64Array(count * inputs);
    for (let r = 0; r < count; r++) {
      const out = gradient.subarray(r * outputs, (r + 1) * outputs);
      for (let o = 0; o < outputs; o++) slopes[inputs * outputs + o] += out[o];
      for (let i = 0; i < inputs; i++) {
        const value = from[r * inputs + i];
        if (value === 0) continue;
        let sum = 0;
        for (let o = 0; o < outputs; o++) {
          slopes[i * outputs + o] += value * out[o];
          sum += parameters[i * outputs + o] * out[o];
        }
        back[r * inputs + i] = sum;
      }
    }
    const rate = (RATE * Math.sqrt(1 - 0.999 ** step)) / (1 - 0.9 ** step);
    for (let i = 0; i < parameters.length; i++) {
      first[i] = 0.9 * first[i] + 0.1 * slopes[i];
      second[i] = 0.999 * second[i] + 0.001 * slopes[i] * slopes[i];
      parameters[i] -= (rate * first[i]) / (Math.sqrt(second[i]) + 1e-8);
    }
    gradient = back;
  }
}

function accuracy(logits, labels) {
  const classes = WIDTHS[WIDTHS.length - 1];
  let right = 0;
  labels.forEach((label, r) => {
    const row = logits.subarray(r * classes, (r + 1) * classes);
    if (row.indexOf(Math.max(...row)) === label) right++;
  });
  return right / labels.length;
}

const { points, labels } = drawDigits(TRAINED + HELD_OUT, createRandom(11));
const images = halved(points, TRAINED + HELD_OUT);
const trainX = images.subarray(0, TRAINED * SIDE * SIDE);
const heldX = images.subarray(TRAINED * SIDE * SIDE);
const heldLabels = labels.slice(TRAINED);
const heldClasses = { kind: 'classes', codes: heldLabels, names: Array.from({ length: 10 }, (_, c) => String(c)) };

const training = [];
for (const shuffled of [false, true]) {
  for (const seed of SEEDS) {
    const random = createRandom(100 + seed);
    const network = createNetwork(random.fork(0));
    const order = random.fork(1).permutation(TRAINED);
    const targets = Int32Array.from({ length: TRAINED }, (_, i) => labels[shuffled ? order[i] : i]);
    let step = 0;
    let firstSigma;
    for (let epoch = 0; epoch <= EPOCHS; epoch++) {
      if (LOOKS.includes(epoch)) {
        const held = forward(network, heldX, HELD_OUT);
        const hidden = held[network.length - 1];
        const width = WIDTHS[WIDTHS.length - 2];
        const found = await measure(hidden, HELD_OUT, width, {}, heldClasses);
        firstSigma ??= found.sigma;
        const fixed = await measure(hidden, HELD_OUT, width, { sigma: { kind: 'value', sigma: firstSigma } });
        training.push({
          labels: shuffled ? 'shuffled' : 'true',
          seed,
          epoch,
          trainAccuracy: accuracy(forward(network, trainX, TRAINED)[network.length], targets),
          heldAccuracy: accuracy(held[network.length], heldLabels),
          dse: found.entropies[0].dse_bits,
          dseFixed: fixed.entropies[0].dse_bits,
          dsmi: found.information[0].by_time[0].dsmi_bits,
        });
      }
      const mixed = random.fork(2 + epoch).permutation(TRAINED);
      for (let at = 0; at < TRAINED && epoch < EPOCHS; at += BATCH) {
        const x = new Float64Array(BATCH * SIDE * SIDE);
        const y = new Int32Array(BATCH);
        for (let r = 0; r < BATCH; r++) {
          const from = mixed[at + r];
          x.set(trainX.subarray(from * SIDE * SIDE, (from + 1) * SIDE * SIDE), r * SIDE * SIDE);
          y[r] = targets[from];
        }
        trainStep(network, x, y, BATCH, ++step);
      }
    }
  }
}

// Results --------------------------------------------------------------------------------------------------------------

writeFileSync(
  'docs/papers/diffusion-spectral-entropy-noise.csv',
  `${[
    'd,dse_t5_bits,dse_t5_bits_std,dse_t1_bits,dse_t1_bits_std,shannon_2_bins_bits,shannon_2_bins_bits_std',
    ...noise.map((r) => [r.d, r.t5, r.t5Std, r.t1, r.t1Std, r.classic, r.classicStd].join(',')),
  ].join('\n')}\n`,
);
writeFileSync(
  'docs/papers/diffusion-spectral-entropy-training.csv',
  `${[
    'labels,seed,epoch,train_accuracy,held_out_accuracy,dse_bits,dse_first_sigma_bits,dsmi_labels_bits',
    ...training.map((r) => Object.values(r).join(',')),
  ].join('\n')}\n`,
);

const curve = (kind, key) =>
  LOOKS.map((epoch) => training.filter((r) => r.labels === kind && r.epoch === epoch).map((r) => r[key]));
const line = (kind, key) => ({
  name: `${kind} labels`,
  x: LOOKS,
  y: curve(kind, key).map(mean),
  standardError: curve(kind, key).map(deviation),
});
const overTraining = (title, key, yLabel) => ({
  kind: 'lines',
  chart: {
    title,
    note: 'Held-out digits; bands: one standard deviation over three seeds.',
    xLabel: 'epochs',
    yLabel,
    yZero: true,
    series: [line('true', key), line('shuffled', key)],
  },
});
const figure = await chartFigure({
  title: 'Diffusion spectral entropy under noise and during training',
  subtitle: `Helix of ${POINTS} points, sigma 1; network ${WIDTHS.join('-')} on ${TRAINED} digits, bandwidth median, t = 1`,
  charts: [
    {
      kind: 'lines',
      chart: {
        title: 'Noise of one total variance in d dimensions',
        note: 'Bands: one standard deviation over ten draws of the noise.',
        xLabel: 'dimensions',
        yLabel: 'bits',
        xScale: 'log',
        yZero: true,
        series: [
          ['DSE, t = 5', 't5'],
          ['DSE, t = 1', 't1'],
          ['2-bin entropy', 'classic'],
        ].map(([name, key]) => ({
          name,
          x: DIMENSIONS,
          y: noise.map((r) => r[key]),
          standardError: noise.map((r) => r[`${key}Std`]),
        })),
        references: [{ label: 'log2 n', value: Math.log2(POINTS) }],
      },
    },
    overTraining('DSMI of the last hidden layer with the label', 'dsmi', 'bits'),
    overTraining('Accuracy', 'heldAccuracy', 'share'),
    overTraining('DSE of the last hidden layer, median bandwidth of each epoch', 'dse', 'bits'),
    overTraining('DSE of the last hidden layer, bandwidth of epoch 0', 'dseFixed', 'bits'),
  ],
});
writeFileSync('docs/papers/diffusion-spectral-entropy.svg', await plotBytes(figure, 'x.svg'));

for (const r of noise) {
  const cells = [r.t5, r.t1, r.classic].map((value) => value.toFixed(3).padStart(9));
  console.log(`d = ${String(r.d).padStart(3)}   DSE(t=5), DSE(t=1), 2-bin entropy ${cells.join('')}`);
}
for (const kind of ['true', 'shuffled']) {
  for (const key of ['dsmi', 'dse', 'dseFixed', 'heldAccuracy', 'trainAccuracy']) {
    const values = curve(kind, key).map((each) => mean(each).toFixed(3).padStart(7));
    console.log(`${kind.padEnd(9)}${key.padEnd(14)}${values.join('')}`);
  }
}
const verdict = (claim, holds) => console.log(`${claim}: ${holds ? 'reproduced' : 'not reproduced'}`);
const range = (key) => Math.max(...noise.map((r) => r[key])) - Math.min(...noise.map((r) => r[key]));
verdict(`DSE(t=5) differs by ${range('t5').toFixed(3)} bits over d`, range('t5') < 0.05);
verdict(
  '2-bin entropy is log2 n from d = 20 on',
  noise.filter((r) => r.d >= 20).every((r) => Math.log2(POINTS) - r.classic < 0.01),
);
const gains = (kind, key) =>
  SEEDS.map((seed) => {
    const own = training.filter((r) => r.labels === kind && r.seed === seed);
    return own[own.length - 1][key] - own[0][key];
  });
const text = (values) => values.map((value) => value.toFixed(3)).join(', ');
const [up, flat] = [gains('true', 'dsmi'), gains('shuffled', 'dsmi')];
verdict(`DSMI(Z; Y) with true labels changes by ${text(up)} bits`, Math.min(...up) > 0.2);
verdict(
  `DSMI(Z; Y) with shuffled labels changes by ${text(flat)} bits`,
  Math.max(...flat.map(Math.abs)) < 0.25 * Math.min(...up.map(Math.abs)),
);
for (const [key, name] of [
  ['dseFixed', 'the bandwidth of epoch 0'],
  ['dse', 'the median bandwidth of each epoch'],
]) {
  const rise = gains('true', key);
  verdict(`DSE rises with true labels at ${name}: ${text(rise)} bits`, Math.min(...rise) > 0);
}
