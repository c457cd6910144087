/**
 * Softmax-only transformers over characters (specification of entropy analyses, section B): (i) nothing in the place of
 * layer norm, (ii) the scaled feed-forward branch, (iii) that with learnable temperatures and the entropy regulariser;
 * between the two, temperatures alone, to tell what the regulariser adds.
 * Claims: (i) entropies of deep layers go to 0; (ii) is stable, with heads of the first layer near the most there can
 * be; (iii) has fewer heads in the top quarter and a lower validation loss.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { quartileBins } from '../../dist/src/entropy/attention-diagnosis.js';
import { createRandom } from '../../dist/src/random.js';
import { chartFigure } from '../../dist/src/report/plots/chart-figure.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';
import { createAdam, createModel, crossEntropy, forward, lossAndGradients } from '../softmax-only-model.mjs';

const TEXT = 'fixtures/text/heldout_text.jsonl';
const STEPS = 600;
const RATE = 3e-3;
const BATCH = 16;
const EVERY = 20;
const LENGTH = 64;

const text = readFileSync(TEXT, 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line).text)
  .join('\n');
const characters = [...new Set(text)].sort();
const ids = Int32Array.from(text, (character) => characters.indexOf(character));
const cut = Math.floor(0.9 * ids.length);
const shape = { layers: 4, heads: 4, width: 64, inner: 256, length: LENGTH, vocabulary: characters.length };

/** Inputs and targets of windows that begin at the given places. */
function windows(starts) {
  const tokens = new Int32Array(starts.length * LENGTH);
  const targets = new Int32Array(tokens.length);
  starts.forEach((start, b) => {
    tokens.set(ids.subarray(start, start + LENGTH), b * LENGTH);
    targets.set(ids.subarray(start + 1, start + LENGTH + 1), b * LENGTH);
  });
  return { tokens, targets };
}

const held = [];
for (let start = cut; start + LENGTH + 1 < ids.length && held.length < 128; start += LENGTH) held.push(start);

/** Mean entropy of every head over the held-out windows, nats, [layers * heads], and their loss. */
function validate(model) {
  const sums = new Float64Array(shape.layers * shape.heads);
  let loss = 0;
  for (let first = 0; first < held.length; first += BATCH) {
    const starts = held.slice(first, first + BATCH);
    const { tokens, targets } = windows(starts);
    const { logits, kept } = forward(model, tokens, starts.length);
    loss += (crossEntropy(logits, targets, shape.vocabulary).loss * starts.length) / held.length;
    kept.forEach(({ entropies }, l) => {
      entropies.forEach((entropy, row) => {
        sums[l * shape.heads + (Math.floor(row / LENGTH) % shape.heads)] += entropy / (held.length * LENGTH);
      });
    });
  }
  return { loss, entropies: sums };
}

const layerMeans = (entropies) =>
  Array.from({ length: shape.layers }, (_, l) => {
    const own = entropies.subarray(l * shape.heads, (l + 1) * shape.heads);
    return own.reduce((sum, entropy) => sum + entropy, 0) / shape.heads;
  });

function train(name, settings) {
  const model = createModel(shape, settings, createRandom(1).fork(0));
  const update = createAdam(model, { rate: RATE, decay: 0.01 });
  const places = createRandom(1).fork(1);
  const history = [];
  for (let step = 0; step <= STEPS; step++) {
    if (step % EVERY === 0) {
      const { loss, entropies } = validate(model);
      history.push({ step, loss, layers: layerMeans(entropies), entropies });
      if (step % (10 * EVERY) === 0) console.error(`${name}, step ${step}: validation loss ${loss.toFixed(3)}`);
    }
    if (step === STEPS) break;
    const starts = Array.from({ length: BATCH }, () => Math.floor(places.uniform() * (cut - LENGTH - 1)));
    const { tokens, targets } = windows(starts);
    const { gradients } = lossAndGradients(model, tokens, targets, BATCH);
    const warm = Math.min(1, (step + 1) / 50);
    update(gradients, warm * (0.55 + 0.45 * Math.cos((Math.PI * step) / STEPS)));
  }
  return { name, history };
}

