// A run that takes a while, for tests that end it: `node long-run.mjs DIRECTORY STEPS [checkpoint every]`. A softmax regression with
// AdamW, checkpoints in DIRECTORY, metrics beside them; a line with the step behind each step, and the values' hash at
// the end.
import { createHash } from 'node:crypto';
import { join } from 'node:path';

const source = new URL('../../dist/src/', import.meta.url);
const load = (name) => import(new URL(name, source));
const { openCheckpoints } = await load('training/checkpoint.js');
const { createDataOrder } = await load('training/data-order.js');
const { parseLosses } = await load('training/losses/loss-text.js');
const { openMetricsFile } = await load('training/metrics-file.js');
const { parseNetwork } = await load('training/network-text.js');
const { composeNetwork } = await load('training/networks.js');
const { createObjective } = await load('training/objective.js');
const { openOnnxStudent } = await load('training/onnx-student.js');
const { train } = await load('training/trainer.js');
const { createRandom } = await load('random.js');

const [directory, steps, checkpointEvery = '3'] = process.argv.slice(2);
const [rows, width, classes] = [200, 20, 5];
const random = createRandom(9);
const labels = Int32Array.from({ length: rows }, () => random.integer(classes));
const features = Float32Array.from({ length: rows * width }, (_, i) => {
  const label = labels[Math.floor(i / width)];
  return random.normal() + (i % classes === label ? 1 : 0);
});
const order = createDataOrder({ count: rows, batchSize: 16, seed: 2 });
const batches = {
  perEpoch: order.perEpoch,
  batch(index) {
    const items = order.items(index);
    const taken = new Float32Array(items.length * width);
    for (const [r, item] of items.entries()) taken.set(features.subarray(item * width, (item + 1) * width), r * width);
    return { features: taken, rows: items.length, labels: Int32Array.from(items, (i) => labels[i]), indices: items };
  },
};
const network = composeNetwork(parseNetwork('mlp:400-200,relu'), { dims: [width], classes, seed: 1 });
const student = await openOnnxStudent(network.model, { precision: 'f32', threads: 1 });
const objective = createObjective(parseLosses('ce'), { labels: (batch) => batch.labels });
try {
  const checkpoints = openCheckpoints(join(directory, 'checkpoints'), { model: 'm', seed: 2, configuration: {} });
  const metrics = openMetricsFile(join(directory, 'metrics.csv'), {
    terms: objective.terms,
    resumeAt: checkpoints.last ?? 0,
  });
  await train(
    student,
    batches,
    objective,
    {
      steps: Number(steps),
      optimizer: { method: 'adamw' },
      schedule: { learningRate: 1e-3 },
      accumulate: 2,
      clipNorm: 1,
      checkpointEvery: Number(checkpointEvery),
      threads: 1,
    },
    {
      checkpoints,
      onStep(record) {
        metrics.append(record);
        console.log(`step ${record.step}`);
      },
    },
  );
  metrics.close();
  console.log(createHash('sha256').update(new Uint8Array(student.parameters.values.buffer)).digest('hex'));
} catch (error) {
  console.error(`${error.name}: ${error.message}`);
  process.exitCode = error.exitCode ?? 70;
} finally {
  await student.close();
}
