import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cholesky, choleskyLogDeterminant, choleskySolve } from '../../src/linalg/cholesky.js';
import { thinSvd } from '../../src/linalg/svd.js';
import { symmetricEigen } from '../../src/linalg/symmetric-eigen.js';
import { createRandom } from '../../src/random.js';

const draw = (seed: number, size: number): Float64Array => {
  const random = createRandom(seed);
  return Float64Array.from({ length: size }, () => random.normal());
};

/** A^T A of `[n, n]` draws plus a little identity. */
function positive(seed: number, n: number): Float64Array {
  const a = draw(seed, n * n);
  const out = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      for (let k = 0; k < n; k++) out[i * n + j] += a[k * n + i] * a[k * n + j];
    }
    out[i * n + i] += 0.1;
  }
  return out;
}

describe('symmetric eigendecomposition', () => {
  it('rebuilds the matrix from orthonormal vectors, values ascending', () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 1, max: 12 }), (seed, n) => {
        const a = positive(seed, n);
        const { values, vectors } = symmetricEigen(a, n);
        for (let i = 1; i < n; i++) expect(values[i]).toBeGreaterThanOrEqual(values[i - 1]);
        for (let i = 0; i < n; i++) {
          for (let j = 0; j < n; j++) {
            let entry = 0;
            let product = 0;
            for (let k = 0; k < n; k++) {
              entry += values[k] * vectors[k * n + i] * vectors[k * n + j];
              product += vectors[i * n + k] * vectors[j * n + k];
            }
            expect(entry).toBeCloseTo(a[i * n + j], 8);
            expect(product).toBeCloseTo(i === j ? 1 : 0, 10);
          }
        }
      }),
      { numRuns: 20 },
    );
  });

  it('refuses other shapes and entries', () => {
    expect(() => symmetricEigen([1, 2, 3], 2)).toThrow(RangeError);
    expect(() => symmetricEigen([1, Number.NaN, Number.NaN, 1], 2)).toThrow(/entry \(1, 0\)/);
  });
});

describe('Cholesky', () => {
  it('solves, and its determinant is that of the eigenvalues', () => {
    const n = 9;
    const a = positive(5, n);
    const factor = cholesky(a, n) ?? expect.fail('positive definite');
    const b = draw(6, n);
    const x = choleskySolve(factor, n, b);
    for (let i = 0; i < n; i++) {
      let sum = 0;
      for (let j = 0; j < n; j++) sum += a[i * n + j] * x[j];
      expect(sum).toBeCloseTo(b[i], 9);
    }
    const logDeterminant = symmetricEigen(a, n).values.reduce((sum, value) => sum + Math.log(value), 0);
    expect(choleskyLogDeterminant(factor, n)).toBeCloseTo(logDeterminant, 9);
  });

  it('says so when the matrix is not positive definite', () => {
    expect(cholesky(Float64Array.of(1, 2, 2, 1), 2)).toBeUndefined();
    expect(cholesky(Float64Array.of(0), 1)).toBeUndefined();
  });
});

describe('singular values', () => {
  it.each([
    [7, 4],
    [4, 7],
    [5, 5],
    [1, 3],
  ])('rebuild a %d x %d matrix', (rows, columns) => {
    const a = draw(rows * 10 + columns, rows * columns);
    const rank = Math.min(rows, columns);
    const { left, values, right } = thinSvd(a, rows, columns);
    expect(values.length).toBe(rank);
    for (let k = 1; k < rank; k++) expect(values[k]).toBeLessThanOrEqual(values[k - 1]);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        let entry = 0;
        for (let k = 0; k < rank; k++) entry += left[i * rank + k] * values[k] * right[j * rank + k];
        expect(entry).toBeCloseTo(a[i * columns + j], 10);
      }
    }
  });
});
