import { describe, expect, it } from 'vitest';
import { differenceError, doubles } from './graph-gradients.js';

const X = doubles([0.9, -0.4, 1.7, 0.3, -1.2, 0.8, 2.1, -0.6, 0.5, 1.4, -1.9, 0.2], [2, 3, 2]);
const POSITIVE = doubles(Array.from(X.data as Float64Array, Math.abs), [2, 3, 2]);

describe.each(
  'ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp'.split(
    ' ',
  ),
)('%s', (operator) => {
  it.each([
    [[1], 1],
    [[1], 0],
    [[-1, 0], 0],
    [[2, 0], 1],
    [undefined, 0],
    [undefined, 1],
  ] as const)('over axes %s, keepdims %s', async (axes, keepdims) => {
    const error = await differenceError({
      compose(graph) {
        graph.input('x', 'f64', ['n', 'm', 'k']);
        const inputs = axes ? ['x', graph.integers(axes)] : ['x'];
        graph.node(operator, inputs, { outputs: ['y'], attributes: { keepdims: { int: keepdims } } });
        graph.output('y', 'f64');
      },
      inputs: { x: operator === 'ReduceLogSum' ? POSITIVE : X },
      wanted: ['x'],
    });
    expect(error).toBeLessThan(1e-7);
  });
});

describe('edges of reductions', () => {
  const gradient = (operator: string, values: number[], noop = 0) =>
    differenceError({
      compose(graph) {
        graph.input('x', 'f64', ['n', 'm']);
        const inputs = noop ? ['x'] : ['x', graph.integers([1])];
        graph.node(operator, inputs, { outputs: ['y'], attributes: { noop_with_empty_axes: { int: noop } } });
        graph.output('y', 'f64');
      },
      inputs: { x: doubles(values, [2, 3]) },
      wanted: ['x'],
    });
  it('products with one zero and with two', async () => {
    expect(await gradient('ReduceProd', [0, 2, 3, 0, 0, 5])).toBeLessThan(1e-7);
  });
  it.each(['ReduceSum', 'ReduceMean', 'ReduceMax'])('%s over no axes is the identity', async (operator) => {
    expect(await gradient(operator, [1, 2, 3, 4, 5, 6], 1)).toBeLessThan(1e-8);
  });
  it('sizes of 1', async () => {
    const error = await differenceError({
      compose(graph) {
        graph.input('x', 'f64', [1, 1]);
        graph.node('ReduceMean', ['x', graph.integers([0])], { outputs: ['y'], attributes: { keepdims: { int: 0 } } });
        graph.output('y', 'f64');
      },
      inputs: { x: doubles([0.3], [1, 1]) },
      wanted: ['x'],
    });
    expect(error).toBeLessThan(1e-9);
  });
});
