/**
 * Fewer experts from a trained layer, without training again (specification of expert merging, section 5). Claims: each step of
 * M-SMoE lowers the error: groups by router logits instead of drawn ones, means by usage, alignment of neurons; without
 * recovery one-shot pruning beats merging, as REAP reports. One residual SwiGLU layer of 8 experts, top 2, learns 12 maps,
 * one for each Gaussian cluster of its inputs; then 8 experts become 7 to 2 by every method, and are measured on new tokens.
 */
import { writeFileSync } from 'node:fs';
import { multiply } from '../../dist/src/kernels/gemm.js';
import { alignExpert } from '../../dist/src/moe/alignment.js';
import { clusterRows } from '../../dist/src/moe/clustering.js';
import { createCombination, memberWeights } from '../../dist/src/moe/combine.js';
import { runExpert } from '../../dist/src/moe/expert-function.js';
import { createExpertSums } from '../../dist/src/moe/expert-statistics.js';
import { groupAroundDominants, membersOf, mostUsedMembers, randomGroups } from '../../dist/src/moe/grouping.js';
import { gatherRows, runLayer } from '../../dist/src/moe/layer-function.js';
import { outputErrorSums, outputErrors } from '../../dist/src/moe/output-error.js';
import { pruneByScore } from '../../dist/src/moe/pruning.js';
import { expertScores } from '../../dist/src/moe/reap.js';
import { refitGroup } from '../../dist/src/moe/refit.js';
import { createRouterRowFit, dominantRows } from '../../dist/src/moe/router-rows.js';
import { createRoutingSums } from '../../dist/src/moe/routing-statistics.js';
import { expertSimilarity } from '../../dist/src/moe/similarity.js';
import { createRandom } from '../../dist/src/random.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';

const H = 24;
const I = 32;
const E = 8;
const K = 2;
const CLUSTERS = 12;
const CONCENTRATION = 0.7;
const NOISE = 0.5;
const STEPS = 700;
const BATCH = 128;
const RATE = 3e-3;
const BALANCE = 0.01;
const CALIBRATION = 2048;
const HELD_OUT = 4096;
const KEPT = [7, 6, 5, 4, 3, 2];
const SEEDS = Array.from({ length: 10 }, (_, s) => s + 1);
const SHAPE = { hidden: H, width: I, gated: true, activation: 'silu' };
const RULE = { score: 'softmax', topK: K, normalizeTopK: true };

const normals = (random, length, scale) => Float64Array.from({ length }, () => scale * random.normal());

/** Gamma(shape) for shape below 1: Marsaglia and Tsang (2000) at shape + 1, times u^(1 / shape). */
function gamma(random, shape) {
  const d = shape + 1 - 1 / 3;
  for (;;) {
    const z = random.normal();
    const v = (1 + z / Math.sqrt(9 * d)) ** 3;
    if (v > 0 && Math.log(1 - random.uniform()) < 0.5 * z * z + d - d * v + d * Math.log(v)) {
      return d * v * (1 - random.uniform()) ** (1 / shape);
    }
  }
}

/** Clusters of inputs with their shares, and the map that each is to learn: t = tanh(A_c x). */
function createTask(random) {
  const weights = Array.from({ length: CLUSTERS }, () => gamma(random, CONCENTRATION));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const means = normals(random, CLUSTERS * H, 1);
  const maps = normals(random, CLUSTERS * H * H, 1 / Math.sqrt(H));
  return (draws, rows) => {
    const x = new Float64Array(rows * H);
    const target = new Float64Array(rows * H);
    for (let row = 0; row < rows; row++) {
      let left = draws.uniform() * total;
      let cluster = 0;
      while (cluster < CLUSTERS - 1 && left >= weights[cluster]) left -= weights[cluster++];
      for (let d = 0; d < H; d++) x[row * H + d] = means[cluster * H + d] + NOISE * draws.normal();
      for (let o = 0; o < H; o++) {
        let sum = 0;
        for (let d = 0; d < H; d++) sum += maps[(cluster * H + o) * H + d] * x[row * H + d];
        target[row * H + o] = Math.tanh(sum);
      }
    }
    return { x, target, rows };
  };
}

/** All weights of a layer, and the moments of Adam beside each. */
function createLayer(random) {
  const parameter = (length, scale) => ({
    value: normals(random, length, scale),
    gradient: new Float64Array(length),
    first: new Float64Array(length),
    second: new Float64Array(length),
  });
  return {
    router: parameter(E * H, 1 / Math.sqrt(H)),
    experts: Array.from({ length: E }, () => ({
      gate: parameter(I * H, 1 / Math.sqrt(H)),
      up: parameter(I * H, 1 / Math.sqrt(H)),
      down: parameter(H * I, 1 / Math.sqrt(I)),
    })),
  };
}

