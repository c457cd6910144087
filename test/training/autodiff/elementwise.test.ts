import { describe, expect, it } from 'vitest';
import { differenceError, doubles } from './graph-gradients.js';

const X = doubles([-2.3, -0.7, -0.2, 0.4, 1.1, 2.6], [2, 3]);
const POSITIVE = doubles([0.3, 0.7, 1.2, 2.4, 1.1, 2.6], [2, 3]);

const unary = (operator: string, attributes = {}, input = X): Promise<number> =>
  differenceError({
    compose(graph) {
      graph.input('x', 'f64', ['n', 'm']);
      graph.node(operator, ['x'], { outputs: ['y'], attributes });
      graph.output('y', 'f64', ['n', 'm']);
    },
    inputs: { x: input },
    wanted: ['x'],
  });

describe('rules of one operand', () => {
  it.each(
    'Neg Abs Sin Cos Sinh Cosh Asinh Exp Tanh Sigmoid Relu LeakyRelu Elu Selu Celu Softplus Softsign HardSigmoid HardSwish Mish Identity ThresholdedRelu'.split(
      ' ',
    ),
  )('%s', async (operator) => {
    expect(await unary(operator)).toBeLessThan(1e-8);
  });
  it.each('Sqrt Log Reciprocal Acosh'.split(' '))('%s', async (operator) => {
    const input = operator === 'Acosh' ? doubles([1.3, 1.7, 2.2, 2.4, 1.1, 2.6], [2, 3]) : POSITIVE;
    expect(await unary(operator, {}, input)).toBeLessThan(1e-7);
  });
});

const SHAPES: [number[], number[]][] = [
  [
    [2, 3],
    [2, 3],
  ],
  [[2, 3], [3]],
  [[3], [2, 3]],
  [
    [2, 1],
    [1, 3],
  ],
  [[1], [2, 3]],
  [[], [2, 2]],
  [
    [2, 1, 3],
    [4, 1],
  ],
];
const ramp = (dims: readonly number[], phase: number) =>
  doubles(
    Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => 1.5 + Math.sin(phase + 1.7 * i)),
    dims,
  );

describe('rules of two operands', () => {
  describe.each('Add Sub Mul Div Pow Max Min'.split(' '))('%s', (operator) => {
    it.each(SHAPES)('[%s] with [%s]', async (a, b) => {
      const error = await differenceError({
        compose(graph) {
          graph.input(
            'a',
            'f64',
            a.map((_, i) => `a${i}`),
          );
          graph.input(
            'b',
            'f64',
            b.map((_, i) => `b${i}`),
          );
          graph.node(operator, ['a', 'b'], { outputs: ['y'] });
          graph.output('y', 'f64');
        },
        inputs: { a: ramp(a, 0.3), b: ramp(b, 2.1) },
        wanted: ['a', 'b'],
      });
      expect(error).toBeLessThan(1e-7);
    });
  });
  it('reads one tensor twice', async () => {
    const error = await differenceError({
      compose(graph) {
        graph.input('x', 'f64', ['n', 'm']);
        const square = graph.node('Mul', ['x', 'x']);
        graph.node('Div', [square, 'x'], { outputs: ['y'] });
        graph.output('y', 'f64');
      },
      inputs: { x: X },
      wanted: ['x'],
    });
    expect(error).toBeLessThan(1e-8);
  });
});
