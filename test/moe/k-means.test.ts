import { describe, expect, it } from 'vitest';
import { kMeans } from '../../src/moe/k-means.js';
import { createRandom } from '../../src/random.js';

/** Least sum of squares over all ways to divide the points, by trying them all. */
function bruteForce(points: Float64Array, n: number, columns: number, clusters: number): number {
  let best = Number.POSITIVE_INFINITY;
  for (let code = 0; code < clusters ** n; code++) {
    const labels = Array.from({ length: n }, (_, i) => Math.floor(code / clusters ** i) % clusters);
    if (new Set(labels).size === clusters) best = Math.min(best, squares(points, columns, labels));
  }
  return best;
}

function squares(points: Float64Array, columns: number, labels: ArrayLike<number>): number {
  let total = 0;
  for (const label of new Set(Array.from(labels))) {
    const own = Array.from(labels).flatMap((other, i) => (other === label ? [i] : []));
    for (let c = 0; c < columns; c++) {
      const mean = own.reduce((sum, i) => sum + points[i * columns + c], 0) / own.length;
      for (const i of own) total += (points[i * columns + c] - mean) ** 2;
    }
  }
  return total;
}

describe('kMeans', () => {
  it('reaches the least sum of squares of small sets', () => {
    for (let seed = 0; seed < 6; seed++) {
      const random = createRandom(seed);
      const points = Float64Array.from({ length: 14 }, () => random.normal());
      const labels = kMeans(points, 7, 2, 3, random);
      expect(squares(points, 2, labels)).toBeCloseTo(bruteForce(points, 7, 2, 3), 9);
    }
  });

  it('numbers clusters by first appearance and leaves none empty, not even of equal points', () => {
    const labels = kMeans(new Float64Array(10).fill(1), 5, 2, 3, createRandom(1));
    expect(new Set(labels).size).toBe(3);
    const numbers = [...new Set(labels)];
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
    expect([...kMeans(Float64Array.of(0, 1, 2), 3, 1, 3, createRandom(0))]).toEqual([0, 1, 2]);
    expect(() => kMeans(Float64Array.of(0, 1), 2, 1, 3, createRandom(0))).toThrow(/3 clusters of 2 points/);
  });
});
