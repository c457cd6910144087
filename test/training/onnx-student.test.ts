import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { decodeOnnxModel, readOnnxModel } from '../../src/formats/onnx.js';
import { type ModelProto, TensorProto_DataType } from '../../src/formats/onnx_pb.js';
import { graphOf, onnxTensor } from '../../src/formats/onnx-edit.js';
import { composeGraph } from '../../src/models/graph.js';
import { openOnnxStudent } from '../../src/training/onnx-student.js';
import type { FeatureBatch, LogitsVisitor } from '../../src/training/types.js';
import { weightCandidates } from '../../src/training/weight-candidates.js';

interface Stored {
  readonly shape: number[];
  readonly data: number[];
}

/** x W1 + b1, relu, W2 + b2, with trainable initializers. */
function mlp(weights: Readonly<Record<string, Stored>>, dropout = 0): ModelProto {
  const g = composeGraph('mlp', 'f64');
  g.input('x', 'f64', ['rows', weights.w1.shape[0]]);
  g.node('Gemm', ['x', 'w1', 'b1'], { outputs: ['before'] });
  g.node('Relu', ['before'], { outputs: ['hidden'] });
  const last = dropout > 0 ? g.node('Dropout', ['hidden', g.scalar(dropout)]) : 'hidden';
  g.node('Gemm', [last, 'w2', 'b2'], { outputs: ['logits'] });
  g.output('logits', 'f64', ['rows', weights.w2.shape[1]]);
  const model = decodeOnnxModel(g.encode(), 'mlp');
  for (const [name, { shape, data }] of Object.entries(weights)) {
    const bytes = new Uint8Array(Float64Array.from(data).buffer);
    graphOf(model).initializer.push(onnxTensor(name, TensorProto_DataType.DOUBLE, shape, bytes));
  }
  return model;
}

const waves = (shape: number[], phase: number): Stored => ({
  shape,
  data: Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(phase + 1.3 * i)),
});
const WEIGHTS = { w1: waves([4, 6], 0.1), b1: waves([6], 0.7), w2: waves([6, 3], 1.9), b2: waves([3], 2.2) };

const batchOf = (rows: number): FeatureBatch => ({
  features: Float64Array.from({ length: rows * 4 }, (_, i) => Math.cos(0.4 + 0.9 * i)),
  rows,
  labels: new Int32Array(rows),
  indices: Int32Array.from({ length: rows }, (_, i) => i),
});

/** L = sum over all logits of logit^2 / 2. */
const squares =
  (total: { value: number }): LogitsVisitor =>
  ({ logits, gradient }) => {
    logits.forEach((logit, i) => {
      total.value += (logit * logit) / 2;
      if (gradient) gradient[i] += logit;
    });
  };

