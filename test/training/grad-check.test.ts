import { describe, expect, it } from 'vitest';
import { decodeOnnxModel } from '../../src/formats/onnx.js';
import { type ModelProto, TensorProto_DataType } from '../../src/formats/onnx_pb.js';
import { graphOf, onnxTensor } from '../../src/formats/onnx-edit.js';
import { composeGraph } from '../../src/models/graph.js';
import { gradCheck, missingDoubleKernel, openForGradCheck } from '../../src/training/grad-check.js';
import { parseLosses } from '../../src/training/losses/loss-text.js';
import { createObjective, type Objective } from '../../src/training/objective.js';
import type { FeatureBatch } from '../../src/training/types.js';

function network(activation: string): ModelProto {
  const g = composeGraph('network', 'f32');
  g.input('x', 'f32', ['rows', 4]);
  const hidden = g.node(activation, [g.node('Gemm', ['x', 'w1', 'b1'])]);
  g.node('MatMul', [hidden, 'w2'], { outputs: ['logits'] });
  g.output('logits', 'f32', ['rows', 3]);
  const model = decodeOnnxModel(g.encode(), 'network');
  for (const [name, dims, phase] of [
    ['w1', [4, 6], 0.3],
    ['b1', [6], 1],
    ['w2', [6, 3], 2],
  ] as const) {
    const length = dims.reduce((a, b) => a * b, 1);
    const values = Float32Array.from({ length }, (_, i) => Math.sin(phase + 1.3 * i));
    graphOf(model).initializer.push(onnxTensor(name, TensorProto_DataType.FLOAT, dims, new Uint8Array(values.buffer)));
  }
  return model;
}

const BATCH: FeatureBatch = {
  features: Float64Array.from({ length: 20 }, (_, i) => Math.cos(0.4 + 0.9 * i)),
  rows: 5,
  labels: Int32Array.of(0, 1, 2, 1, 0),
  indices: Int32Array.of(0, 1, 2, 3, 4),
};
const objective = (): Objective<FeatureBatch> =>
  createObjective(parseLosses('ce'), { labels: ({ labels }: FeatureBatch) => labels });

describe('gradient check', () => {
  it('passes a graph in double precision', async () => {
    const { student, missing } = await openForGradCheck<FeatureBatch>(network('Tanh'), { threads: 1 });
    const before = student.parameters.values.slice();
    const found = await gradCheck(student, BATCH, objective());
    expect(missing).toBeUndefined();
    expect(found.precision).toBe('f64');
    expect(found.passed).toBe(true);
    expect(found.parameters.map(({ name }) => name)).toEqual(['w1', 'b1', 'w2']);
    for (const { relativeError, directionError } of found.parameters) {
      expect(relativeError).toBeLessThan(1e-8);
      expect(directionError).toBeLessThan(1e-8);
    }
    expect(student.parameters.values).toEqual(before);
    expect(student.parameters.gradients.every((value) => value === 0)).toBe(true);
    await student.close();
  });

  it('names the operator that has no double kernel and checks in single precision', async () => {
    const { student, missing } = await openForGradCheck<FeatureBatch>(network('Atan'), { threads: 1 });
    const found = await gradCheck(student, BATCH, objective());
    expect(missing).toBe('Atan');
    expect(found).toMatchObject({ precision: 'f32', tolerance: 2e-2, passed: true });
    await student.close();
  });

  it('finds a wrong gradient, its tensor and element', async () => {
    const { student } = await openForGradCheck<FeatureBatch>(network('Tanh'), { threads: 1 });
    const wrong = {
      ...student,
      async accumulate(...given: Parameters<typeof student.accumulate>) {
        const terms = await student.accumulate(...given);
        student.parameters.gradients[24] *= -1; // b1[0]
        return terms;
      },
    };
    const found = await gradCheck(wrong, BATCH, objective());
    expect(found.passed).toBe(false);
    expect(found.worst).toBe('b1');
    expect(found.parameters[1].worst.index).toEqual([0]);
    expect(found.parameters.filter(({ passed }) => !passed).map(({ name }) => name)).toEqual(['b1']);
    await student.close();
  });

  it('takes no other error for a missing kernel', () => {
    expect(missingDoubleKernel(new Error('Could not find an implementation for Erf(13)'))).toBeUndefined();
  });
});