const parametersOf = ({ router, experts }) => [router, ...experts.flatMap(({ gate, up, down }) => [gate, up, down])];

function adam(parameters, step) {
  for (const { value, gradient, first, second } of parameters) {
    for (let i = 0; i < value.length; i++) {
      first[i] = 0.9 * first[i] + 0.1 * gradient[i];
      second[i] = 0.999 * second[i] + 0.001 * gradient[i] ** 2;
      const mean = first[i] / (1 - 0.9 ** step);
      value[i] -= (RATE * mean) / (Math.sqrt(second[i] / (1 - 0.999 ** step)) + 1e-8);
    }
  }
}

/** What the layer computes with the weights as they are. */
function layerFunction({ router, experts }) {
  const matrices = experts.map(({ gate, up, down }) => ({ gate: gate.value, up: up.value, down: down.value }));
  return { shape: SHAPE, rule: RULE, router: router.value, routerRows: E, experts: E, expert: (e) => matrices[e] };
}

/** a^T b into `into`, a [rows, m], b [rows, n]. */
const products = (a, b, into, rows, m, n) => multiply(a, b, into, { m, n, k: rows }, { transposeA: true, beta: 1 });

/** Gradients of one expert that gave `output` to its rows, from that of the output. */
function expertBackward({ gate, up, down }, x, outputGradient, rows) {
  const project = (matrix) =>
    multiply(x, matrix, new Float64Array(rows * I), { m: rows, n: I, k: H }, { transposeB: true });
  const a = project(gate.value);
  const u = project(up.value);
  const inner = new Float64Array(rows * I);
  const innerGradient = multiply(outputGradient, down.value, new Float64Array(rows * I), { m: rows, n: I, k: H });
  for (let i = 0; i < inner.length; i++) {
    const sigmoid = 1 / (1 + Math.exp(-a[i]));
    const silu = a[i] * sigmoid;
    inner[i] = silu * u[i];
    a[i] = innerGradient[i] * u[i] * (sigmoid + silu * (1 - sigmoid));
    u[i] = innerGradient[i] * silu;
  }
  products(outputGradient, inner, down.gradient, rows, H, I);
  products(a, x, gate.gradient, rows, I, H);
  products(u, x, up.gradient, rows, I, H);
}

/** Gradients of mean squared error plus the balance loss, for a batch. */
function backward(layer, { x, target, rows }) {
  for (const { gradient } of parametersOf(layer)) gradient.fill(0);
  const current = layerFunction(layer);
  const { routing, dispatch, output } = runLayer(current, x, rows);
  const gradient = new Float64Array(rows * H);
  for (let i = 0; i < gradient.length; i++) gradient[i] = (2 * (x[i] + output[i] - target[i])) / gradient.length;
  const weightGradient = new Float64Array(rows * E);
  for (let e = 0; e < E; e++) {
    const own = dispatch.rows.subarray(dispatch.starts[e], dispatch.starts[e + 1]);
    if (own.length === 0) continue;
    const inputs = gatherRows(x, H, own);
    const y = runExpert(current.expert(e), SHAPE, inputs, own.length);
    const back = gatherRows(gradient, H, own);
    own.forEach((row, i) => {
      for (let d = i * H; d < (i + 1) * H; d++) {
        weightGradient[row * E + e] += back[d] * y[d];
        back[d] *= dispatch.weights[dispatch.starts[e] + i];
      }
    });
    expertBackward(layer.experts[e], inputs, back, own.length);
  }
  // Weights of the chosen are a softmax over their logits; the balance loss is E sum f_e mean p_e with f held.
  const logits = new Float64Array(rows * E);
  const share = new Float64Array(E);
  for (const e of routing.chosen) share[e] += 1 / routing.chosen.length;
  for (let row = 0; row < rows; row++) {
    const chosen = routing.chosen.subarray(row * K, (row + 1) * K);
    let mean = 0;
    chosen.forEach((e, j) => {
      mean += routing.weights[row * K + j] * weightGradient[row * E + e];
    });
    chosen.forEach((e, j) => {
      logits[row * E + e] += routing.weights[row * K + j] * (weightGradient[row * E + e] - mean);
    });
    const p = routing.probabilities.subarray(row * E, (row + 1) * E);
    const expected = p.reduce((sum, value, e) => sum + value * share[e], 0);
    for (let e = 0; e < E; e++) logits[row * E + e] += ((BALANCE * E) / rows) * p[e] * (share[e] - expected);
  }
  products(logits, x, layer.router.gradient, rows, E, H);
}