describe('ONNX students', () => {
  it('give the gradients that central differences give, and add them up over micro-batches', async () => {
    const student = await openOnnxStudent(mlp(WEIGHTS), { precision: 'f64', threads: 1 });
    const { values, gradients, parameters } = student.parameters;
    expect(parameters.map(({ name }) => name)).toEqual(['w1', 'b1', 'w2', 'b2']);
    expect(student.classes).toBe(3);
    await student.accumulate(batchOf(5), squares({ value: 0 }));
    await student.accumulate(batchOf(2), squares({ value: 0 }));
    const value = async (): Promise<number> => {
      const total = { value: 0 };
      await student.evaluate(batchOf(5), squares(total));
      await student.evaluate(batchOf(2), squares(total));
      return total.value;
    };
    for (let i = 0; i < values.length; i += 3) {
      const at = values[i];
      values[i] = at + 1e-5;
      const above = await value();
      values[i] = at - 1e-5;
      const below = await value();
      values[i] = at;
      expect(gradients[i]).toBeCloseTo((above - below) / 2e-5, 6);
    }
    await student.close();
  });

  it('reuse buffers for batches of any size', async () => {
    const student = await openOnnxStudent(mlp(WEIGHTS), { precision: 'f64', threads: 1 });
    const gradientOf = async (rows: number): Promise<number[]> => {
      student.parameters.gradients.fill(0);
      await student.accumulate(batchOf(rows), squares({ value: 0 }));
      return Array.from(student.parameters.gradients);
    };
    const first = await gradientOf(5);
    await gradientOf(2);
    await gradientOf(7);
    expect(await gradientOf(5)).toEqual(first);
    expect((await gradientOf(0)).every((entry) => entry === 0)).toBe(true);
    await student.close();
  });

  it('show features and take their gradient', async () => {
    const student = await openOnnxStudent(mlp(WEIGHTS), {
      precision: 'f64',
      threads: 1,
      features: 'hidden',
      train: ['w1'],
    });
    expect(student.parameters.parameters.map(({ name }) => name)).toEqual(['w1']);
    expect(student.featureWidth).toBe(6);
    let sum = 0;
    const visit: LogitsVisitor = ({ features, featureGradient }) => {
      features?.forEach((feature, i) => {
        sum += (feature * feature) / 2;
        if (featureGradient) featureGradient[i] += feature;
      });
    };
    await student.accumulate(batchOf(3), visit);
    const { values, gradients } = student.parameters;
    const at = values[2];
    const sums: number[] = [];
    for (const step of [1e-5, -1e-5]) {
      values[2] = at + step;
      sum = 0;
      await student.evaluate(batchOf(3), visit);
      sums.push(sum);
    }
    expect(gradients[2]).toBeCloseTo((sums[0] - sums[1]) / 2e-5, 6);
    await student.close();
  });

  it('add a scalar of the graph to the loss, times the factor of their own terms', async () => {
    const g = composeGraph('penalised', 'f64');
    g.input('x', 'f64', ['rows', 4]);
    g.node('MatMul', ['x', 'w'], { outputs: ['logits'] });
    const bounded = g.node('Tanh', ['logits']);
    g.publish(g.node('ReduceSum', [bounded], { attributes: { keepdims: { int: 0 } } }), 'penalty');
    g.output('logits', 'f64', ['rows', 3]);
    const model = decodeOnnxModel(g.encode(), 'penalised');
    const { data, shape } = waves([4, 3], 0.3);
    const bytes = new Uint8Array(Float64Array.from(data).buffer);
    graphOf(model).initializer.push(onnxTensor('w', TensorProto_DataType.DOUBLE, shape, bytes));
    const settings = { precision: 'f64', threads: 1, logits: 'logits' } as const;
    const student = await openOnnxStudent(model, { ...settings, penalty: 'penalty' });
    const { values, gradients } = student.parameters;
    const batch = batchOf(5);
    const at = async (): Promise<number> => {
      const total = { value: 0 };
      const [term] = await student.accumulate(batch, squares(total), { ownTermScale: 0.3 });
      expect(term.name).toBe('penalty');
      return total.value + 0.3 * term.value;
    };
    await at();
    const exact = gradients.slice();
    for (const place of [0, 5, 11]) {
      const value = values[place];
      values[place] = value + 1e-5;
      const above = await at();
      values[place] = value - 1e-5;
      const estimate = (above - (await at())) / 2e-5;
      values[place] = value;
      expect(Math.abs(estimate - exact[place])).toBeLessThan(1e-7 * (1 + Math.abs(estimate)));
    }
    await student.close();
    const many = openOnnxStudent(model, { ...settings, penalty: 'logits' });
    await expect(many.then((one) => one.accumulate(batch, () => undefined))).rejects.toThrow(/one number/);
  });

  it('drop a share of the hidden units in training alone, by the seed', async () => {
    const open = (seed: number) => openOnnxStudent(mlp(WEIGHTS, 0.5), { precision: 'f64', threads: 1, seed });
    const logitsOf = async (seed: number): Promise<{ train: number[]; evaluate: number[] }> => {
      const student = await open(seed);
      const found = { train: [] as number[], evaluate: [] as number[] };
      await student.accumulate(batchOf(20), ({ logits }) => {
        found.train = Array.from(logits);
      });
      await student.evaluate(batchOf(20), ({ logits }) => {
        found.evaluate = Array.from(logits);
      });
      await student.close();
      return found;
    };
    const [a, b, again] = [await logitsOf(1), await logitsOf(2), await logitsOf(1)];
    expect(a).toEqual(again);
    expect(a.train).not.toEqual(b.train);
    expect(a.evaluate).toEqual(b.evaluate);
    expect(a.train).not.toEqual(a.evaluate);
  });

  it('write the trained weights into a file that holds the same graph', async () => {
    const student = await openOnnxStudent(mlp(WEIGHTS), { precision: 'f32', threads: 1 });
    student.parameters.values.fill(0.25);
    const path = join(mkdtempSync(join(tmpdir(), 'student-')), 'student.onnx');
    student.exportOnnx(path);
    await student.close();
    const back = readOnnxModel(path);
    const again = await openOnnxStudent(back, { precision: 'f64', threads: 1 });
    expect(again.parameters.values.every((value) => value === 0.25)).toBe(true);
    await again.close();
  });

  it('names what a graph lacks', async () => {
    const open = (settings: object) => openOnnxStudent(mlp(WEIGHTS), { precision: 'f64', threads: 1, ...settings });
    await expect(open({ logits: 'logit' })).rejects.toThrow('no tensor "logit"; did you mean "logits"?');
    await expect(open({ train: ['w9'] })).rejects.toThrow('no tensor is named "w9"');
    expect(weightCandidates(mlp(WEIGHTS))).toEqual(['w1', 'b1', 'w2', 'b2']);
  });
});
