import type { AttributeValue } from '../../src/formats/onnx-attributes.js';
import type { GraphComposer } from '../../src/models/graph.js';
import type { Json } from './harness.js';
import { number, numbers, shapeOf } from './tensors.js';

/** One case of an operator: its inputs are inputs of the graph under their own names. */
export interface OperatorCase {
  readonly op: string;
  readonly attrs: { readonly [key: string]: Json };
  readonly inputs: { readonly [key: string]: Json };
  readonly outputs: number;
}

type Write = (g: GraphComposer, names: readonly string[], given: OperatorCase) => readonly string[];

const int = (value: Json, name: string): AttributeValue => ({ int: number(value, name) });
const ints = (value: Json, name: string): AttributeValue => ({ ints: numbers(value, name) });

/** Attributes that are floats whatever their value. */
const FLOATS = new Set(['alpha', 'beta', 'gamma', 'epsilon', 'lambd', 'bias', 'scale', 'softcap', 'momentum']);
const RENAMED: Readonly<Record<string, string>> = { kernel: 'kernel_shape' };

function attributes(attrs: OperatorCase['attrs'], without: readonly string[] = []): Record<string, AttributeValue> {
  const found: Record<string, AttributeValue> = {};
  for (const [key, value] of Object.entries(attrs)) {
    if (without.includes(key) || value === null) continue;
    const name = RENAMED[key] ?? key;
    if (Array.isArray(value)) found[name] = ints(value, key);
    else if (typeof value === 'string') found[name] = value;
    else if (typeof value === 'boolean') found[name] = { int: Number(value) };
    else found[name] = FLOATS.has(key) ? number(value, key) : int(value, key);
  }
  return found;
}

const fresh = (given: OperatorCase): string[] => Array.from({ length: given.outputs }, (_, i) => `y${i}`);

/** The operator of the same name; attributes that are inputs today follow the inputs. */
const plain =
  (operator?: string, asInputs: readonly string[] = [], scalars: readonly string[] = []): Write =>
  (g, names, given) => {
    const added = asInputs.map((key) => {
      const value = given.attrs[key];
      if (value === undefined || value === null) return '';
      return Array.isArray(value)
        ? g.integers(numbers(value, key))
        : g.integers([number(value, key)], scalars.includes(key));
    });
    while (added.at(-1) === '') added.pop();
    const outputs = fresh(given);
    g.node(operator ?? given.op, [...names, ...added], { attributes: attributes(given.attrs, asInputs), outputs });
    return outputs;
  };

const reduction = plain(undefined, ['axes']);

/** As `plain`, with the extents of the kernel, which are those of the weight. */
const convolution: Write = (g, names, given) => {
  const kernel = { ints: shapeOf(given.inputs.w, 'w').slice(2) };
  g.node(given.op, names, { attributes: { ...attributes(given.attrs), kernel_shape: kernel }, outputs: ['y0'] });
  return ['y0'];
};

/** x cos + R(x) sin with R(x) = [-x2, x1], in halves or in pairs of neighbours. */
const rotary: Write = (g, [x, cos, sin], { attrs, inputs }) => {
  const paired = number(attrs.interleaved, 'interleaved') !== 0;
  const shape = shapeOf(inputs.x, 'x');
  const last = { axis: { int: -1 } };
  const apart = paired ? g.node('Reshape', [x, g.integers([...shape.slice(0, -1), -1, 2])]) : x;
  g.node('Split', [apart], { attributes: { ...last, num_outputs: { int: 2 } }, outputs: ['first', 'second'] });
  const turned = g.node('Concat', [g.node('Neg', ['second']), 'first'], { attributes: last });
  const flat = paired ? g.node('Reshape', [turned, g.integers(shape)]) : turned;
  const along = g.node('Mul', [x, cos]);
  return [g.node('Add', [along, g.node('Mul', [flat, sin])])];
};

const silu = (g: GraphComposer, x: string): string => g.node('Mul', [x, g.node('Sigmoid', [x])]);

