import { Tensor } from 'onnxruntime-node';
import { composeGraph } from '../../src/models/graph.js';
import { createLoss } from '../../src/training/losses/index.js';
import { IGNORED, type LossOutput } from '../../src/training/types.js';
import { fed, graphVjp, shown } from './graph-vjp.js';
import type { Json } from './harness.js';
import { composeModel } from './model-graphs.js';
import { float64, int32, keysOf } from './tensors.js';

type Entry = { [key: string]: Json };

/** Labels of the rows of the logits: those that are given, or the next tokens. */
function labelsOf(inputs: Entry): Int32Array {
  if (inputs.labels !== undefined) return int32(inputs.labels, 'labels');
  const tokens = int32(inputs.x, 'x');
  const [, length] = (inputs.x as unknown as { shape: number[] }).shape;
  return tokens.map((_, i) => ((i + 1) % length === 0 ? IGNORED : tokens[i + 1]));
}

export async function run(inputs: Entry, wanted: Json): Promise<unknown> {
  const weights = Object.fromEntries(
    Object.entries(inputs.weights as Entry).map(([name, value]) => [name, fed(value, name)]),
  );
  const x = fed(inputs.x, 'x');
  const feeds: Record<string, Tensor> = { ...weights, x };
  const g = composeGraph('model', 'f64');
  for (const [name, value] of Object.entries(feeds)) g.input(name, value.type === 'int64' ? 'i64' : 'f64', value.dims);
  const logits = composeModel(g, {
    config: inputs.config as Entry,
    weights: new Map(Object.entries(weights).map(([name, { dims }]) => [name, dims])),
    input: x.dims,
  });
  g.publish(logits, 'logits');
  const graph = g.encode();
  const teacher = { kind: 'dense' as const, logits: float64(inputs.teacher_logits, 'teacher_logits') };
  const labels = labelsOf(inputs);

  const meanOf = async (loss: string): Promise<{ loss: number; grads: unknown; logits: unknown }> => {
    let output: LossOutput = { sum: 0, validRows: 0 };
    const valid = labels.filter((label) => label !== IGNORED).length;
    const { outputs, gradients } = await graphVjp({
      graph,
      feeds,
      wanted: keysOf((wanted as { [key: string]: Entry })[loss].grads),
      seeds: ['logits'],
      cotangents: ({ logits: given }) => {
        const student = given.data as Float64Array;
        const gradient = new Float64Array(student.length);
        const [classes] = given.dims.slice(-1);
        output = createLoss(loss).evaluate(
          { rows: labels.length, classes, student, teacher, labels },
          { logits: gradient, scale: 1 / valid },
        );
        return { logits: new Tensor('float64', gradient, given.dims) };
      },
    });
    const grads = Object.fromEntries(Object.entries(gradients).map(([name, value]) => [name, shown(value)]));
    return { loss: output.sum / output.validRows, grads, logits: shown(outputs.logits) };
  };
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    if (key === 'logits') continue;
    const { logits: own, ...rest } = await meanOf(key);
    result[key] = rest;
    result.logits = own;
  }
  return result;
}
