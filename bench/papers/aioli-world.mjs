/**
 * Aioli (Chen et al., ICLR 2025) in a world whose mixing law is known: three groups, L <- L - A p in every step, losses measured with
 * noise. Aioli measures A by its probes; DoReMi's row of the framework has a diagonal matrix, the excess over a reference, which is
 * wrong here, because one group helps the others more than itself. Uniform proportions are the measure of both. All take the same steps.
 *
 * node bench/papers/aioli-world.mjs [--seeds 20] [--noise 0.0001]
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { probeMixture, probeMixtures } from '../../dist/src/fusion/mixing/probe-mixtures.js';
import { mixingMethod } from '../../dist/src/fusion/mixing/rows/registry.js';
import { createRandom } from '../../dist/src/random.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const { values } = parseArgs({
  options: { seeds: { type: 'string', default: '20' }, noise: { type: 'string', default: '0.0001' } },
});
const SEEDS = Number(values.seeds);
const NOISE = Number(values.noise);
const K = 3;
const GROUPS = ['hub', 'own', 'hard'];
/** Drop a step, row = evaluated group, column = trained group: the hub helps all, the hard group hardly itself. */
const A = Float64Array.from([8, 1, 0.5, 5, 3, 0.5, 6, 1, 1], (x) => x * 1e-4);
const START = [4, 3.5, 5];
/** Losses of DoReMi's reference: its greatest excess is on the hard group. */
const REFERENCE = [3.7, 3.2, 3];
const ROUNDS = 20;
const ROUND = 250;
const [SWEEPS, PROBE_STEPS, GAMMA] = [4, 6, 0.5];

/** A world with its losses; `train` moves them, `measure` adds noise. */
function createWorld(random, noise = NOISE) {
  const losses = Float64Array.from(START);
  return {
    losses,
    train(p, steps) {
      for (let i = 0; i < K; i++) for (let j = 0; j < K; j++) losses[i] -= steps * A[i * K + j] * p[j];
    },
    measure: () => losses.map((loss) => loss + noise * random.normal()),
  };
}

const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
const deviation = (list) =>
  Math.sqrt(mean(list.map((value) => (value - mean(list)) ** 2)) * (list.length / Math.max(1, list.length - 1)));
const meanLoss = (world) => mean([...world.losses]);

function uniform(seed) {
  const world = createWorld(createRandom(seed));
  const course = [];
  for (let round = 0; round < ROUNDS; round++) {
    course.push(meanLoss(world));
    world.train(new Float64Array(K).fill(1 / K), ROUND);
  }
  return { loss: meanLoss(world), course: [...course, meanLoss(world)], p: new Float64Array(K).fill(1 / K) };
}

/** Relative error of a matrix against the steps of a probe times A. */
function relativeError(matrix) {
  let [apart, power] = [0, 0];
  matrix.forEach((entry, e) => {
    apart += (entry - PROBE_STEPS * A[e]) ** 2;
    power += (PROBE_STEPS * A[e]) ** 2;
  });
  return Math.sqrt(apart / power);
}

function aioli(seed, own, noise = NOISE) {
  const random = createRandom(seed);
  const world = createWorld(random, noise);
  const method = mixingMethod('aioli');
  const parameters = { ...method.parameters(K), gamma: GAMMA, ...own };
  const mixer = method.create({ groups: GROUPS, parameters, seed });
  const mixtures = probeMixtures(K, GAMMA);
  const course = [];
  const found = [];
  for (let round = 0; round < ROUNDS; round++) {
    course.push(meanLoss(world));
    const start = world.measure();
    const probes = [];
    for (let sweep = 0; sweep < SWEEPS; sweep++) {
      for (const group of random.permutation(K)) {
        world.train(probeMixture(mixtures, group), PROBE_STEPS);
        probes.push({ group, losses: world.measure() });
      }
    }
    found.push(mixer.update({ kind: 'probes', start, probes }));
    world.train(mixer.proportions, ROUND - SWEEPS * K * PROBE_STEPS);
  }
  const average = found[0].matrix.map((_, e) => mean(found.map(({ matrix }) => matrix[e])));
  return {
    loss: meanLoss(world),
    course: [...course, meanLoss(world)],
    p: mixer.proportions,
    error: relativeError(average),
    roundError: mean(found.map(({ matrix }) => relativeError(matrix))),
    signalToNoise: mean(found.map(({ signalToNoise }) => signalToNoise)),
    matrix: average,
  };
}

