/**
 * Softmax-only transformers over characters (specification of entropy analyses, section B): (i) nothing in the place of
 * layer norm, (ii) the scaled feed-forward branch, (iii) that with learnable temperatures and the entropy regulariser;
 * between the two, temperatures alone, to tell what the regulariser adds.
 * Claims: (i) entropies of deep layers go to 0; (ii) is stable, with heads of the first layer near the most there can
 * be; (iii) has fewer heads in the top quarter and a lower validation loss.
 *
 * The models are ONNX graphs, trained by the engine of distill-pld with the attention and penalty of its decoders.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { decodeOnnxModel } from '../../dist/src/formats/onnx.js';
import { TensorProto_DataType } from '../../dist/src/formats/onnx_pb.js';
import { graphOf, onnxTensor } from '../../dist/src/formats/onnx-edit.js';
import { quartileBins } from '../../dist/src/linalg/quartile-bins.js';
import { composeGraph } from '../../dist/src/models/graph.js';
import { createRandom } from '../../dist/src/random.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';
import { causalScores } from '../../dist/src/training/attention-composition.js';
import {
  composeEntropyPenalty,
  composeTemperedAttention,
  LEAST_TEMPERATURE,
} from '../../dist/src/training/attention-entropy.js';
import { parseLosses } from '../../dist/src/training/losses/loss-text.js';
import { createObjective } from '../../dist/src/training/objective.js';
import { openOnnxStudent } from '../../dist/src/training/onnx-student.js';
import { train } from '../../dist/src/training/trainer.js';

const TEXT = 'fixtures/text/heldout_text.jsonl';
const STEPS = 600;
const SEEDS = [1, 2, 3];
const RATE = 3e-3;
const BATCH = 16;
const EVERY = 20;
const LENGTH = 64;
const THREADS = 2;

const text = readFileSync(TEXT, 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line).text)
  .join('\n');
const characters = [...new Set(text)].sort();
const ids = Int32Array.from(text, (character) => characters.indexOf(character));
const cut = Math.floor(0.9 * ids.length);
const shape = { layers: 4, heads: 4, width: 64, inner: 256, vocabulary: characters.length };

/** Windows that begin at the given places, as a batch. */
function batchAt(starts) {
  const tokens = new Int32Array(starts.length * LENGTH);
  const labels = new Int32Array(tokens.length);
  starts.forEach((start, b) => {
    tokens.set(ids.subarray(start, start + LENGTH), b * LENGTH);
    labels.set(ids.subarray(start + 1, start + LENGTH + 1), b * LENGTH);
  });
  return { tokens, labels, batch: starts.length, length: LENGTH, windows: Int32Array.from(starts) };
}

const held = [];
for (let start = cut; start + LENGTH + 1 < ids.length && held.length < 128; start += LENGTH) held.push(start);
const heldBatches = Array.from({ length: held.length / BATCH }, (_, b) =>
  batchAt(held.slice(b * BATCH, (b + 1) * BATCH)),
);

/** Initial weights by name: matrices [in, out], and what is trained without decay as vectors. */
function initialWeights(settings, random) {
  const { layers, heads, width, inner, vocabulary } = shape;
  const weights = new Map();
  const normal = (name, dims, deviation) => {
    const values = Float32Array.from({ length: dims[0] * dims[1] }, () => deviation * random.normal());
    weights.set(name, { dims, values });
  };
  const vector = (name, length, of) => {
    weights.set(name, { dims: [length], values: Float32Array.from({ length }, of) });
  };
  const deep = 0.02 / Math.sqrt(2 * layers);
  normal('embedding', [vocabulary, width], 0.02);
  normal('positions', [LENGTH, width], 0.02);
  normal('head', [width, vocabulary], 0.02);
  for (let l = 0; l < layers; l++) {
    for (const name of ['wq', 'wk', 'wv']) normal(`${name}.${l}`, [width, width], 0.02);
    normal(`wo.${l}`, [width, width], deep);
    normal(`w1.${l}`, [width, inner], 0.02);
    normal(`w2.${l}`, [inner, width], deep);
    if (settings.scaledFfn) {
      vector(`alpha.${l}`, 1, () => 1);
      vector(`beta.${l}`, 1, () => 1);
    }
    if (settings.temperature !== undefined) vector(`t.${l}`, heads * LENGTH, () => settings.temperature);
    if (settings.regulariser) vector(`theta.${l}`, heads, () => random.uniform());
  }
  return weights;
}

