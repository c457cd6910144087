import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseNetwork } from '../../../src/training/network-text.js';
import { composeNetwork } from '../../../src/training/networks.js';
import { openOnnxStudent } from '../../../src/training/onnx-student.js';
import { differenceError, doubles } from './graph-gradients.js';

const waves = (dims: readonly number[], phase: number) =>
  doubles(
    Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => 1.5 + Math.sin(phase + 1.7 * i)),
    dims,
  );

/** Two shapes that broadcast: some axes of either are 1 or absent, and a batch may be empty. */
const shapes = fc
  .record({
    dims: fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 0, maxLength: 3 }),
    onesA: fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
    onesB: fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
    dropB: fc.nat({ max: 3 }),
  })
  .map(({ dims, onesA, onesB, dropB }) => ({
    a: dims.map((extent, axis) => (onesA[axis] ? 1 : extent)),
    b: dims.map((extent, axis) => (onesB[axis] ? 1 : extent)).slice(Math.min(dropB, dims.length)),
  }));

describe('any graph of a few operators', () => {
  it('has the gradients of central differences, whatever broadcasts', async () => {
    const operator = fc.constantFrom('Add', 'Sub', 'Mul', 'Div', 'Pow');
    await fc.assert(
      fc.asyncProperty(shapes, operator, operator, fc.boolean(), async ({ a, b }, first, second, recompute) => {
        const error = await differenceError({
          compose(graph) {
            graph.input(
              'a',
              'f64',
              a.map((_, axis) => `a${axis}`),
            );
            graph.input(
              'b',
              'f64',
              b.map((_, axis) => `b${axis}`),
            );
            const inner = graph.node(first, ['a', 'b']);
            // The result of the first is read twice, and b again.
            const outer = graph.node(second, [graph.node('Mul', [inner, inner]), 'b']);
            graph.node('Tanh', [graph.node('Mul', [outer, graph.scalar(0.1)])], { outputs: ['y'] });
            graph.output('y', 'f64');
          },
          inputs: { a: waves(a, 0.3), b: waves(b, 2.1) },
          wanted: ['a', 'b'],
          recompute,
        });
        expect(error).toBeLessThan(1e-6);
      }),
      { numRuns: 40, seed: 5 },
    );
  });
});

describe('threads', () => {
  it('do not change a bit of the gradients', async () => {
    const gradientsWith = async (threads: number): Promise<Float32Array> => {
      const design = parseNetwork('mlp:96-40,gelu');
      const network = composeNetwork(design, { dims: [150], classes: 10, seed: 1, precision: 'f32' });
      const student = await openOnnxStudent(network.model, { precision: 'f32', threads, train: network.parameters });
      const rows = 64;
      const features = Float32Array.from({ length: rows * 150 }, (_, i) => Math.sin(0.7 * i));
      const batch = { features, rows, labels: new Int32Array(rows), indices: new Int32Array(rows) };
      await student.accumulate(batch, ({ logits, gradient }) => gradient?.set(logits));
      const found = Float32Array.from(student.parameters.gradients);
      await student.close();
      return found;
    };
    expect(await gradientsWith(3)).toEqual(await gradientsWith(1));
  });
});
