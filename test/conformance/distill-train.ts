import { createDataOrder } from '../../src/training/data-order.js';
import { parseLosses } from '../../src/training/losses/loss-text.js';
import { parseNetwork } from '../../src/training/network-text.js';
import { composeNetwork } from '../../src/training/networks.js';
import { createObjective } from '../../src/training/objective.js';
import { openOnnxStudent } from '../../src/training/onnx-student.js';
import { train } from '../../src/training/trainer.js';
import type { FeatureBatch, Parameter } from '../../src/training/types.js';
import type { Json } from './harness.js';
import { float64, int32, keysOf, shapeOf, tensor } from './tensors.js';

/** How the cases were trained, by their notes. */
const BATCH = 4;
const EPOCHS = 3;
const LEARNING_RATE = 0.02;
const LOSSES: Readonly<Record<string, string>> = { kd: '0.1*ce + 0.9*kd(T=4)', pld: 'pld(tau=2)' };

/** The cases' names of tensors. Their matrices are [in, out], ours [out, in]. */
const NAMES: Readonly<Record<string, string>> = {
  w1: 'layers.0.weight',
  b1: 'layers.0.bias',
  w2: 'head.weight',
  b2: 'head.bias',
};

function transposed(matrix: Float64Array, rows: number, columns: number): Float64Array {
  const turned = new Float64Array(matrix.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) turned[j * rows + i] = matrix[i * columns + j];
  return turned;
}

const rowsOf = (data: Float64Array, items: Int32Array, width: number): Float64Array => {
  const rows = new Float64Array(items.length * width);
  for (const [r, item] of items.entries()) rows.set(data.subarray(item * width, (item + 1) * width), r * width);
  return rows;
};

export async function run(inputs: { [key: string]: Json }, wanted: Json): Promise<unknown> {
  const [count, width] = shapeOf(inputs.X, 'X');
  const [, classes] = shapeOf(inputs.teacher_logits, 'teacher_logits');
  const init = inputs.init as { [key: string]: Json };
  const [, hidden] = shapeOf(init.w1, 'w1');
  const features = float64(inputs.X, 'X');
  const labels = int32(inputs.labels, 'labels');
  const teacher = float64(inputs.teacher_logits, 'teacher_logits');
  const name = String(inputs.loss);
  const network = composeNetwork(parseNetwork(`mlp:${hidden},relu`), {
    dims: [width],
    classes,
    seed: 0,
    precision: 'f64',
  });
  const student = await openOnnxStudent(network.model, { precision: 'f64', threads: 1 });
  try {
    const { parameters, values } = student.parameters;
    const place = (key: string): Parameter => {
      const found = parameters.find((parameter) => parameter.name === NAMES[key]);
      if (found === undefined) throw new TypeError(`the student has no ${NAMES[key]}`);
      return found;
    };
    for (const key of Object.keys(NAMES)) {
      const shape = shapeOf(init[key], key);
      const data = float64(init[key], key);
      values.set(shape.length === 2 ? transposed(data, shape[0], shape[1]) : data, place(key).offset);
    }
    const order = createDataOrder({ count, batchSize: BATCH, seed: 0, shuffle: false });
    const batch = (index: number): FeatureBatch => {
      const items = order.items(index);
      return {
        features: rowsOf(features, items, width),
        rows: items.length,
        labels: Int32Array.from(items, (item) => labels[item]),
        indices: items,
      };
    };
    const objective = createObjective<FeatureBatch>(parseLosses(LOSSES[name] ?? name), {
      labels: (rows) => rows.labels,
      teacher: ({ indices }, { firstRow, rows }) => ({
        kind: 'dense',
        logits: rowsOf(teacher, indices.subarray(firstRow, firstRow + rows), classes),
      }),
    });
    const trace: number[] = [];
    await train(
      student,
      { perEpoch: order.perEpoch, batch },
      objective,
      {
        steps: EPOCHS * order.perEpoch,
        optimizer: { method: 'adamw', weightDecay: 0.01 },
        schedule: { learningRate: LEARNING_RATE },
      },
      { onStep: (record) => void trace.push(record.loss) },
    );
    const final = Object.keys(NAMES).map((key) => {
      const shape = shapeOf(init[key], key);
      const { offset, length } = place(key);
      const data = Float64Array.from(values.subarray(offset, offset + length));
      return [key, tensor(shape, shape.length === 2 ? transposed(data, shape[1], shape[0]) : data)];
    });
    const named: Record<string, unknown> = {
      loss_trace: tensor([trace.length], Float64Array.from(trace)),
      final: Object.fromEntries(final),
    };
    return Object.fromEntries(keysOf(wanted).map((key) => [key, named[key]]));
  } finally {
    await student.close();
  }
}
