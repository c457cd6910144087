import { describe, expect, it } from 'vitest';
import { linearCka, pairwiseLinearCka } from '../../src/linalg/cka.js';
import { rankMeasures, singularValuesOfGram } from '../../src/linalg/rank-measures.js';
import { thinSvd } from '../../src/linalg/svd.js';
import { createRandom } from '../../src/random.js';

const draw = (seed: number, size: number): Float64Array => {
  const random = createRandom(seed);
  return Float64Array.from({ length: size }, () => random.normal());
};

describe('rank measures', () => {
  it('count the directions of a flat spectrum', () => {
    const flat = rankMeasures([3, 3, 3, 3]);
    expect(flat.effectiveRank).toBeCloseTo(4, 12);
    expect(flat.effectiveRankSquared).toBeCloseTo(4, 12);
    expect(flat.participationRatio).toBeCloseTo(4, 12);
    expect(flat.stableRank).toBeCloseTo(4, 12);
    // Each p is 1/4 + 1e-7: -p log p grows by (log 4 - 1) 1e-7.
    expect(flat.rankMe / 4 - 1).toBeCloseTo(4e-7 * (Math.log(4) - 1), 12);
  });

  it('follow their formulas on an uneven spectrum', () => {
    const values = [2, 1, 0];
    const got = rankMeasures(values);
    const entropy = (p: readonly number[]): number => p.reduce((sum, x) => sum - (x > 0 ? x * Math.log(x) : 0), 0);
    expect(got.effectiveRank).toBeCloseTo(Math.exp(entropy([2 / 3, 1 / 3])), 12);
    expect(got.effectiveRankSquared).toBeCloseTo(Math.exp(entropy([4 / 5, 1 / 5])), 12);
    expect(got.participationRatio).toBeCloseTo(25 / 17, 12);
    expect(got.stableRank).toBeCloseTo(5 / 4, 12);
    expect(got.rankMe).toBeCloseTo(Math.exp(entropy([2 / 3 + 1e-7, 1 / 3 + 1e-7, 1e-7])), 12);
  });

  it('keep their values when the matrix is scaled, even to the edge of doubles', () => {
    const base = rankMeasures([5, 2, 1]);
    for (const scale of [1e-160, 1e160]) {
      const scaled = rankMeasures([5 * scale, 2 * scale, scale]);
      expect(scaled.participationRatio).toBeCloseTo(base.participationRatio, 12);
      expect(scaled.rankMe).toBeCloseTo(base.rankMe, 12);
    }
  });

  it('have no value for zeros and refuse what is no singular value', () => {
    expect(rankMeasures([0, 0]).rankMe).toBeNaN();
    expect(() => rankMeasures([1, -1])).toThrow(RangeError);
    expect(() => rankMeasures([Number.NaN])).toThrow(RangeError);
  });

  it('take the largest of a Gram matrix', () => {
    expect([...singularValuesOfGram([-1e-18, 0, 4, 9], 2)]).toEqual([3, 2]);
    expect(() => singularValuesOfGram([1], 2)).toThrow(RangeError);
  });
});

describe('linear CKA', () => {
  const n = 30;
  const d = 5;
  const x = draw(1, n * d);

  it('is 1 under rotation, scale and shift', () => {
    const rotation = thinSvd(draw(2, d * d), d, d).left;
    const moved = new Float64Array(n * d);
    for (let r = 0; r < n; r++) {
      for (let j = 0; j < d; j++) {
        for (let k = 0; k < d; k++) moved[r * d + j] += 3 * x[r * d + k] * rotation[k * d + j];
        moved[r * d + j] += j;
      }
    }
    expect(linearCka(x, d, moved, d, n)).toBeCloseTo(1, 12);
  });

  it('is the same from features and from rows', () => {
    // 30 rows of 5 features take the products of features, 6 rows of 70 and 40 features those of rows.
    const wideRows = 6;
    const a = draw(3, wideRows * 70);
    const b = draw(4, wideRows * 40);
    const centred = (m: Float64Array, columns: number): number[][] => {
      const rows = Array.from({ length: wideRows }, (_, r) => [...m.subarray(r * columns, (r + 1) * columns)]);
      const mean = rows[0].map((_, j) => rows.reduce((sum, row) => sum + row[j], 0) / wideRows);
      return rows.map((row) => row.map((value, j) => value - mean[j]));
    };
    const hsic = (p: number[][], q: number[][]): number => {
      let total = 0;
      for (let i = 0; i < p[0].length; i++) {
        for (let j = 0; j < q[0].length; j++) total += p.reduce((sum, row, r) => sum + row[i] * q[r][j], 0) ** 2;
      }
      return total;
    };
    const p = centred(a, 70);
    const q = centred(b, 40);
    expect(linearCka(a, 70, b, 40, wideRows)).toBeCloseTo(hsic(p, q) / Math.sqrt(hsic(p, p) * hsic(q, q)), 12);
  });

  it('has no value for constant features, and is symmetric over sets', () => {
    const constant = new Float64Array(n * 2).fill(7);
    const sets = [
      { features: x, columns: d },
      { features: draw(5, n * 3), columns: 3 },
      { features: constant, columns: 2 },
    ];
    const matrix = pairwiseLinearCka(sets, n);
    expect(matrix[0]).toBe(1);
    expect(matrix[1]).toBe(matrix[3]);
    expect(matrix[1]).toBeCloseTo(linearCka(x, d, sets[1].features, 3, n), 12);
    expect(matrix[2]).toBeNaN();
    expect(matrix[8]).toBeNaN();
  });
});