/** The loss whose gradients `backward` gives; f is held at `share`. */
function lossOf(layer, { x, target, rows }, share) {
  const { output, routing } = runLayer(layerFunction(layer), x, rows);
  const balance = routing.probabilities.reduce((sum, p, i) => sum + p * share[i % E], 0);
  return squaredError(output, { x, target }) + (BALANCE * E * balance) / rows;
}

const squaredError = (output, { x, target }) =>
  output.reduce((sum, value, i) => sum + (x[i] + value - target[i]) ** 2, 0) / output.length;

/** Largest relative difference between gradients and central differences, over a few weights of every matrix. */
function gradientError(layer, batch) {
  backward(layer, batch);
  const { chosen } = runLayer(layerFunction(layer), batch.x, batch.rows).routing;
  const share = new Float64Array(E);
  for (const e of chosen) share[e] += 1 / chosen.length;
  let worst = 0;
  for (const { value, gradient } of parametersOf(layer)) {
    const scale = Math.max(...gradient.map(Math.abs));
    for (let i = 0; i < value.length; i += 97) {
      const kept = value[i];
      const at = (shift) => {
        value[i] = kept + shift;
        return lossOf(layer, batch, share);
      };
      const difference = (at(1e-5) - at(-1e-5)) / 2e-5;
      value[i] = kept;
      worst = Math.max(worst, Math.abs(difference - gradient[i]) / (scale + 1e-9));
    }
  }
  return worst;
}

/** Routing and outputs of all experts on the calibration tokens, as `merge-moe calibrate --outputs all` has them. */
function statisticsOf(layer, { x, rows }) {
  const { logits, routing, dispatch } = runLayer(layer, x, rows);
  const routingSums = createRoutingSums(0, E, RULE);
  routingSums.add(logits, rows);
  const sums = createExpertSums(0, { experts: E, hidden: H, width: I }, { everywhere: true });
  const all = new Float64Array(E * rows * H);
  for (let e = 0; e < E; e++) {
    const output = all.subarray(e * rows * H, (e + 1) * rows * H);
    runExpert(layer.expert(e), SHAPE, x, rows, { out: output });
    const own = dispatch.rows.subarray(dispatch.starts[e], dispatch.starts[e + 1]);
    const shares = dispatch.weights.subarray(dispatch.starts[e], dispatch.starts[e + 1]);
    const weights = Float64Array.from(own, (row) => routing.probabilities[row * E + e]);
    sums.addChosen(e, { output, at: own, weights, shares });
  }
  sums.addEverywhere(all, rows);
  const statistics = { routing: routingSums.finish(), outputs: sums.finish() };
  const { counts } = statistics.routing;
  return { statistics, usage: counts.map((count) => count / (rows * K)), logits, routing };
}

/** Experts of the groups: means by usage or plain, with their neurons where the most used member has them, or as they lie. */
function mergeGroups(layer, grouping, usage, { weights, align }) {
  return membersOf(grouping).map((members, g) => {
    const lead = mostUsedMembers(grouping.labels, grouping.dominants.length, usage)[g];
    const mean = createCombination(SHAPE);
    const shares = memberWeights(weights, usage, members).weights;
    members.forEach((member, m) => {
      const aligned = align && member !== lead;
      const { permutation } = aligned ? alignExpert(layer.expert(lead), layer.expert(member), SHAPE) : {};
      mean.add(layer.expert(member), shares[m], permutation);
    });
    return mean.finish();
  });
}

const BY_LOGITS = 'M-SMoE groups';
const BY_OUTPUTS = 'HC-SMoE groups';
const METHODS = [
  { name: 'random groups, mean', groups: 'random', weights: 'mean' },
  { name: `${BY_LOGITS}, mean`, groups: 'logits', weights: 'mean' },
  { name: `${BY_LOGITS}, usage`, groups: 'logits', weights: 'usage' },
  { name: `${BY_LOGITS}, usage, aligned`, groups: 'logits', weights: 'usage', align: true },
  { name: `${BY_OUTPUTS}, usage`, groups: 'outputs', weights: 'usage' },
  { name: `${BY_OUTPUTS}, usage, aligned`, groups: 'outputs', weights: 'usage', align: true },
  { name: `${BY_LOGITS}, usage, aligned, refit`, groups: 'logits', weights: 'usage', align: true, refit: true },
  {
    name: `${BY_LOGITS}, usage, aligned, rows of dominants`,
    groups: 'logits',
    weights: 'usage',
    align: true,
    rows: 'dominant',
  },
  { name: `${BY_LOGITS}, usage, aligned, fitted rows`, groups: 'logits', weights: 'usage', align: true, rows: 'fit' },
  { name: 'pruned by frequency', prune: 'frequency' },
  { name: 'pruned by REAP', prune: 'reap' },
];

