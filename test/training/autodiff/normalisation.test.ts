import { describe, expect, it } from 'vitest';
import { doubleError, int, ints, type Operator, singleError, vector } from './operator-case.js';

const five = (x: number[]): Operator['inputs'] => [x, [x[1]], [x[1]], [x[1]]];

const cases: Readonly<Record<string, Operator>> = {
  'Softmax over the first axis': { op: 'Softmax', inputs: [[3, 4]], attributes: { axis: int(0) } },
  'LogSoftmax over a middle axis': { op: 'LogSoftmax', inputs: [[2, 3, 2]], attributes: { axis: int(1) } },
  'LayerNormalization without a shift': { op: 'LayerNormalization', inputs: [[2, 3, 5], [5]] },
  'LayerNormalization over two axes': {
    op: 'LayerNormalization',
    inputs: [
      [2, 3, 4],
      [3, 4],
      [3, 4],
    ],
    attributes: { axis: int(1), epsilon: 1e-3 },
  },
  'LayerNormalization with one scale for all': { op: 'LayerNormalization', inputs: [[3, 4], [1], [4]] },
  RMSNormalization: { op: 'RMSNormalization', inputs: [[2, 3, 4], [4]], attributes: { epsilon: 1e-2 } },
  'RMSNormalization over two axes': {
    op: 'RMSNormalization',
    inputs: [
      [2, 3, 4],
      [3, 4],
    ],
    attributes: { axis: int(-2) },
  },
  'BatchNormalization in training, two axes': {
    op: 'BatchNormalization',
    inputs: [[5, 3], [3], [3], (g) => g.floats('m', [0, 0, 0], [3]), (g) => g.floats('v', [1, 1, 1], [3])],
    attributes: { training_mode: int(1) },
    unseeded: 2,
  },
  InstanceNormalization: { op: 'InstanceNormalization', inputs: [[2, 3, 4, 2], [3], [3]] },
  GroupNormalization: { op: 'GroupNormalization', inputs: [[2, 4, 3], [4], [4]], attributes: { num_groups: int(2) } },
  LpNormalization: { op: 'LpNormalization', inputs: [[3, 4]], attributes: { axis: int(-1), p: int(2) } },
  MeanVarianceNormalization: {
    op: 'MeanVarianceNormalization',
    inputs: [[3, 2, 4]],
    attributes: { axes: ints(0, 2) },
  },
  'Dropout at rest': { op: 'Dropout', inputs: [[3, 4]] },
  SimplifiedLayerNormalization: {
    op: 'SimplifiedLayerNormalization',
    inputs: [[3, 4], [4]],
    attributes: { axis: int(-1), epsilon: 1e-5 },
  },
  'weighted cross-entropy with ignored rows': {
    op: 'SoftmaxCrossEntropyLoss',
    inputs: [[4, 3], vector(2, -1, 0, 2), (g) => g.floats('w', [0.5, 2, 1.5], [3])],
    attributes: { ignore_index: int(-1) },
  },
  'cross-entropy of an image, row by row': {
    op: 'SoftmaxCrossEntropyLoss',
    inputs: [[2, 3, 2], (g) => g.node('Reshape', [g.integers([0, 2, 1, 1]), g.integers([2, 2])])],
    attributes: { reduction: 'none' },
    outputs: 2,
  },
  'cross-entropy of rows that are all ignored': {
    op: 'SoftmaxCrossEntropyLoss',
    inputs: [[2, 3], vector(7, 7)],
    attributes: { ignore_index: int(7), reduction: 'sum' },
  },
  'likelihood loss, summed': {
    op: 'NegativeLogLikelihoodLoss',
    inputs: [[3, 4], vector(3, 0, 3)],
    attributes: { reduction: 'sum' },
  },
};

const rounded: Readonly<Record<string, Operator>> = {
  'BatchNormalization at rest': {
    op: 'BatchNormalization',
    inputs: [...five([2, 3, 4]), (g) => g.floats('v', [0.5, 1, 2], [3])],
  },
  SkipLayerNormalization: {
    op: 'SkipLayerNormalization',
    domain: 'com.microsoft',
    inputs: [[2, 3, 4], [2, 3, 4], [4], [4], [4]],
    attributes: { epsilon: 1e-5 },
  },
};

describe('norms and class losses in f64 against differences', () => {
  it.each(Object.keys(cases))('%s', async (name) => {
    expect(await doubleError(cases[name])).toBeLessThan(1e-7);
  });
  it('BatchNormalization at rest, with its statistics', async () => {
    expect(await doubleError(rounded['BatchNormalization at rest'])).toBeLessThan(1e-7);
  });
});

describe('norms and class losses in f32 against f64', () => {
  it.each(Object.keys(cases))('%s', async (name) => {
    expect(await singleError(cases[name])).toBeLessThan(5e-6);
  });
});
