import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { permuteNeurons } from '../../src/moe/alignment.js';
import type { ExpertMatrices, ExpertShape } from '../../src/moe/types.js';
import { zipByActivations, zipByWeights } from '../../src/moe/zip-merge.js';
import { createRandom } from '../../src/random.js';
import { normals, randomExpert } from './random-experts.js';

interface Neuron {
  readonly entries: number[];
  readonly coefficient: number;
}

const neuronsOf = ({ gate, up, down }: ExpertMatrices, { hidden: H, width: I }: ExpertShape): number[][] =>
  Array.from({ length: I }, (_, i) => [
    ...(gate ? Array.from(gate.subarray(i * H, (i + 1) * H)) : []),
    ...Array.from(up.subarray(i * H, (i + 1) * H)),
    ...Array.from({ length: H }, (_, h) => down[h * I + i]),
  ]);

/** The procedure as it is told, on shrinking lists: the first largest pair of the whole matrix, again and again. */
function zipPlainly(
  members: readonly ExpertMatrices[],
  shape: ExpertShape,
  coefficients: readonly number[],
  epsilon: number,
  compared: number,
  given?: { readonly matrix: Float64Array; readonly share: number },
): number[][] {
  const neurons: Neuron[] = members.flatMap((member, m) =>
    neuronsOf(member, shape).map((entries) => ({ entries, coefficient: coefficients[m] })),
  );
  const dot = (a: Neuron, b: Neuron): number => {
    let sum = 0;
    for (let k = 0; k < compared; k++) sum += a.entries[k] * b.entries[k];
    return sum;
  };
  const n = neurons.length;
  const similarity = neurons.map((a, i) => neurons.map((b, j) => (given ? given.matrix[i * n + j] : dot(a, b))));
  while (neurons.length > shape.width) {
    let [kept, gone] = [0, 1];
    for (let i = 0; i < neurons.length; i++) {
      for (let j = 0; j < neurons.length; j++) {
        if (i !== j && similarity[i][j] > similarity[kept][gone]) [kept, gone] = [i, j];
      }
    }
    const [a, b] = [neurons[kept], neurons[gone]];
    const total = a.coefficient + b.coefficient;
    const merged = {
      entries: a.entries.map((value, k) => (a.coefficient * value + b.coefficient * b.entries[k]) / (total + epsilon)),
      coefficient: total,
    };
    neurons[kept] = merged;
    const renewed = neurons.map((other, i) =>
      given ? given.share * Math.min(similarity[kept][i], similarity[gone][i]) : dot(merged, other),
    );
    neurons.forEach((_, i) => {
      similarity[kept][i] = renewed[i];
      similarity[i][kept] = renewed[i];
    });
    neurons.splice(gone, 1);
    similarity.splice(gone, 1);
    for (const row of similarity) row.splice(gone, 1);
  }
  return neurons.map(({ entries }) => entries);
}

function expectNeurons(merged: ExpertMatrices, shape: ExpertShape, expected: readonly number[][]): void {
  const found = neuronsOf(merged, shape);
  expect(found.length).toBe(expected.length);
  found.forEach((entries, i) => {
    entries.forEach((value, k) => {
      expect(value).toBeCloseTo(expected[i][k], 11);
    });
  });
}

describe.each([
  ['SwiGLU', true],
  ['ReLU', false],
] as const)('merge within and across, %s', (_, gated) => {
  const shape: ExpertShape = { hidden: 4, width: 12, gated, activation: gated ? 'silu' : 'relu' };
  const members = [1, 2, 3].map((key) => randomExpert(shape, key));
  const length = (gated ? 3 : 2) * shape.hidden;

  it('by weights is the procedure as it is told', () => {
    for (const [coefficients, epsilon] of [
      [[0.2, 0.5, 0.3], 0],
      [[1, 1, 1], 1e-3],
    ] as const) {
      const plain = zipPlainly(members, shape, coefficients, epsilon, length);
      expectNeurons(zipByWeights(members, shape, { coefficients, epsilon }), shape, plain);
    }
    const readers = zipPlainly(members, shape, [1, 2, 3], 0, length - shape.hidden);
    expectNeurons(zipByWeights(members, shape, { coefficients: [1, 2, 3], includeDown: false }), shape, readers);
  });

  it('by activations is the procedure as it is told, ties included', () => {
    for (const [round, share] of [
      [0, 0.1],
      [1, 0.1],
      [0, 0.9],
    ]) {
      const n = members.length * shape.width;
      const values = normals(n * n, 40);
      const matrix = new Float64Array(n * n);
      for (let i = 0; i < n; i++) {
        for (let j = 0; j <= i; j++) {
          const value = round === 1 ? Math.round(values[i * n + j]) : values[i * n + j];
          matrix[i * n + j] = value;
          matrix[j * n + i] = value;
        }
      }
      const plain = zipPlainly(members, shape, [1, 1, 2], 0, length, { matrix, share });
      const options = { coefficients: [1, 1, 2], repeatedShare: share };
      expectNeurons(zipByActivations(members, shape, { tokens: 9, matrix: matrix.slice() }, options), shape, plain);
    }
  });

  it('of an expert and its permuted copies gives it back', () => {
    // Orthogonal neurons, so that each is most like its copies.
    const wide = { ...shape, hidden: 16 };
    const up = new Float64Array(12 * 16);
    for (let i = 0; i < 12; i++) up[i * 16 + i] = 1 + i / 10;
    const expert = { ...(gated && { gate: up }), up, down: new Float64Array(12 * 16) };
    const copies = [expert, permuteNeurons(expert, wide, createRandom(1).permutation(12))];
    const merged = zipByWeights(copies, wide, { coefficients: [0.3, 0.7] });
    expectNeurons(merged, wide, neuronsOf(expert, wide));
  });
});

describe('merge within and across', () => {
  const shape: ExpertShape = { hidden: 4, width: 6, gated: false, activation: 'relu' };
  const members = [1, 2].map((key) => randomExpert(shape, key));

  it('without tokens is the first member', () => {
    const correlation = { tokens: 1, matrix: new Float64Array(0) };
    expect(zipByActivations(members, shape, correlation, { coefficients: [1, 1] })).toBe(members[0]);
  });

  it('of experts without usage takes plain means', () => {
    const merged = zipByWeights(members, shape, { coefficients: [0, 0] });
    expect(merged.up.every(Number.isFinite)).toBe(true);
  });

  it('refuses what does not fit', () => {
    expect(() => zipByWeights(members, shape, { coefficients: [1, 1], maxBytes: 100 })).toThrow(InputError);
    expect(() => zipByWeights(members, shape, { coefficients: [1] })).toThrow('1 coefficients of 2 experts');
    const correlation = { tokens: 5, matrix: new Float64Array(9) };
    expect(() => zipByActivations(members, shape, correlation, { coefficients: [1, 1] })).toThrow(
      'correlations of 3 neurons, not 12',
    );
  });
});
