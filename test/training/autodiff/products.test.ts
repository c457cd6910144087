import { describe, expect, it } from 'vitest';
import { differenceError, doubles } from './graph-gradients.js';

const ramp = (dims: readonly number[], phase: number) =>
  doubles(
    Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(phase + 1.7 * i)),
    dims,
  );
const names = (prefix: string, dims: readonly number[]): string[] => dims.map((_, axis) => `${prefix}${axis}`);

describe('MatMul', () => {
  it.each([
    [
      [2, 3],
      [3, 4],
    ],
    [
      [2, 5, 3],
      [3, 4],
    ],
    [
      [2, 1, 5, 3],
      [3, 4],
    ],
    [
      [2, 5, 3],
      [2, 3, 4],
    ],
    [
      [2, 1, 5, 3],
      [4, 3, 2],
    ],
    [
      [5, 3],
      [2, 3, 4],
    ],
    [
      [1, 5, 3],
      [2, 3, 4],
    ],
    [[3], [3, 4]],
    [[5, 3], [3]],
    [[3], [3]],
    [[3], [2, 3, 4]],
    [[2, 5, 3], [3]],
    [
      [1, 1],
      [1, 1],
    ],
  ])('[%s] times [%s]', async (a, b) => {
    const error = await differenceError({
      compose(graph) {
        graph.input('a', 'f64', names('a', a));
        graph.input('b', 'f64', names('b', b));
        graph.node('MatMul', ['a', 'b'], { outputs: ['y'] });
        graph.output('y', 'f64');
      },
      inputs: { a: ramp(a, 0.3), b: ramp(b, 2.1) },
      wanted: ['a', 'b'],
    });
    expect(error).toBeLessThan(1e-8);
  });

  it('of a matrix with itself', async () => {
    const error = await differenceError({
      compose(graph) {
        graph.input('a', 'f64', ['n', 'n']);
        graph.node('MatMul', ['a', 'a'], { outputs: ['y'] });
        graph.output('y', 'f64');
      },
      inputs: { a: ramp([3, 3], 0.3) },
      wanted: ['a'],
    });
    expect(error).toBeLessThan(1e-8);
  });

  it('of no rows', async () => {
    const error = await differenceError({
      compose(graph) {
        graph.input('a', 'f64', ['n', 3]);
        graph.input('b', 'f64', [3, 4]);
        graph.node('MatMul', ['a', 'b'], { outputs: ['y'] });
        graph.output('y', 'f64');
      },
      inputs: { a: doubles([], [0, 3]), b: ramp([3, 4], 1) },
      wanted: ['a', 'b'],
    });
    expect(error).toBe(0);
  });
});

describe('Gemm', () => {
  const cases = [0, 1].flatMap((transA) =>
    [0, 1].flatMap((transB) => [[4], [2, 1], [], [1, 4]].map((c) => [transA, transB, c] as const)),
  );
  it.each(cases)('transA %s, transB %s, C [%s]', async (transA, transB, c) => {
    const a = transA ? [3, 2] : [2, 3];
    const b = transB ? [4, 3] : [3, 4];
    const error = await differenceError({
      compose(graph) {
        graph.input('a', 'f64', names('a', a));
        graph.input('b', 'f64', names('b', b));
        graph.input('c', 'f64', names('c', c));
        const attributes = { alpha: 0.7, beta: 1.3, transA: { int: transA }, transB: { int: transB } };
        graph.node('Gemm', ['a', 'b', 'c'], { outputs: ['y'], attributes });
        graph.output('y', 'f64');
      },
      inputs: { a: ramp(a, 0.3), b: ramp(b, 2.1), c: ramp(c, 1.1) },
      wanted: ['a', 'b', 'c'],
    });
    expect(error).toBeLessThan(1e-8);
  });
});
