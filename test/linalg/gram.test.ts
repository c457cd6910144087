import { afterAll, describe, expect, it } from 'vitest';
import { arrayMatrix } from '../../src/formats/feature-matrix.js';
import { gramMatrix, secondMoment, squaredDistances } from '../../src/linalg/gram.js';
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

describe('second moments', () => {
  const [n, d] = [2500, 7];
  const x = pointsOf(n, d, 3, 2);
  const matrix = arrayMatrix('x', x, n, d);

  it('agree with plain sums, weighted, normalised and centred', async () => {
    const plain = await secondMoment(matrix, { products });
    expect(
      largestDifference(
        plain,
        plainMoment(x, n, d, () => 1 / n),
      ),
    ).toBeLessThan(1e-12);
    const random = createRandom(4);
    const weights = Float64Array.from({ length: n }, () => random.uniform());
    const weighted = await secondMoment(matrix, { products, weights });
    expect(
      largestDifference(
        weighted,
        plainMoment(x, n, d, (i) => weights[i]),
      ),
    ).toBeLessThan(1e-9);
    const unit = await secondMoment(matrix, { products, normalise: true });
    const square = (i: number): number => Math.hypot(...x.subarray(i * d, (i + 1) * d)) ** 2;
    expect(
      largestDifference(
        unit,
        plainMoment(x, n, d, (i) => 1 / n / square(i)),
      ),
    ).toBeLessThan(1e-13);
    const single = await secondMoment(matrix, { products, normalise: true, precision: 'f32' });
    expect(largestDifference(single, unit)).toBeLessThan(2e-6);
    const centred = await secondMoment(matrix, { products, centre: true });
    const means = Float64Array.from({ length: d }, (_, j) => {
      let sum = 0;
      for (let i = 0; i < n; i++) sum += x[i * d + j];
      return sum / n;
    });
    const about = x.map((value, at) => value - means[at % d]);
    expect(
      largestDifference(
        centred,
        plainMoment(about, n, d, () => 1 / n),
      ),
    ).toBeLessThan(1e-12);
  });

  it('are put together from panels when there are many columns', async () => {
    const [rows, columns] = [30, 700];
    const wide = pointsOf(rows, columns, 5);
    const moment = await secondMoment(arrayMatrix('wide', wide, rows, columns), { products });
    const expected = plainMoment(wide, rows, columns, () => 1 / rows);
    expect(largestDifference(moment, expected)).toBeLessThan(1e-13);
  });

  it('name the row that has no direction, and rows that are not finite', async () => {
    const bad = Float64Array.from([1, 2, 0, 0, 3, 4]);
    await expect(secondMoment(arrayMatrix('f.npy', bad, 3, 2), { products, normalise: true })).rejects.toThrow(
      /f\.npy: row 1 is all zeros/,
    );
    bad[4] = Number.NaN;
    await expect(secondMoment(arrayMatrix('f.npy', bad, 3, 2), { products })).rejects.toThrow(/1 of 3 rows/);
  });
});
