import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ClassData } from '../../src/distillation/class-data.js';
import { openClassModel } from '../../src/distillation/class-models.js';
import { type ClassTraining, classBatches, trainOnRows } from '../../src/distillation/classifier-training.js';
import { createRandom } from '../../src/random.js';
import { linearMarginSuprema, marginChange } from '../../src/training/losses/smooth-adversarial.js';
import type { OnnxStudent } from '../../src/training/onnx-student.js';
import { perturbedBatches } from '../../src/training/perturbed-batches.js';
import { type FeatureBatch, IGNORED } from '../../src/training/types.js';

const [ROWS, WIDTH, CLASSES] = [12, 5, 3];
const random = createRandom(5);
const labels = Int32Array.from({ length: ROWS }, (_, row) => row % CLASSES);
const data: ClassData = {
  name: 'points',
  rows: ROWS,
  dims: [WIDTH],
  features: Float32Array.from({ length: ROWS * WIDTH }, (_, i) => {
    const row = Math.floor(i / WIDTH);
    return random.normal() + (i % WIDTH === labels[row] ? 2 : 0);
  }),
  labels,
  classes: ['a', 'b', 'c'],
  warnings: [],
};
const options = { seed: 1, precision: 'f64', threads: 1 } as const;
let student: OnnxStudent<FeatureBatch>;
beforeAll(async () => {
  const model = { kind: 'network', text: 'mlp:8,tanh', standardize: 'none' } as const;
  student = await openClassModel(model, data, CLASSES, options);
});
afterAll(() => student.close());

async function logitsOf(batch: FeatureBatch): Promise<Float64Array> {
  let found = new Float64Array(0);
  await student.evaluate(batch, ({ logits }) => {
    found = Float64Array.from(logits);
  });
  return found;
}

test.each(['2', 'inf'] as const)(
  'copies stay in the %s ball and change the margins more than chance does',
  async (norm) => {
    const radius = 0.4;
    const source = await perturbedBatches(
      classBatches(data, ROWS, 3, 'f64'),
      student,
      { radius, norm, steps: 8 },
      { dims: [WIDTH], seed: 9, threads: 1 },
    );
    const batch = await source.batch(0);
    expect(batch.rows).toBe(2 * ROWS);
    expect([...batch.labels.subarray(ROWS)]).toEqual(new Array(ROWS).fill(IGNORED));
    expect(await source.batch(0)).toEqual(batch);
    const logits = await logitsOf(batch);
    const half = ROWS * WIDTH;
    const chance = { ...batch, features: batch.features.slice() };
    for (let row = 0; row < ROWS; row++) {
      const offset = Float64Array.from({ length: WIDTH }, () => random.normal());
      const from = row * WIDTH;
      const moved = offset.map((_, d) => batch.features[half + from + d] - batch.features[from + d]);
      const length = norm === '2' ? Math.hypot(...moved) : Math.max(...moved.map(Math.abs));
      expect(length).toBeLessThanOrEqual(radius * (1 + 1e-12));
      const scale = radius / (norm === '2' ? Math.hypot(...offset) : Math.max(...offset.map(Math.abs)));
      for (let d = 0; d < WIDTH; d++) chance.features[half + from + d] = batch.features[from + d] + scale * offset[d];
    }
    const randomLogits = await logitsOf(chance);
    const changes = (all: Float64Array): number => {
      let sum = 0;
      for (let row = 0; row < ROWS; row++) {
        sum += marginChange(all, row * CLASSES, all, (ROWS + row) * CLASSES, {
          classes: CLASSES,
          label: batch.labels[row],
        });
      }
      return sum;
    };
    expect(changes(logits)).toBeGreaterThan(1.2 * changes(randomLogits));
    await source.close();
  },
);

test('the copies of a linear classifier come near the supremum', async () => {
  const linear = await openClassModel({ kind: 'network', text: 'linear', standardize: 'none' }, data, CLASSES, options);
  const source = await perturbedBatches(
    classBatches(data, ROWS, 3, 'f64'),
    linear,
    { radius: 0.5, norm: '2', steps: 20 },
    { dims: [WIDTH], seed: 9, threads: 1 },
  );
  const batch = await source.batch(0);
  const [weight] = linear.parameters.parameters.filter(({ dims }) => dims.length === 2);
  const values = linear.parameters.values.slice(weight.offset, weight.offset + weight.length);
  const rows =
    weight.dims[0] === CLASSES ? values : values.map((_, i) => values[(i % WIDTH) * CLASSES + Math.floor(i / WIDTH)]);
  const suprema = linearMarginSuprema(rows, CLASSES, WIDTH, 0.5);
  let logits = new Float64Array(0);
  await linear.evaluate(batch, (block) => {
    logits = Float64Array.from(block.logits);
  });
  for (let row = 0; row < ROWS; row++) {
    const label = batch.labels[row];
    const change = marginChange(logits, row * CLASSES, logits, (ROWS + row) * CLASSES, { classes: CLASSES, label });
    expect(change).toBeLessThanOrEqual(suprema[label] * (1 + 1e-9));
    expect(change).toBeGreaterThan(0.97 * suprema[label]);
  }
  await source.close();
  await linear.close();
});

test('training by the smooth adversarial loss lowers the change of margins', async () => {
  const training: Omit<ClassTraining, 'loss'> = {
    ...{ steps: 40, batchSize: ROWS, accumulate: 1, learningRate: 0.02, warmupSteps: 0, finalShare: 0 },
    optimizer: { method: 'adamw' },
    schedule: 'constant',
    clipNorm: Number.POSITIVE_INFINITY,
    precision: 'f64',
  };
  const changeAfter = async (loss: string): Promise<number> => {
    const model = { kind: 'network', text: 'mlp:8,tanh', standardize: 'none' } as const;
    const own = await openClassModel(model, data, CLASSES, options);
    await trainOnRows({ student: own, data, training: { ...training, loss }, seed: 2, threads: 1 });
    const source = await perturbedBatches(
      classBatches(data, ROWS, 3, 'f64'),
      own,
      { radius: 0.3, norm: '2', steps: 10 },
      { dims: [WIDTH], seed: 1, threads: 1 },
    );
    const batch = await source.batch(0);
    let sum = 0;
    await own.evaluate(batch, ({ logits }) => {
      for (let row = 0; row < ROWS; row++) {
        const place = { classes: CLASSES, label: batch.labels[row] };
        sum += marginChange(logits, row * CLASSES, logits, (ROWS + row) * CLASSES, place);
      }
    });
    await source.close();
    await own.close();
    return sum / ROWS;
  };
  const plain = await changeAfter('ce');
  expect(await changeAfter('smooth-adversarial(nu=1,radius=0.3,norm=2,steps=3)')).toBeLessThan(0.8 * plain);
});
