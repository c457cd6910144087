import { describe, expect, it } from 'vitest';
import { alignByActivations, createCorrelation } from '../../src/moe/activation-matching.js';
import { permuteNeurons } from '../../src/moe/alignment.js';
import { runInner } from '../../src/moe/expert-function.js';
import type { ExpertMatrices, ExpertShape } from '../../src/moe/types.js';
import { createRandom } from '../../src/random.js';
import { normals, randomExpert } from './random-experts.js';

const shape: ExpertShape = { hidden: 6, width: 8, gated: true, activation: 'silu' };
const ROWS = 700;

function innerOf(expert: ExpertMatrices, x: Float64Array): Float64Array {
  const inner = new Float64Array(ROWS * shape.width);
  runInner(expert, shape, x, ROWS, inner);
  return inner;
}

/** Two passes, by the definition. */
function pearson(a: Float64Array, b: Float64Array, width: number, i: number, j: number): number {
  const rows = a.length / width;
  const column = (x: Float64Array, at: number): Float64Array =>
    Float64Array.from({ length: rows }, (_, t) => x[t * width + at]);
  const centred = (x: Float64Array): Float64Array => {
    const mean = x.reduce((sum, value) => sum + value, 0) / rows;
    return x.map((value) => value - mean);
  };
  const [left, right] = [centred(column(a, i)), centred(column(b, j))];
  const dot = (x: Float64Array, y: Float64Array): number => x.reduce((sum, value, t) => sum + value * y[t], 0);
  const spread = (x: Float64Array): number => Math.sqrt(dot(x, x) / (rows - 1));
  return dot(left, right) / (rows - 1) / (spread(left) * spread(right) + 1e-7);
}

describe('correlation of inner activations', () => {
  const x = normals(ROWS * shape.hidden, 5);
  const [a, b] = [randomExpert(shape, 1), randomExpert(shape, 2)];
  const [left, right] = [innerOf(a, x), innerOf(b, x)];

  it('is that of Pearson, over batches of any size', () => {
    for (const batch of [ROWS, 100, 1]) {
      const sums = createCorrelation(shape.width);
      for (let from = 0; from < ROWS; from += batch) {
        const rows = Math.min(batch, ROWS - from);
        const cut = (all: Float64Array): Float64Array => all.subarray(from * shape.width, (from + rows) * shape.width);
        sums.add(cut(left), cut(right), rows);
      }
      const { tokens, matrix } = sums.finish();
      expect(tokens).toBe(ROWS);
      for (const [i, j] of [
        [0, 0],
        [3, 5],
        [7, 2],
      ]) {
        expect(matrix[i * shape.width + j]).toBeCloseTo(pearson(left, right, shape.width, i, j), 11);
      }
    }
  });

  it('keeps its digits far from zero', () => {
    const far = (values: Float64Array): Float64Array => values.map((value) => 1e6 + value);
    const sums = createCorrelation(shape.width);
    sums.add(far(left), far(right), ROWS);
    expect(sums.finish().matrix[11]).toBeCloseTo(pearson(left, right, shape.width, 1, 3), 7);
  });

  it('of a neuron that never changes is 0, and of one token nothing', () => {
    const still = right.slice();
    for (let t = 0; t < ROWS; t++) still[t * shape.width] = 0.1;
    const sums = createCorrelation(shape.width);
    sums.add(left, still, ROWS);
    const { matrix } = sums.finish();
    for (let i = 0; i < shape.width; i++) expect(matrix[i * shape.width]).toBe(0);
    const one = createCorrelation(shape.width);
    one.add(left, right, 1);
    expect(alignByActivations(one.finish()).permutation).toEqual(Int32Array.of(0, 1, 2, 3, 4, 5, 6, 7));
    expect([...alignByActivations(createCorrelation(3).finish()).permutation]).toEqual([0, 1, 2]);
  });

  it('finds a planted permutation, in single precision too, whatever the threads', () => {
    const planted = createRandom(3).permutation(shape.width);
    const moved = innerOf(permuteNeurons(a, shape, planted), x);
    const results = [1, 3].map((threads) => {
      const sums = createCorrelation(shape.width, { threads });
      sums.add(Float32Array.from(left), Float32Array.from(moved), ROWS);
      return sums.finish();
    });
    expect(results[0]).toEqual(results[1]);
    const { permutation, gain, bound } = alignByActivations(results[0]);
    planted.forEach((neuron, i) => {
      expect(permutation[neuron]).toBe(i);
    });
    expect(gain).toBeCloseTo(shape.width, 4);
    expect(bound).toBeGreaterThanOrEqual(gain);
  });

  it('refuses arrays that are too short', () => {
    expect(() => createCorrelation(8).add(left, right.subarray(1), ROWS)).toThrow('[700, 8] needs more than');
  });
});