/** The graph: logits, `entropies` [batch * length, layers * heads] and, with a regulariser, `penalty`. */
function composeModel(settings, weights) {
  const { layers, heads, width, vocabulary } = shape;
  const dim = width / heads;
  const g = composeGraph('softmax-only', 'f32');
  const tokens = g.input('input_ids', 'i64', ['batch', LENGTH]);
  const mask = g.floats('mask', causalScores(LENGTH, undefined, 'f32'), [LENGTH, LENGTH]);
  const counted = g.floats('counted', new Float32Array(LENGTH).fill(1), [1, 1, LENGTH]);
  const turned = (value, perm) => g.node('Transpose', [value], { attributes: { perm: { ints: perm } } });
  const byHead = (value) => turned(g.node('Reshape', [value, g.integers([0, 0, heads, dim])]), [0, 2, 1, 3]);
  const product = (a, b) => g.node('MatMul', [a, b]);
  let x = g.node('Add', [g.node('Gather', ['embedding', tokens]), 'positions']);
  const entropies = [];
  const penalties = [];
  for (let l = 0; l < layers; l++) {
    const [q, k, v] = ['wq', 'wk', 'wv'].map((name) => byHead(product(x, `${name}.${l}`)));
    const scores = g.node('Mul', [product(q, turned(k, [0, 1, 3, 2])), g.scalar(1 / Math.sqrt(dim))]);
    const temperatures =
      settings.temperature === undefined ? undefined : g.node('Reshape', [`t.${l}`, g.integers([heads, LENGTH, 1])]);
    const attended = composeTemperedAttention(g, { scores, mask }, temperatures);
    entropies.push(attended.entropies);
    if (settings.regulariser) {
      const thresholds = g.node('Reshape', [`theta.${l}`, g.integers([heads, 1])]);
      const parts = { entropies: attended.entropies, thresholds, counted };
      penalties.push(composeEntropyPenalty(g, parts, { ...settings.regulariser, layers, heads }));
    }
    const joined = turned(product(attended.probabilities, v), [0, 2, 1, 3]);
    const middle = g.node('Add', [product(g.node('Reshape', [joined, g.integers([0, 0, width])]), `wo.${l}`), x]);
    const branch = product(product(middle, `w1.${l}`), `w2.${l}`);
    x = settings.scaledFfn
      ? g.node('Add', [g.node('Mul', [middle, `beta.${l}`]), g.node('Div', [branch, `alpha.${l}`])])
      : g.node('Add', [middle, branch]);
  }
  g.publish(product(x, 'head'), 'logits', ['batch', LENGTH, vocabulary]);
  const stacked = g.node('Concat', entropies, { attributes: { axis: { int: 1 } } });
  g.publish(turned(stacked, [0, 2, 1]), 'entropies', ['batch', LENGTH, layers * heads]);
  if (penalties.length > 0) g.publish(g.node('Sum', penalties), 'penalty', []);
  const model = decodeOnnxModel(g.encode(), 'softmax-only');
  for (const [name, { dims, values }] of weights) {
    graphOf(model).initializer.push(onnxTensor(name, TensorProto_DataType.FLOAT, dims, new Uint8Array(values.buffer)));
  }
  return model;
}

const crossEntropy = () =>
  createObjective(
    parseLosses('ce').map(({ weight, loss }) => ({ weight, loss })),
    { labels: (batch) => batch.labels },
  );

