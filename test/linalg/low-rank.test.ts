import { describe, expect, it } from 'vitest';
import { lowRankFactors, lowRankProduct, sparseResidual } from '../../src/linalg/low-rank.js';
import { createRandom } from '../../src/random.js';

const random = createRandom(23);
const normal = (length: number): Float64Array => Float64Array.from({ length }, () => random.normal());

describe('low rank and what is left', () => {
  it('share the weight of the singular values', () => {
    const [rows, columns, rank] = [12, 9, 4];
    const weight = normal(rows * columns);
    const { left, right, svd } = lowRankFactors(weight, rows, columns, rank);
    for (let i = 0; i < rank; i++) {
      let [a, b] = [0, 0];
      for (let r = 0; r < rows; r++) a += left[r * rank + i] ** 2;
      for (let c = 0; c < columns; c++) b += right[i * columns + c] ** 2;
      expect(a).toBeCloseTo(svd.values[i], 10);
      expect(b).toBeCloseTo(svd.values[i], 10);
    }
    const sizes = { rows, columns, rank };
    const residual = sparseResidual(weight, left, right, sizes);
    expect(Math.hypot(...residual)).toBeCloseTo(svd.residual, 10);
    lowRankProduct(left, right, sizes).forEach((value, at) => {
      expect(value + residual[at]).toBeCloseTo(weight[at], 12);
    });
    expect([...sparseResidual(weight, new Float64Array(0), new Float64Array(0), { rows, columns, rank: 0 })]).toEqual([
      ...weight,
    ]);
  });
});