function groupingOf(method, found, keep, random) {
  const { statistics, usage } = found;
  if (method.prune) return pruneByScore([0], [expertScores(statistics)[method.prune]], { keep })[0];
  if (method.groups === 'random') return randomGroups(0, random.permutation(E), keep);
  if (method.groups === 'logits') {
    const similarity = expertSimilarity('router-logits', { layer: 0, experts: E, routing: statistics.routing });
    return groupAroundDominants(0, usage, similarity, keep);
  }
  const { outputSum, tokens } = statistics.outputs.everywhere;
  const labels = clusterRows(
    outputSum.map((sum) => sum / tokens),
    E,
    H,
    keep,
    'average',
  );
  return { layer: 0, labels, dominants: mostUsedMembers(labels, keep, usage) };
}

/** A layer with `keep` experts by one method. */
function reduce(layer, method, found, calibration, keep, random) {
  const grouping = groupingOf(method, found, keep, random);
  const { labels } = grouping;
  if (method.prune) {
    const kept = grouping.dominants;
    const router = dominantRows(layer.router, H, grouping);
    return {
      labels,
      layer: { ...layer, router, routerRows: keep, experts: keep, expert: (g) => layer.expert(kept[g]) },
    };
  }
  const merged = mergeGroups(layer, grouping, found.usage, method);
  if (method.refit) {
    const members = membersOf(grouping);
    members.forEach((own, g) => {
      const group = { shape: SHAPE, members: [...own], original: layer.expert, merged: merged[g] };
      const visit = (use) => use({ ...calibration, routing: found.routing });
      if (own.length > 1) merged[g] = { ...merged[g], down: refitGroup(group, visit, { lambda: 1e-3 }).down };
    });
  }
  const expert = (g) => merged[g];
  if (!method.rows) return { labels, layer: { ...layer, experts: keep, expert, map: labels } };
  const start = dominantRows(layer.router, H, grouping);
  const fit = createRouterRowFit(H, grouping);
  fit.add(calibration.x, found.logits, calibration.rows);
  const router = method.rows === 'fit' ? fit.solve(start).rows : start;
  return { labels, layer: { ...layer, router, routerRows: keep, experts: keep, expert } };
}

function measure(layer, reduced, { x, target, rows }) {
  const before = runLayer(layer, x, rows);
  const after = runLayer(reduced.layer, x, rows);
  const remap = { ...reduced.layer, router: layer.router, routerRows: E, map: reduced.labels };
  const remapped = runLayer(remap, x, rows);
  const errors = outputErrors(
    outputErrorSums(
      { rows, hidden: H, original: before.output, remapped: remapped.output, merged: after.output },
      { rows, remapped: remapped.dispatch, merged: after.dispatch },
    ),
  );
  return {
    relativeError: errors.total.value,
    expertError: errors.experts.value,
    routingError: errors.routing.value,
    loss: squaredError(after.output, { x, target }),
  };
}

