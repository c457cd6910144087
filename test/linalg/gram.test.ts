import { afterAll, describe, expect, it } from 'vitest';
import { arrayMatrix } from '../../src/formats/feature-matrix.js';
import { featureCovariance } from '../../src/linalg/feature-map.js';
import { gramMatrix, squaredDistances } from '../../src/linalg/gram.js';
import { rowMap } from '../../src/linalg/row-map.js';
import { openProducts } from '../../src/linalg/tiled-products.js';
import { createRandom } from '../../src/random.js';

const products = openProducts({ threads: 2 });
afterAll(() => products.close());

function pointsOf(n: number, d: number, seed: number, offset = 0): Float64Array {
  const random = createRandom(seed);
  return Float64Array.from({ length: n * d }, () => offset + random.normal());
}

const largestDifference = (a: Float64Array, b: Float64Array): number =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);

function plainMoment(x: Float64Array, n: number, d: number, weight: (i: number) => number): Float64Array {
  const moment = new Float64Array(d * d);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < d; j++)
      for (let k = 0; k < d; k++) moment[j * d + k] += weight(i) * x[i * d + j] * x[i * d + k];
  return moment;
}

describe('Gram matrices', () => {
  it('hold the inner products of rows, over more than one tile', async () => {
    const [n, d] = [1027, 5];
    const x = pointsOf(n, d, 1);
    const gram = await gramMatrix(x, n, d, products);
    for (const [i, j] of [
      [0, 0],
      [3, 1026],
      [1026, 3],
      [1025, 1026],
      [500, 501],
    ]) {
      let sum = 0;
      for (let k = 0; k < d; k++) sum += x[i * d + k] * x[j * d + k];
      expect(gram[i * n + j]).toBeCloseTo(sum, 12);
      expect(gram[i * n + j]).toBe(gram[j * n + i]);
    }
  });
});

describe('squared distances', () => {
  it('are exact for near and equal points far from the origin', async () => {
    const [n, d] = [50, 6];
    const x = pointsOf(n, d, 2, 1e6);
    // Row 1 equals row 0; row 2 is 1e-5 away from it.
    x.copyWithin(d, 0, d);
    x.copyWithin(2 * d, 0, d);
    x[2 * d] += 1e-5;
    const distances = await squaredDistances(x, n, d, products);
    expect(distances[1]).toBe(0);
    expect(distances[2]).toBe((x[2 * d] - x[0]) ** 2);
    let worst = 0;
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        let squared = 0;
        for (let k = 0; k < d; k++) squared += (x[i * d + k] - x[j * d + k]) ** 2;
        worst = Math.max(worst, Math.abs(distances[i * n + j] - squared) / Math.max(squared, 1e-300));
        if (distances[i * n + j] !== distances[j * n + i] || distances[i * n + j] < 0) worst = Number.POSITIVE_INFINITY;
      }
      expect(distances[i * (n + 1)]).toBe(0);
    }
    expect(worst).toBeLessThan(1e-11);
  });
});

describe('second moments of rows', () => {
  const [n, d] = [2500, 37];
  const x = pointsOf(n, d, 3, 2);
  const matrix = arrayMatrix('x', x, n, d);

  it('agree with plain sums, weighted or not, in f32 too', async () => {
    const plain = await featureCovariance(rowMap(matrix), { products });
    const expected = plainMoment(x, n, d, () => 1 / n);
    expect(largestDifference(plain, expected)).toBeLessThan(1e-12);
    const random = createRandom(4);
    const weights = Float64Array.from({ length: n }, () => random.uniform());
    const weighted = await featureCovariance(rowMap(matrix), { products, weights });
    const expectedWeighted = plainMoment(x, n, d, (i) => weights[i]);
    expect(largestDifference(weighted, expectedWeighted)).toBeLessThan(1e-9);
    const single = await featureCovariance(rowMap(matrix, 'f32'), { products });
    expect(largestDifference(single, expected)).toBeLessThan(1e-5);
  });

  it('refuse rows that are not finite', async () => {
    const bad = Float64Array.from([1, 2, 0, 0, Number.NaN, 4]);
    const map = rowMap(arrayMatrix('f.npy', bad, 3, 2));
    await expect(featureCovariance(map, { products })).rejects.toThrow(/1 of 3 rows/);
  });
});