/** The proportions are learnt in a run of their own, as DoReMi does; their mean is what is trained on. */
function doremi(seed) {
  const proxy = createWorld(createRandom(seed));
  const method = mixingMethod('doremi');
  const mixer = method.create({ groups: GROUPS, parameters: method.parameters(K), seed });
  for (let step = 0; step < ROUNDS * ROUND; step++) {
    mixer.update({ kind: 'excess', losses: proxy.measure(), reference: Float64Array.from(REFERENCE) });
    proxy.train(mixer.proportions, 1);
  }
  const p = mixer.result();
  const world = createWorld(createRandom(seed));
  const course = [];
  for (let round = 0; round < ROUNDS; round++) {
    course.push(meanLoss(world));
    world.train(p, ROUND);
  }
  return { loss: meanLoss(world), course: [...course, meanLoss(world)], p };
}

const METHODS = {
  uniform: (seed) => uniform(seed),
  'Aioli, recipe of the code (eta 0.1, from uniform)': (seed) => aioli(seed, {}),
  'Aioli, accumulating, eta 1': (seed) => aioli(seed, { eta: 1, ema: null, memory: 'accumulate' }),
  'DoReMi (diagonal excess)': (seed) => doremi(seed),
};
const table = Object.entries(METHODS).map(([name, run]) => ({
  name,
  runs: Array.from({ length: SEEDS }, (_, seed) => run(seed)),
}));
const [{ runs: base }] = table;
const header = [
  'method',
  'mean_loss_nats',
  'difference_from_uniform_nats',
  'difference_sd_nats',
  'relative_error_A',
  'relative_error_A_sd',
];
const rows = table.map(({ name, runs }) => {
  const difference = runs.map(({ loss }, seed) => loss - base[seed].loss);
  const errors = runs.flatMap(({ error }) => (error === undefined ? [] : [error]));
  const ofErrors = errors.length === 0 ? ['', ''] : [mean(errors), deviation(errors)];
  return [`"${name}"`, mean(runs.map(({ loss }) => loss)), mean(difference), deviation(difference), ...ofErrors];
});
writeFileSync('docs/papers/aioli-world.csv', `${[header, ...rows].map((row) => row.join(',')).join('\n')}\n`);

const recovered = table[1].runs;
const figure = await chartFigure({
  title: 'Aioli where the mixing law is known',
  subtitle: `Three groups, ${ROUNDS} rounds of ${ROUND} steps, noise of ${NOISE} nats a measurement, ${SEEDS} seeds`,
  charts: [
    {
      kind: 'lines',
      chart: {
        title: 'Mean loss of the groups',
        xLabel: 'step',
        yLabel: 'nats',
        series: table.map(({ name, runs }) => ({
          name,
          x: runs[0].course.map((_, r) => r * ROUND),
          y: runs[0].course.map((_, r) => mean(runs.map(({ course }) => course[r]))),
        })),
      },
    },
    {
      kind: 'heat-map',
      chart: {
        title: 'A as Aioli measured it, over the true one',
        note: 'Mean over rounds, first seed; 1 is exact.',
        rows: GROUPS,
        columns: GROUPS,
        rowLabel: 'evaluated',
        columnLabel: 'trained',
        values: recovered[0].matrix.map((entry, e) => entry / (PROBE_STEPS * A[e])),
        valueLabel: 'ratio',
        kind: 'amount',
        width: 470,
      },
    },
  ],
});
writeFileSync('docs/papers/aioli-world.svg', await plotBytes(figure, 'aioli-world.svg'));

console.log('| method | mean loss | beside uniform | relative error of A |\n|---|---|---|---|');
for (const [name, loss, difference, sd, error, errorSd] of rows) {
  const second = error === '' ? '' : `${(100 * error).toFixed(2)} % (${(100 * errorSd).toFixed(2)})`;
  console.log(
    `| ${name.slice(1, -1)} | ${loss.toFixed(4)} | ${difference.toFixed(4)} (${sd.toFixed(4)}) | ${second} |`,
  );
}
console.log(
  '\n| noise, nats | signal / noise of the drops | error of A, one round | error of A, mean of 20 rounds |\n|---|---|---|---|',
);
for (const noise of [1e-3, 3e-4, 1e-4, 3e-5]) {
  const found = Array.from({ length: SEEDS }, (_, seed) => aioli(seed, {}, noise));
  const [ratio, one, all] = ['signalToNoise', 'roundError', 'error'].map((key) => mean(found.map((run) => run[key])));
  console.log(`| ${noise} | ${ratio.toFixed(1)} | ${(100 * one).toFixed(1)} % | ${(100 * all).toFixed(1)} % |`);
}
console.log('');
for (const { name, runs } of table) {
  const p = GROUPS.map((_, j) => mean(runs.map((run) => run.p[j])).toFixed(3));
  console.log(`${name}: p = ${p.join(', ')}`);
}