const records = [];
const losses = [];
for (const seed of SEEDS) {
  const random = createRandom(seed);
  const draw = createTask(random.fork(1));
  const trained = createLayer(random.fork(2));
  const batches = random.fork(3);
  const checked = gradientError(trained, draw(random.fork(4), 16));
  if (!(checked < 1e-4)) throw new Error(`gradients are off by ${checked}`);
  for (let step = 1; step <= STEPS; step++) {
    backward(trained, draw(batches, BATCH));
    adam(parametersOf(trained), step);
  }
  const layer = layerFunction(trained);
  const calibration = draw(random.fork(5), CALIBRATION);
  const heldOut = draw(random.fork(6), HELD_OUT);
  const found = statisticsOf(layer, calibration);
  losses.push(squaredError(runLayer(layer, heldOut.x, HELD_OUT).output, heldOut));
  for (const method of METHODS) {
    for (const keep of KEPT) {
      const reduced = reduce(layer, method, found, calibration, keep, random.fork(100 + keep));
      records.push({ seed, method: method.name, keep, ...measure(layer, reduced, heldOut) });
    }
  }
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const standardError = (values) => {
  const centre = mean(values);
  return Math.sqrt(mean(values.map((value) => (value - centre) ** 2)) / (values.length - 1));
};
const valuesOf = (name, keep, key) =>
  records.filter(({ method, keep: kept }) => method === name && kept === keep).map((record) => record[key]);

const header = 'method,experts,relative_error,relative_error_se,expert_error,routing_error,task_loss,task_loss_se';
const csv = METHODS.flatMap(({ name }) =>
  KEPT.map((keep) => {
    const of = (key) => valuesOf(name, keep, key);
    const [error, loss] = [of('relativeError'), of('loss')];
    const figures = [mean(error), standardError(error), mean(of('expertError')), mean(of('routingError'))];
    return [`"${name}"`, keep, ...figures, mean(loss), standardError(loss)].join(',');
  }),
);
writeFileSync('docs/papers/expert-merging.csv', `${[header, ...csv].join('\n')}\n`);

const lines = (title, key, yLabel, note) => ({
  kind: 'lines',
  chart: {
    title,
    note,
    xLabel: 'experts kept of 8',
    yLabel,
    yZero: true,
    series: METHODS.filter(({ rows }) => !rows).map(({ name, prune }) => ({
      name,
      dashed: prune !== undefined,
      x: KEPT,
      y: KEPT.map((keep) => mean(valuesOf(name, keep, key))),
      standardError: KEPT.map((keep) => standardError(valuesOf(name, keep, key))),
    })),
  },
});
const figure = await chartFigure({
  title: 'Experts merged, pruned and refitted',
  subtitle: `One layer of 8 experts, top 2, ${CLUSTERS} clusters; new tokens, ${SEEDS.length} seeds`,
  charts: [
    lines(
      'Error of the layer',
      'relativeError',
      'relative error of the output',
      'Bands: one standard error over seeds.',
    ),
    lines('Loss of the task', 'loss', 'mean squared error', `With all 8 experts ${mean(losses).toFixed(3)}.`),
  ],
});
writeFileSync('docs/papers/expert-merging.svg', await plotBytes(figure, 'expert-merging.svg'));

console.log(`all 8 experts: task loss ${mean(losses).toFixed(4)} ± ${standardError(losses).toFixed(4)}\n`);
for (const { name } of METHODS) {
  const of = (key, keep) => mean(valuesOf(name, keep, key)).toFixed(3);
  const spread = standardError(valuesOf(name, 4, 'relativeError')).toFixed(3);
  const six = of('relativeError', 6);
  console.log(
    `| ${name} | ${six} | ${of('relativeError', 4)} ± ${spread} | ${of('expertError', 4)} | ${of('routingError', 4)} | ${of('loss', 4)} |`,
  );
}

const CLAIMS = [
  ['groups by router logits against drawn ones', 'random groups, mean', `${BY_LOGITS}, mean`],
  ['usage against plain means', `${BY_LOGITS}, mean`, `${BY_LOGITS}, usage`],
  ['alignment', `${BY_LOGITS}, usage`, `${BY_LOGITS}, usage, aligned`],
  ['alignment in groups of HC-SMoE', `${BY_OUTPUTS}, usage`, `${BY_OUTPUTS}, usage, aligned`],
  ['pruning by frequency against aligned merging', `${BY_LOGITS}, usage, aligned`, 'pruned by frequency'],
  ['pruning by REAP against aligned merging', `${BY_LOGITS}, usage, aligned`, 'pruned by REAP'],
  ['REAP against frequency', 'pruned by frequency', 'pruned by REAP'],
  ['ours: refit against pruning by REAP', 'pruned by REAP', `${BY_LOGITS}, usage, aligned, refit`],
  [
    'ours: fitted router rows against those of dominants',
    `${BY_LOGITS}, usage, aligned, rows of dominants`,
    `${BY_LOGITS}, usage, aligned, fitted rows`,
  ],
];
console.log('\n4 experts, error saved, of the same seeds:');
for (const [claim, worse, better] of CLAIMS) {
  const after = valuesOf(better, 4, 'relativeError');
  const saved = valuesOf(worse, 4, 'relativeError').map((value, s) => value - after[s]);
  const [gain, error] = [mean(saved), standardError(saved)];
  const verdict = gain > 2 * error ? 'reproduced' : gain < -2 * error ? 'the opposite' : 'not told apart';
  console.log(`${claim}: ${gain.toFixed(3)} ± ${error.toFixed(3)}: ${verdict}`);
}