const ways = [
  ['no normalisation', { scaledFfn: false }],
  ['scaled FFN', { scaledFfn: true }],
  ['scaled FFN, temperatures', { scaledFfn: true, temperatures: 1e-2 }],
  [
    'scaled FFN, temperatures, regularised',
    { scaledFfn: true, temperatures: 1e-2, thresholds: true, regulariser: { gamma: 0.2, lambda: 1e-5 } },
  ],
];
const runs = ways.map(([name, settings]) => train(name, settings));

const rows = runs.map(({ name, history }) => {
  const { loss, layers, entropies } = history[history.length - 1];
  const worst = history.some((point) => !Number.isFinite(point.loss));
  return {
    name,
    loss,
    layers,
    shares: [...quartileBins(entropies).fractions],
    absolute: [...quartileBins(entropies, Math.log(LENGTH)).fractions],
    worst,
  };
});
const columns = [
  'configuration',
  'step',
  'validation_loss_nats',
  ...[0, 1, 2, 3].map((l) => `layer_${l}_entropy_nats`),
];
const lines = runs.flatMap(({ name, history }) =>
  history.map(({ step, loss, layers }) => [`"${name}"`, step, loss, ...layers].join(',')),
);
writeFileSync('docs/papers/entropy-guided-attention.csv', `${[columns.join(','), ...lines].join('\n')}\n`);
const figure = await chartFigure({
  title: 'Softmax-only transformers: what keeps attention from collapsing',
  subtitle: `4 layers of 4 heads, windows of ${LENGTH} characters, ${STEPS} steps`,
  charts: [
    {
      kind: 'lines',
      chart: {
        title: 'Validation loss, from step 100 on',
        xLabel: 'step',
        yLabel: 'nats per character',
        width: 964,
        series: runs.map(({ name, history }) => ({
          name,
          x: history.filter((p) => p.step >= 100).map((p) => p.step),
          y: history.filter((p) => p.step >= 100).map((p) => p.loss),
        })),
      },
    },
    ...runs.map(({ name, history }) => ({
      kind: 'lines',
      chart: {
        title: `Mean entropy of a layer: ${name}`,
        xLabel: 'step',
        yLabel: 'nats',
        yZero: true,
        ordered: { label: 'layer', values: [0, 1, 2, 3] },
        series: [0, 1, 2, 3].map((l) => ({
          name: `layer ${l}`,
          x: history.map((p) => p.step),
          y: history.map((p) => p.layers[l]),
        })),
      },
    })),
  ],
});
writeFileSync('docs/papers/entropy-guided-attention.svg', await plotBytes(figure, 'entropy-guided-attention.svg'));

const percent = (shares) => shares.map((share) => `${Math.round(100 * share)}%`).join(' ');
for (const { name, loss, layers, shares, absolute } of rows) {
  console.log(
    `${name.padEnd(38)}loss ${loss.toFixed(4)}  layers ${layers.map((e) => e.toFixed(3)).join(' ')}  ` +
      `quarters ${percent(shares)}  of log T ${percent(absolute)}`,
  );
}
const [bare, scaled, tempered, guided] = rows;
const verdict = (holds) => (holds ? 'reproduced' : 'not reproduced');
const most = Math.log(LENGTH);
console.log(`entropies of deep layers go to 0 without normalisation: ${verdict(bare.layers[3] < 0.1 * most)}`);
console.log(`the scaled branch is stable: ${verdict(!scaled.worst && scaled.loss < bare.loss)}`);
console.log(
  `with it, heads of the first layer are near the most there can be: ${verdict(scaled.layers[0] > 0.9 * (most - 1 + 1 / LENGTH))}`,
);
console.log(`the regulariser empties the top quarter: ${verdict(guided.shares[3] < scaled.shares[3])}`);
console.log(`and lowers the validation loss: ${verdict(guided.loss < scaled.loss)}`);
console.log(
  `against temperatures alone: loss ${guided.loss < tempered.loss ? 'lower' : 'not lower'}, top quarter ${guided.shares[3] < tempered.shares[3] ? 'smaller' : 'not smaller'}`,
);