/** Mean entropy of every head over the held-out windows, nats, [layers * heads], and their loss. */
async function validate(student) {
  const objective = crossEntropy();
  const sums = new Float64Array(shape.layers * shape.heads);
  let [loss, rows] = [0, 0];
  for (const batch of heldBatches) {
    const { visit, totals } = objective.begin(batch, { step: 1, epoch: 0 });
    await student.evaluate(batch, async (block) => {
      await visit(block);
      block.features.forEach((entropy, at) => {
        sums[at % sums.length] += entropy;
      });
    });
    loss += totals().sum;
    rows += totals().validRows;
  }
  return { loss: loss / rows, entropies: sums.map((sum) => sum / rows) };
}

const layerMeans = (entropies) =>
  Array.from({ length: shape.layers }, (_, l) => {
    const own = entropies.subarray(l * shape.heads, (l + 1) * shape.heads);
    return own.reduce((sum, entropy) => sum + entropy, 0) / shape.heads;
  });

async function trainOnce(name, settings, seed) {
  const weights = initialWeights(settings, createRandom(seed).fork(0));
  const student = await openOnnxStudent(composeModel(settings, weights), {
    precision: 'f32',
    threads: THREADS,
    logits: 'logits',
    features: 'entropies',
    train: [...weights.keys()],
    ...(settings.regulariser && { penalty: 'penalty' }),
  });
  const { parameters, values } = student.parameters;
  const history = [];
  const note = async (step) => {
    const { loss, entropies } = await validate(student);
    history.push({ step, loss, layers: layerMeans(entropies), entropies });
    return loss;
  };
  await note(0);
  const source = {
    perEpoch: Math.ceil(cut / (BATCH * LENGTH)),
    batch: (index) => {
      const places = createRandom(seed).fork(1).fork(index);
      return batchAt(Array.from({ length: BATCH }, () => Math.floor(places.uniform() * (cut - LENGTH - 1))));
    },
  };
  await train(
    student,
    source,
    crossEntropy(),
    {
      steps: STEPS,
      optimizer: { method: 'adamw', beta1: 0.9, beta2: 0.95, weightDecay: 0.01, exemptVectors: true },
      schedule: { schedule: 'cosine', learningRate: RATE, warmupSteps: 50, finalShare: 0.1 },
      evaluateEvery: EVERY,
      threads: THREADS,
    },
    {
      evaluate: async (step) => ({ loss: await note(step) }),
      follower: {
        state: {},
        moved() {
          for (const { name: own, offset, length } of parameters) {
            if (!own.startsWith('t.')) continue;
            for (let i = offset; i < offset + length; i++) values[i] = Math.max(values[i], LEAST_TEMPERATURE);
          }
        },
      },
    },
  );
  await student.close();
  const { loss } = history[history.length - 1];
  console.error(`${name}, seed ${seed}: validation loss ${loss.toFixed(4)}`);
  return { name, seed, history };
}

const T0 = 1e-2;
const ways = [
  ['no normalisation', { scaledFfn: false }],
  ['scaled FFN', { scaledFfn: true }],
  ['scaled FFN, temperatures', { scaledFfn: true, temperature: T0 }],
  [
    'scaled FFN, temperatures, regularised',
    {
      scaledFfn: true,
      temperature: T0,
      regulariser: { reduction: 'code', gamma: 0.2, lambda: 1e-5, contextSize: LENGTH },
    },
  ],
];
const groups = [];
for (const [name, settings] of ways) {
  const runs = [];
  for (const seed of SEEDS) runs.push(await trainOnce(name, settings, seed));
  groups.push({ name, runs });
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const deviation = (values) => {
  const centre = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1));
};
const meanOver = (parts) => parts[0].map((_, i) => mean(parts.map((part) => part[i])));

