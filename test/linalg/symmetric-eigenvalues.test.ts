import { describe, expect, it } from 'vitest';
import { symmetricEigen } from '../../src/linalg/symmetric-eigen.js';
import { symmetricEigenvalues } from '../../src/linalg/symmetric-eigenvalues.js';
import { createRandom } from '../../src/random.js';

/** Lower triangle, packed by rows, of X^T X with X [rows, n] of normal entries; and the full matrix. */
function gram(n: number, rows: number, seed: number): { packed: Float64Array; full: Float64Array } {
  const random = createRandom(seed);
  const x = Float64Array.from({ length: rows * n }, () => random.uniform() - 0.5);
  const full = new Float64Array(n * n);
  const packed = new Float64Array((n * (n + 1)) / 2);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      for (let r = 0; r < rows; r++) full[i * n + j] += x[r * n + i] * x[r * n + j];
      if (j <= i) packed[(i * (i + 1)) / 2 + j] = full[i * n + j];
    }
  }
  return { packed, full };
}

describe('symmetricEigenvalues', () => {
  it.each([
    [1, 3],
    [2, 5],
    [3, 3],
    [17, 40],
    [64, 64],
    [64, 9],
  ])('order %i from %i rows: those of the decomposition with vectors', (n, rows) => {
    const { packed, full } = gram(n, rows, 7 + n);
    const trace = Array.from({ length: n }, (_, i) => full[i * n + i]).reduce((a, b) => a + b, 0);
    const found = symmetricEigenvalues(packed, n);
    const expected = symmetricEigen(full, n).values;
    for (let i = 0; i < n; i++) expect(Math.abs(found[i] - expected[i])).toBeLessThan(1e-13 * trace);
    expect(found.reduce((a, b) => a + b, 0)).toBeCloseTo(trace, 10);
  });

  it('knows matrices whose eigenvalues are known', () => {
    expect([...symmetricEigenvalues(Float64Array.of(3, 0, -1, 0, 0, 2), 3)]).toEqual([-1, 2, 3]);
    expect([...symmetricEigenvalues(new Float64Array(10), 4)]).toEqual([0, 0, 0, 0]);
    expect([...symmetricEigenvalues(new Float64Array(0), 0)]).toEqual([]);
    // 2 on the diagonal and -1 beside it: 2 - 2 cos(k pi / (n + 1)).
    const n = 30;
    const packed = new Float64Array((n * (n + 1)) / 2);
    for (let i = 0; i < n; i++) {
      packed[(i * (i + 1)) / 2 + i] = 2;
      if (i > 0) packed[(i * (i + 1)) / 2 + i - 1] = -1;
    }
    const found = symmetricEigenvalues(packed, n);
    for (let k = 1; k <= n; k++) expect(found[k - 1]).toBeCloseTo(2 - 2 * Math.cos((k * Math.PI) / (n + 1)), 13);
  });

  it('refuses what is no finite triangle', () => {
    expect(() => symmetricEigenvalues(new Float64Array(5), 3)).toThrow(/no triangle of order 3/);
    expect(() => symmetricEigenvalues(Float64Array.of(1, Number.NaN, 1), 2)).toThrow(/NaN/);
  });
});