/** Operators whose cases are not written as the operator itself is. */
const WRITTEN: Readonly<Record<string, Write>> = {
  Pow: (g, [x], { attrs }) => [g.node('Pow', [x, g.scalar(number(attrs.exponent, 'exponent'))])],
  Clip: (g, [x], { attrs }) => [
    g.node('Clip', [x, ...['min', 'max'].map((key) => (key in attrs ? g.scalar(number(attrs[key], key)) : ''))]),
  ],
  // Attributes are single precision: factors are multiplied outside.
  Gemm: (g, [a, b, c], { attrs }) => {
    const factor = (name: string, value: string): string =>
      g.node('Mul', [value, g.scalar(number(attrs[name] ?? 1, name))]);
    const operands = [factor('alpha', a), b, ...(c === undefined ? [] : [factor('beta', c)])];
    return [g.node('Gemm', operands, { attributes: attributes(attrs, ['alpha', 'beta']) })];
  },
  Silu: (g, [x]) => [silu(g, x)],
  Swish: (g, [x]) => [silu(g, x)],
  CRReLU: (g, [x, eps]) => {
    const decay = g.node('Exp', [g.node('Mul', [g.node('Mul', [x, x]), g.scalar(-0.5)])]);
    return [g.node('Add', [g.node('Relu', [x]), g.node('Mul', [eps, g.node('Mul', [x, decay])])])];
  },
  ReduceSum: reduction,
  ReduceMean: reduction,
  ReduceMax: reduction,
  ReduceMin: reduction,
  ReduceProd: reduction,
  ReduceL1: reduction,
  ReduceL2: reduction,
  ReduceLogSum: reduction,
  ReduceLogSumExp: reduction,
  ReduceSumSquare: reduction,
  Reshape: plain(undefined, ['shape']),
  Expand: plain(undefined, ['shape']),
  Tile: plain(undefined, ['repeats']),
  Split: plain(undefined, ['split']),
  Squeeze: plain(undefined, ['axes']),
  Unsqueeze: plain(undefined, ['axes']),
  Slice: plain(undefined, ['starts', 'ends', 'axes', 'steps']),
  Pad: plain(undefined, ['pads']),
  CumSum: plain(undefined, ['axis'], ['axis']),
  Trilu: plain(undefined, ['k'], ['k']),
  TopK: (g, names, { attrs }) => {
    const added = g.integers([number(attrs.k, 'k')]);
    g.node('TopK', [...names, added], { attributes: attributes(attrs, ['k']), outputs: ['y0', 'places'] });
    return ['y0'];
  },
  RMSNorm: plain('RMSNormalization'),
  Rotary: rotary,
  CausalGQA: (g, names) => [g.node('Attention', names, { attributes: { is_causal: { int: 1 } } })],
  SwiGLU: (g, [x, gate, up, down]) => {
    const hidden = g.node('Mul', [silu(g, g.node('MatMul', [x, gate])), g.node('MatMul', [x, up])]);
    return [g.node('MatMul', [hidden, down])];
  },
  Conv: convolution,
  ConvTranspose: convolution,
  MaxPool: (g, names, { attrs }) => {
    g.node('MaxPool', names, { attributes: attributes(attrs), outputs: ['y0'] });
    return ['y0'];
  },
  BatchNormInference: plain('BatchNormalization'),
  BatchNormTraining: (g, [x, scale, shift], { attrs, inputs }) => {
    const [channels] = shapeOf(inputs.g, 'g');
    const running = [0, 1].map((value) => g.floats(`running${value}`, new Array(channels).fill(value), [channels]));
    const own = { ...attributes(attrs), training_mode: { int: 1 } };
    g.node('BatchNormalization', [x, scale, shift, ...running], { attributes: own, outputs: ['y0', 'mean', 'var'] });
    return ['y0'];
  },
};

/** Writes the graph of a case and returns the names of its outputs. */
export function writeOperator(g: GraphComposer, given: OperatorCase): readonly string[] {
  return (WRITTEN[given.op] ?? plain())(g, Object.keys(given.inputs), given);
}
