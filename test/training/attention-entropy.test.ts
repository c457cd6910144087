import { Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { entropyRegulariser } from '../../src/entropy/attention-regulariser.js';
import { attentionOfScores, scoreGradient, temperatureGradient } from '../../src/entropy/attention-temperature.js';
import { createEngine } from '../../src/models/engine.js';
import { composeGraph } from '../../src/models/graph.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { createRandom } from '../../src/random.js';
import { causalScores } from '../../src/training/attention-composition.js';
import {
  composeEntropyPenalty,
  composeTemperedAttention,
  createEntropyAttention,
  type EntropyAttention,
  LEAST_TEMPERATURE,
  type LearntRegulariser,
} from '../../src/training/attention-entropy.js';
import { openDecoderStudent } from '../../src/training/decoder-student.js';
import { unfoldableQueries } from '../../src/training/folded-queries.js';
import { createSavedBuffers, openSegment } from '../../src/training/graph-segment.js';
import { createOptimizer } from '../../src/training/optimizer.js';
import { IGNORED, type TokenBatch } from '../../src/training/types.js';

const model = (name: string): ReturnType<typeof openModelFiles> => openModelFiles(`fixtures/architectures/${name}`);
const OPTIONS = { precision: 'f64', threads: 1, batch: 2, length: 6 } as const;
const SHAPE = { batch: 2, heads: 3, queries: 5, keys: 5 };
const LAYERS = 4;

function random(length: number, seed: number, of: (value: number) => number = (value) => value): Float64Array {
  const stream = createRandom(seed);
  return Float64Array.from({ length }, () => of(stream.normal()));
}

/** Penalty, entropies and all gradients of one layer, by the graph. */
async function byGraph(
  settings: Omit<LearntRegulariser, 'thresholds' | 'learn'>,
  values: { readonly scores: Float64Array; readonly temperatures: Float64Array; readonly thresholds: Float64Array },
) {
  const { batch, heads, queries } = SHAPE;
  const g = composeGraph('penalty', 'f64');
  const scores = g.input('scores', 'f64', ['batch', heads, queries, queries]);
  const mask = g.input('mask', 'f64', [queries, queries]);
  const counted = g.input('counted', 'f64', ['batch', 1, queries]);
  const temperatures = g.input('temperatures', 'f64', [heads, queries, 1]);
  const thresholds = g.input('thresholds', 'f64', [heads, 1]);
  const { entropies } = composeTemperedAttention(g, { scores, mask }, temperatures);
  g.publish(entropies, 'entropies');
  const penalty = composeEntropyPenalty(g, { entropies, thresholds, counted }, { ...settings, layers: LAYERS, heads });
  g.publish(penalty, 'penalty');
  const tensor = (data: Float64Array, dims: readonly number[]): Tensor => new Tensor('float64', data, dims);
  const feeds = {
    scores: tensor(values.scores, [batch, heads, queries, queries]),
    mask: tensor(causalScores(queries, undefined, 'f64') as Float64Array, [queries, queries]),
    counted: tensor(new Float64Array(batch * queries).fill(1), [batch, 1, queries]),
    temperatures: tensor(values.temperatures, [heads, queries, 1]),
    thresholds: tensor(values.thresholds, [heads, 1]),
  };
  const wanted = ['scores', 'temperatures', 'thresholds'] as const;
  const segment = await openSegment({
    graph: g.encode(),
    wanted,
    seeds: ['penalty'],
    example: feeds,
    precision: 'f64',
    threads: 1,
    recompute: false,
    fixedShapes: true,
  });
  const { outputs, saved } = await segment.forward(
    feeds,
    { penalty: null, entropies: null },
    createSavedBuffers(),
    'one',
  );
  const into = Object.fromEntries(
    wanted.map((name) => [name, tensor(new Float64Array(feeds[name].data.length), feeds[name].dims)]),
  );
  await segment.backward(feeds, saved, { penalty: tensor(Float64Array.of(1), []) }, into);
  await segment.close();
  const dataOf = (name: string): Float64Array => (outputs[name] as Tensor).data as Float64Array;
  return {
    penalty: dataOf('penalty')[0],
    entropies: dataOf('entropies'),
    gradients: Object.fromEntries(wanted.map((name) => [name, into[name].data as Float64Array])),
  };
}

function expectClose(found: ArrayLike<number>, wanted: ArrayLike<number>): void {
  expect(found.length).toBe(wanted.length);
  for (let i = 0; i < found.length; i++) expect(Math.abs(found[i] - wanted[i])).toBeLessThan(1e-10);
}

describe('the entropy penalty in the graph', () => {
  it.each(['code', 'algorithm1'] as const)('%s: value and gradients are those of the analysis', async (reduction) => {
    const { batch, heads, queries, keys } = SHAPE;
    const rows = batch * heads * queries;
    const scores = random(rows * keys, 1, (value) => 2 * value);
    const temperatures = random(heads * queries, 2, (value) => Math.exp(0.5 * value));
    const thresholds = Float64Array.of(0.1, 0.45, 0.9);
    const settings = { reduction, gamma: 0.15, lambda: 0.3, contextSize: 7 };
    const graph = await byGraph(settings, { scores, temperatures, thresholds });

    const ofRow = (row: number): number => temperatures[row % (heads * queries)];
    const tempered = scores.map((score, at) => {
      const row = Math.floor(at / keys);
      return at % keys > row % queries ? Number.NEGATIVE_INFINITY : score / ofRow(row);
    });
    const { attention, rows: measured } = attentionOfScores(tempered, { heads: batch * heads, queries, keys });
    expectClose(graph.entropies, measured.entropyNats);
    // One layer of four: the others are not there, so that theirs is a quarter of the sum.
    const shape = { layers: 1, batch, heads, queries };
    const { loss, thresholdGradient, entropyGradient } = entropyRegulariser(measured.entropyNats, shape, thresholds, {
      ...settings,
      coefficient: settings.lambda / LAYERS,
    });
    expect(Math.abs(graph.penalty - loss)).toBeLessThan(1e-10);
    expect(loss).toBeGreaterThan(0);
    expectClose(graph.gradients.thresholds, thresholdGradient);
    const byTempered = scoreGradient(attention, measured.entropyNats, entropyGradient);
    expectClose(
      graph.gradients.scores,
      byTempered.map((value, at) => value / ofRow(Math.floor(at / keys))),
    );
    const all = Float64Array.from({ length: rows }, (_, row) => ofRow(row));
    const byRow = temperatureGradient(measured.scoreVariance, all, entropyGradient);
    const summed = new Float64Array(heads * queries);
    byRow.forEach((value, row) => {
      summed[row % summed.length] += value;
    });
    expectClose(graph.gradients.temperatures, summed);
  });
});

function tokensOf(labels?: (token: number, at: number) => number): TokenBatch {
  const stream = createRandom(5);
  const tokens = Int32Array.from({ length: 12 }, () => stream.integer(67));
  return { tokens, labels: labels ? tokens.map(labels) : tokens, batch: 2, length: 6, windows: new Int32Array(2) };
}

const REGULARISER = { reduction: 'algorithm1', gamma: 0.1, lambda: 0.05, contextSize: 6 } as const;
const thresholdsOf = (count: number): Float64Array => random(count, 4, (value) => 1 / (1 + Math.exp(-value)));

function guided(name: string, positions: 1 | 6, learn = true): EntropyAttention {
  const { description } = model(name);
  const count = description.layers.length * description.layers[0].attention.heads;
  return createEntropyAttention(
    description,
    {
      temperatures: { start: random(count * positions, 3, (value) => Math.exp(0.3 * value)), positions },
      regulariser: { ...REGULARISER, learn, thresholds: thresholdsOf(count) },
    },
    6,
  );
}

describe('entropy-regularised attention of a decoder', () => {
  it('has the penalty of the analysis over its layers, and tells the entropies', async () => {
    const attention = guided('llama-biases', 6);
    const student = await openDecoderStudent(model('llama-biases'), { ...OPTIONS, attention });
    const { layers } = student.description;
    const [term] = await student.accumulate(tokensOf(), () => undefined);
    expect(term.name).toBe('attention-entropy');
    const { queries, means } = attention.take();
    expect(queries).toBe(12);
    const count = means.length;
    const shape = { layers: layers.length, batch: 1, heads: count / layers.length, queries: 1 };
    const { loss } = entropyRegulariser(means, shape, thresholdsOf(count), { ...REGULARISER, coefficient: 0.05 });
    expect(Math.abs(term.value - loss)).toBeLessThan(1e-10);
    expect(loss).toBeGreaterThan(0);
    const most = Array.from({ length: 6 }, (_, i) => Math.log(i + 1) / 6).reduce((sum, part) => sum + part, 0);
    for (const mean of means) {
      expect(mean).toBeGreaterThan(0);
      expect(mean).toBeLessThan(most);
    }
    // Queries behind the last label of a window count nowhere.
    await student.accumulate(
      tokensOf((token, at) => (at % 6 > 3 ? IGNORED : token)),
      () => undefined,
    );
    expect(attention.take().queries).toBe(8);
    await student.close();
  });

  it.each(['llama-biases', 'gpt2', 'gpt-neox-parallel', 'phi3', 'olmoe'])(
    '%s: temperatures of heads fold into the queries, so that the engine sees them',
    async (name) => {
      const student = await openDecoderStudent(model(name), { ...OPTIONS, attention: guided(name, 1) });
      const batch = tokensOf();
      const seen: number[] = [];
      await student.evaluate(batch, ({ logits }) => {
        seen.push(...logits);
      });
      const engine = await createEngine(student.currentModel(), {
        ...{ threads: 1, maxMemoryBytes: 4e9, device: 'cpu', precision: 'f64', context: 6 },
      } as const);
      const [group] = await engine.forward({ windows: [batch.tokens.subarray(0, 6), batch.tokens.subarray(6)] });
      await engine.normalize(group.stream);
      const logits = await engine.logits(group.stream);
      expectClose(seen, logits);
      await engine.close();
      await student.close();
    },
  );

  it('trains thresholds and temperatures alone when all weights are frozen', async () => {
    const student = await openDecoderStudent(model('llama-biases'), {
      ...OPTIONS,
      attention: guided('llama-biases', 1),
      freeze: ['*'],
    });
    const { parameters, gradients } = student.parameters;
    expect(parameters.every(({ name }) => /^attention\.\d\.(temperature|threshold)$/.test(name))).toBe(true);
    await student.accumulate(tokensOf(), ({ gradient }) => {
      gradient?.fill(0.1).set([3, -2, 1]);
    });
    for (const { offset, length } of parameters.filter(({ name }) => name.endsWith('temperature'))) {
      expect(gradients.subarray(offset, offset + length).every((value) => value !== 0)).toBe(true);
    }
    await student.close();
  });

  it('says where temperatures cannot be folded', () => {
    expect(unfoldableQueries(model('gemma2').description)).toMatch(/capped/);
    expect(unfoldableQueries(model('olmoe-clip').description)).toMatch(/clipped/);
    expect(unfoldableQueries(model('qwen3').description)).toMatch(/normalised head by head/);
  });

  it('keeps thresholds that are given, confines what is trained, and decays neither', async () => {
    const fixed = await openDecoderStudent(model('llama-biases'), {
      ...OPTIONS,
      attention: guided('llama-biases', 1, false),
    });
    const names = fixed.parameters.parameters.map(({ name }) => name);
    expect(names).toContain('attention.1.temperature');
    expect(names.some((name) => name.endsWith('threshold'))).toBe(false);
    await fixed.close();

    const student = await openDecoderStudent(model('llama-biases'), {
      ...OPTIONS,
      attention: guided('llama-biases', 6),
    });
    const { parameters, values } = student.parameters;
    const of = (name: string): Float64Array => {
      const { offset, length } = parameters.find((one) => one.name === name) ?? { offset: 0, length: 0 };
      return values.subarray(offset, offset + length) as Float64Array;
    };
    const before = Float64Array.from(of('attention.0.temperature'));
    const weight = of('model.layers.0.mlp.down_proj.weight').slice();
    createOptimizer(student.parameters, { method: 'adamw', weightDecay: 0.5 }).step({ learningRate: 0.1 });
    expect(of('attention.0.temperature')).toEqual(before);
    expect(of('model.layers.0.mlp.down_proj.weight')[0]).toBeCloseTo(0.95 * weight[0], 12);
    of('attention.0.temperature').fill(-1);
    of('attention.1.threshold').fill(2);
    student.confine();
    expect(of('attention.0.temperature')[0]).toBe(LEAST_TEMPERATURE);
    expect(of('attention.1.threshold')[0]).toBe(1);
    await student.close();
  });
});
