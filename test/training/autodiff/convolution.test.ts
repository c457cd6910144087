import { describe, expect, it } from 'vitest';
import type { AttributeValue } from '../../../src/formats/onnx-attributes.js';
import { doubleError, int, ints, type Operator, singleError } from './operator-case.js';

const conv = (x: number[], w: number[], attributes: Record<string, AttributeValue> = {}, bias = true): Operator => ({
  op: 'Conv',
  inputs: [x, w, ...(bias ? [[w[0]]] : [])],
  attributes: { kernel_shape: { ints: w.slice(2) }, ...attributes },
});
const transposed = (x: number[], w: number[], attributes: Record<string, AttributeValue> = {}): Operator => ({
  op: 'ConvTranspose',
  inputs: [x, w],
  attributes: { kernel_shape: { ints: w.slice(2) }, ...attributes },
});
const pool = (
  op: string,
  x: number[],
  kernel: number[],
  attributes: Record<string, AttributeValue> = {},
): Operator => ({
  op,
  inputs: [x],
  attributes: { kernel_shape: { ints: kernel }, ...attributes },
});

/** In f64 windows are opened into slices and products, in f32 the runtime's own operators are differentiated. */
const opened: Readonly<Record<string, Operator>> = {
  'Conv over one axis': conv([2, 3, 7], [4, 3, 3]),
  'Conv with a stride that leaves rows over': conv([2, 2, 8, 7], [3, 2, 3, 3], { strides: ints(3, 2) }, false),
  'Conv with uneven pads': conv([1, 2, 5, 6], [3, 2, 3, 2], { strides: ints(2, 2), pads: ints(0, 1, 2, 0) }),
  'Conv with dilations': conv([2, 1, 8, 9], [2, 1, 3, 2], { dilations: ints(2, 3), pads: ints(2, 1, 2, 1) }),
  'Conv in groups, strided and dilated': conv([2, 4, 9, 9], [6, 2, 3, 3], {
    group: int(2),
    strides: ints(2, 2),
    dilations: ints(2, 1),
    pads: ints(1, 1, 1, 1),
  }),
  'Conv of each channel': conv([2, 3, 5, 5], [3, 1, 3, 3], { group: int(3), pads: ints(1, 1, 1, 1) }),
  'Conv over three axes': conv([1, 2, 4, 4, 5], [2, 2, 2, 3, 2], {
    strides: ints(1, 2, 1),
    pads: ints(0, 1, 0, 0, 1, 1),
  }),
  'Conv of one place': conv([2, 3, 4, 4], [5, 3, 1, 1], { strides: ints(2, 2) }),
  'Conv that keeps the extents, more behind': conv([1, 2, 7, 6], [2, 2, 4, 3], {
    auto_pad: 'SAME_UPPER',
    strides: ints(2, 1),
  }),
  'Conv that keeps the extents, more in front': conv([1, 2, 6], [2, 2, 4], { auto_pad: 'SAME_LOWER' }),
  ConvTranspose: transposed([2, 3, 4, 4], [3, 2, 3, 3]),
  'ConvTranspose strided, padded, with rows added': transposed([2, 4, 3, 4], [4, 2, 3, 2], {
    strides: ints(2, 3),
    pads: ints(1, 0, 0, 1),
    output_padding: ints(1, 2),
    group: int(2),
    dilations: ints(2, 1),
  }),
  'MaxPool with windows that overlap': pool('MaxPool', [2, 2, 6, 5], [3, 2], {
    strides: ints(2, 1),
    pads: ints(1, 0, 1, 1),
  }),
  'MaxPool rounded up': pool('MaxPool', [1, 2, 6, 6], [3, 3], { strides: ints(2, 2), ceil_mode: int(1) }),
  AveragePool: pool('AveragePool', [2, 3, 6, 5], [2, 2], { strides: ints(2, 2) }),
  'AveragePool that does not count pads': pool('AveragePool', [1, 2, 5, 6], [3, 2], {
    strides: ints(2, 1),
    pads: ints(1, 0, 1, 1),
  }),
  'AveragePool that counts pads': pool('AveragePool', [1, 2, 5, 6], [3, 2], {
    pads: ints(1, 1, 1, 0),
    count_include_pad: int(1),
  }),
  'AveragePool that keeps the extents': pool('AveragePool', [1, 2, 5], [4], {
    auto_pad: 'SAME_UPPER',
    strides: ints(2),
  }),
  GlobalAveragePool: { op: 'GlobalAveragePool', inputs: [[2, 3, 4, 5]] },
  GlobalMaxPool: { op: 'GlobalMaxPool', inputs: [[2, 3, 4]] },
};

describe('windows in f64 against differences', () => {
  it.each(Object.keys(opened))('%s', async (name) => {
    expect(await doubleError(opened[name])).toBeLessThan(1e-7);
  });
});

describe('windows in f32 against f64', () => {
  it.each(Object.keys(opened))('%s', async (name) => {
    expect(await singleError(opened[name])).toBeLessThan(2e-6);
  });
});
