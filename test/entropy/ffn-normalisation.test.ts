import { describe, expect, it } from 'vitest';
import {
  fusedScaledFfn,
  fuseFfn,
  powerIteration,
  scaledFfn,
  spectrallyNormalised,
  spectralNorm,
  unitNorms,
  type WeightMatrix,
  weightNormalised,
} from '../../src/entropy/ffn-normalisation.js';
import { createRandom } from '../../src/random.js';

const random = createRandom(2);
const matrix = (rows: number, columns: number): WeightMatrix => ({
  data: Float64Array.from({ length: rows * columns }, () => random.normal()),
  rows,
  columns,
});

describe('weight normalisation', () => {
  it('gives every output unit its gain as norm, in either layout', () => {
    const weight = matrix(4, 7);
    const byRow = Float64Array.of(1, 2, 3, 4);
    unitNorms(weightNormalised(weight, byRow, 'rows'), 'rows').forEach((norm, i) => {
      expect(norm).toBeCloseTo(byRow[i], 12);
    });
    const byColumn = Float64Array.from({ length: 7 }, (_, i) => i + 0.5);
    unitNorms(weightNormalised(weight, byColumn, 'columns'), 'columns').forEach((norm, i) => {
      expect(norm).toBeCloseTo(byColumn[i], 12);
    });
    expect(() => weightNormalised(weight, byRow, 'columns')).toThrow('4 gains for 7 output units');
  });

  it('leaves a unit of zeros at 0', () => {
    const weight = { data: Float64Array.of(0, 0, 3, 4), rows: 2, columns: 2 };
    expect([...weightNormalised(weight, Float64Array.of(1, 10)).data]).toEqual([0, 0, 6, 8]);
  });
});

describe('spectral normalisation', () => {
  it('comes to the largest singular value as power iteration goes on', () => {
    const weight = matrix(9, 5);
    const start = Float64Array.from({ length: 9 }, () => random.normal());
    const exact = spectralNorm(weight);
    const estimates = [1, 3, 300].map((steps) => powerIteration(weight, start, steps).sigma);
    for (const sigma of estimates) expect(sigma).toBeLessThanOrEqual(exact + 1e-12);
    expect(estimates[2]).toBeCloseTo(exact, 9);
    expect(spectralNorm(spectrallyNormalised(weight, estimates[2]))).toBeCloseTo(1, 9);
  });

  it('takes one step a call in training, from where the last one ended', () => {
    const weight = matrix(6, 6);
    let left = Float64Array.from({ length: 6 }, () => random.normal());
    const together = powerIteration(weight, left, 4);
    for (let step = 0; step < 4; step++) left = Float64Array.from(powerIteration(weight, left, 1).left);
    left.forEach((value, i) => {
      expect(value).toBeCloseTo(together.left[i], 12);
    });
  });

  it('leaves zeros alone and refuses what does not fit', () => {
    const zeros = { data: new Float64Array(6), rows: 2, columns: 3 };
    expect(powerIteration(zeros, Float64Array.of(1, 1), 2).sigma).toBe(0);
    expect([...spectrallyNormalised(zeros, 0).data]).toEqual([0, 0, 0, 0, 0, 0]);
    expect(() => powerIteration(zeros, new Float64Array(3), 1)).toThrow('3 values for 2 rows');
    expect(() => powerIteration(zeros, new Float64Array(2), 0)).toThrow(/one is the least/);
  });
});

describe('the scaled feed-forward branch', () => {
  it('is the same fused into one matrix', () => {
    const [x, inward, outward] = [matrix(3, 4), matrix(4, 16), matrix(16, 4)];
    const scales = { alpha: 1.7, beta: 0.6 };
    const apart = scaledFfn(x, inward, outward, scales);
    fusedScaledFfn(x, fuseFfn(inward, outward), scales).data.forEach((value, i) => {
      expect(value).toBeCloseTo(apart.data[i], 10);
    });
    expect(() => scaledFfn(x, inward, matrix(16, 5), scales)).toThrow(/5 columns for an input of 4/);
    expect(() => scaledFfn(x, matrix(5, 4), outward, scales)).toThrow(/does not exist/);
    expect(() => scaledFfn(x, inward, outward, { alpha: 0, beta: 1 })).toThrow(/alpha is 0/);
  });
});
