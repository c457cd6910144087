import { describe, expect, it } from 'vitest';
import { thinSvd } from '../../src/linalg/svd.js';
import { permuteNeurons } from '../../src/moe/alignment.js';
import { createCombination } from '../../src/moe/combine.js';
import { createFixedDominant, nearestNeurons, weightCorrelation } from '../../src/moe/fixed-dominant.js';
import { mixtureError } from '../../src/moe/mixture-error.js';
import { createJointSvd } from '../../src/moe/sub-moe.js';
import type { ExpertMatrices, ExpertShape } from '../../src/moe/types.js';
import { createRandom } from '../../src/random.js';
import { normals, randomExpert } from './random-experts.js';

const shape: ExpertShape = { hidden: 5, width: 7, gated: true, activation: 'silu' };
const members = [1, 2, 3].map((key) => randomExpert(shape, key));
const WEIGHTS = [0.2, 0.5, 0.3];

function close(actual: ArrayLike<number> | undefined, expected: ArrayLike<number>, digits = 10): void {
  expect(actual?.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) expect(actual?.[i]).toBeCloseTo(expected[i], digits);
}

function meanOf(experts: readonly ExpertMatrices[]): ExpertMatrices {
  const sum = createCombination(shape);
  experts.forEach((expert, e) => {
    sum.add(expert, WEIGHTS[e]);
  });
  return sum.finish();
}

/** U_r S_r sum_e w_e V_e from the singular value decomposition of the matrices side by side. */
function jointSvd(
  matrices: readonly ArrayLike<number>[],
  rows: number,
  rank: number,
): { merged: number[]; energy: number } {
  const columns = matrices[0].length / rows;
  const width = columns * matrices.length;
  const joined = new Float64Array(rows * width);
  matrices.forEach((matrix, e) => {
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) joined[i * width + e * columns + j] = matrix[i * columns + j];
    }
  });
  const { left, values, right } = thinSvd(joined, rows, width);
  const thin = values.length;
  const merged = new Array<number>(rows * columns).fill(0);
  for (let k = 0; k < rank; k++) {
    for (let j = 0; j < columns; j++) {
      const mean = WEIGHTS.reduce((sum, w, e) => sum + w * right[(e * columns + j) * thin + k], 0);
      for (let i = 0; i < rows; i++) merged[i * columns + j] += left[i * thin + k] * values[k] * mean;
    }
  }
  const squares = values.map((value) => value * value);
  const sum = (list: Float64Array): number => list.reduce((total, value) => total + value, 0);
  return { merged, energy: sum(squares.subarray(0, rank)) / sum(squares) };
}

describe('joint SVD', () => {
  it.each([1, 2, 5, 7])('at rank %i is U S sum_e w_e V_e', (rank) => {
    const merge = createJointSvd(shape, { rank });
    members.forEach((member, e) => {
      merge.add(member, WEIGHTS[e]);
    });
    const { expert, energy } = merge.finish();
    for (const name of ['gate', 'up', 'down'] as const) {
      const rows = name === 'down' ? shape.hidden : shape.width;
      const { merged, energy: kept } = jointSvd(
        members.map((member) => member[name] ?? member.up),
        rows,
        Math.min(rank, rows),
      );
      close(expert[name], merged);
      expect(energy[name]).toBeCloseTo(kept, 10);
    }
  });

  it.each([{}, { rank: 7 }])('with all directions is the weighted mean, %o', (options) => {
    const merge = createJointSvd(shape, options);
    const permutation = createRandom(2).permutation(shape.width);
    members.forEach((member, e) => {
      merge.add(member, WEIGHTS[e], permutation);
    });
    const { expert, energy } = merge.finish();
    expect(expert).toEqual(permuteNeurons(meanOf(members), shape, permutation));
    expect(energy).toEqual({ gate: 1, up: 1, down: 1 });
  });

  it('refuses a rank below 1', () => {
    expect(() => createJointSvd(shape, { rank: 0 })).toThrow('rank 0');
  });
});

describe('fixed dominant', () => {
  const correlations = members.slice(1).map((member) => weightCorrelation(members[0], member, shape));

  it('each neuron joins the one it is most like; places are weighted means of who met there', () => {
    const merge = createFixedDominant(shape, members[0], WEIGHTS[0]);
    const nearest = correlations.map((correlation) => nearestNeurons(correlation, shape.width));
    nearest.forEach((places, e) => {
      merge.add(members[e + 1], WEIGHTS[e + 1], places);
    });
    const merged = merge.finish();
    const { hidden: H, width: I } = shape;
    for (let place = 0; place < I; place++) {
      const met = [
        [0, place],
        ...nearest.flatMap((to, e) => [...to].flatMap((at, j) => (at === place ? [[e + 1, j]] : []))),
      ];
      const total = met.reduce((sum, [e]) => sum + WEIGHTS[e], 0);
      for (let h = 0; h < H; h++) {
        const mean = (name: 'gate' | 'up' | 'down', at: (i: number) => number): number =>
          met.reduce((sum, [e, j]) => sum + WEIGHTS[e] * (members[e][name] ?? [])[at(j)], 0) / total;
        expect(merged.gate?.[place * H + h]).toBeCloseTo(
          mean('gate', (i) => i * H + h),
          12,
        );
        expect(merged.up[place * H + h]).toBeCloseTo(
          mean('up', (i) => i * H + h),
          12,
        );
        expect(merged.down[h * I + place]).toBeCloseTo(
          mean('down', (i) => h * I + i),
          12,
        );
      }
    }
  });

  it('the nearest is the first largest of a column', () => {
    expect([...nearestNeurons(Float64Array.of(0, 2, 1, 1, 0, 1, 1, 2, -1), 3)]).toEqual([1, 0, 0]);
  });

  it('correlations of weights are 1 for a neuron with itself and find a permuted copy', () => {
    const own = weightCorrelation(members[0], members[0], shape);
    // The floor of 1e-7 beside variances of some 0.1.
    for (let i = 0; i < shape.width; i++) expect(own[i * (shape.width + 1)]).toBeCloseTo(1, 5);
    const permutation = createRandom(2).permutation(shape.width);
    const copy = permuteNeurons(members[0], shape, permutation);
    const nearest = nearestNeurons(weightCorrelation(members[0], copy, shape), shape.width);
    expect(nearest).toEqual(permutation);
    const merge = createFixedDominant(shape, members[0], 0.3);
    merge.add(copy, 0.6, nearest);
    const merged = merge.finish();
    for (const name of ['gate', 'up', 'down'] as const) close(merged[name], members[0][name] ?? [], 12);
  });

  it('refuses a dominant without weight', () => {
    expect(() => createFixedDominant(shape, members[0], 0)).toThrow("the dominant's weight is 0");
  });
});

describe('error of a merged expert against the mixture of its members', () => {
  const x = normals(20 * shape.hidden, 8);

  it('is 0 for equal members and 1 for an expert that gives nothing', () => {
    const [one] = members;
    expect(mixtureError([one, one], [0.4, 0.6], one, shape, x, 20).relative).toBeLessThan(1e-15);
    const nothing = { ...one, down: new Float64Array(one.down.length) };
    const { error, signal, relative } = mixtureError(members, WEIGHTS, nothing, shape, x, 20);
    expect(relative).toBe(1);
    expect(error).toBe(signal);
  });
});