const rows = groups.map(({ name, runs }) => {
  const last = runs.map(({ history }) => history[history.length - 1]);
  return {
    name,
    losses: last.map(({ loss }) => loss),
    layers: meanOver(last.map(({ layers }) => layers)),
    shares: meanOver(last.map(({ entropies }) => [...quartileBins(entropies).fractions])),
    absolute: meanOver(last.map(({ entropies }) => [...quartileBins(entropies, Math.log(LENGTH)).fractions])),
    tops: last.map(({ entropies }) => quartileBins(entropies).fractions[3]),
    isFinite: runs.every(({ history }) => history.every(({ loss }) => Number.isFinite(loss))),
  };
});
const columns = ['configuration', 'seed', 'step', 'validation_loss_nats'];
for (let l = 0; l < shape.layers; l++) columns.push(`layer_${l}_entropy_nats`);
const lines = groups.flatMap(({ name, runs }) =>
  runs.flatMap(({ seed, history }) =>
    history.map(({ step, loss, layers }) => [`"${name}"`, seed, step, loss, ...layers].join(',')),
  ),
);
writeFileSync('docs/papers/entropy-guided-attention.csv', `${[columns.join(','), ...lines].join('\n')}\n`);

/** Mean over the seeds at every evaluation. */
const curveOf = ({ runs }, of) => runs[0].history.map((_, i) => mean(runs.map(({ history }) => of(history[i]))));
const steps = groups[0].runs[0].history.map(({ step }) => step);
const from = steps.findIndex((step) => step >= Math.min(100, STEPS / 2));
const figure = await chartFigure({
  title: 'Softmax-only transformers: what keeps attention from collapsing',
  subtitle: `4 layers of 4 heads, windows of ${LENGTH} characters, ${STEPS} steps, means over ${SEEDS.length} seeds`,
  charts: [
    {
      kind: 'lines',
      chart: {
        title: 'Validation loss, from step 100 on',
        xLabel: 'step',
        yLabel: 'nats per character',
        width: 964,
        series: groups.map((group) => ({
          name: group.name,
          x: steps.slice(from),
          y: curveOf(group, ({ loss }) => loss).slice(from),
        })),
      },
    },
    ...groups.map((group) => ({
      kind: 'lines',
      chart: {
        title: `Mean entropy of a layer: ${group.name}`,
        xLabel: 'step',
        yLabel: 'nats',
        yZero: true,
        ordered: { label: 'layer', values: [0, 1, 2, 3] },
        series: [0, 1, 2, 3].map((l) => ({
          name: `layer ${l}`,
          x: steps,
          y: curveOf(group, ({ layers }) => layers[l]),
        })),
      },
    })),
  ],
});
writeFileSync('docs/papers/entropy-guided-attention.svg', await plotBytes(figure, 'entropy-guided-attention.svg'));

const percent = (shares) => shares.map((share) => `${Math.round(100 * share)}%`).join(' ');
for (const { name, losses, layers, shares, absolute } of rows) {
  console.log(
    `${name.padEnd(38)}loss ${mean(losses).toFixed(4)} ± ${deviation(losses).toFixed(4)}  ` +
      `layers ${layers.map((e) => e.toFixed(3)).join(' ')}  quarters ${percent(shares)}  of log T ${percent(absolute)}`,
  );
}
const [bare, scaled, tempered, guided] = rows;
const verdict = (holds) => (holds ? 'reproduced' : 'not reproduced');
const most = Math.log(LENGTH);
const greatest = Array.from({ length: LENGTH }, (_, i) => Math.log(i + 1) / LENGTH).reduce(
  (sum, part) => sum + part,
  0,
);
/** Whether the first is lower with every seed. */
const below = (a, b) => a.every((value, seed) => value < b[seed]);
console.log(`entropies of deep layers go to 0 without normalisation: ${verdict(bare.layers[3] < 0.1 * most)}`);
console.log(
  `the scaled branch is stable: ${verdict(scaled.isFinite)}; its loss is lower: ${below(scaled.losses, bare.losses)}`,
);
console.log(
  `with it, heads of the first layer are near the most there can be: ${verdict(scaled.layers[0] > 0.98 * greatest)}`,
);
console.log(`the regulariser empties the top quarter: ${verdict(below(guided.tops, scaled.tops))}`);
console.log(`and lowers the validation loss: ${verdict(below(guided.losses, scaled.losses))}`);
console.log(
  `against temperatures alone, with every seed: loss lower ${below(guided.losses, tempered.losses)}, top quarter smaller ${below(guided.tops, tempered.tops)}`,
);
