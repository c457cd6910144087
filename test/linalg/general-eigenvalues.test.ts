import { describe, expect, it } from 'vitest';
import {
  eigenvaluesByComponents,
  generalEigenvalues,
  stronglyConnected,
} from '../../src/linalg/general-eigenvalues.js';
import { createRandom } from '../../src/random.js';

const sorted = ({ real, imaginary }: { real: Float64Array; imaginary: Float64Array }): [number, number][] =>
  Array.from(real, (re, i): [number, number] => [re, imaginary[i]]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);

/** Coefficients of the characteristic polynomial by Faddeev-LeVerrier: exact for small integer matrices. */
function characteristic(matrix: Float64Array, n: number): number[] {
  const coefficients = [1];
  let power = new Float64Array(n * n);
  for (let k = 1; k <= n; k++) {
    const shifted = power.slice();
    for (let i = 0; i < n; i++) shifted[i * n + i] += coefficients[k - 1];
    const product = new Float64Array(n * n);
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++)
        for (let l = 0; l < n; l++) product[i * n + j] += matrix[i * n + l] * shifted[l * n + j];
    let trace = 0;
    for (let i = 0; i < n; i++) trace += product[i * n + i];
    coefficients.push(-trace / k);
    power = product;
  }
  return coefficients;
}

/** |p(z)| relative to the sum of the sizes of its terms. */
function residual(coefficients: readonly number[], [re, im]: readonly [number, number]): number {
  let real = 0;
  let imaginary = 0;
  let size = 0;
  const modulus = Math.hypot(re, im);
  for (const coefficient of coefficients) {
    [real, imaginary] = [real * re - imaginary * im + coefficient, real * im + imaginary * re];
    size = size * modulus + Math.abs(coefficient);
  }
  return size === 0 ? 0 : Math.hypot(real, imaginary) / size;
}

describe('eigenvalues of a matrix that is not symmetric', () => {
  it('are roots of the characteristic polynomial, for random integer matrices', () => {
    const random = createRandom(3);
    for (let trial = 0; trial < 60; trial++) {
      const n = 1 + random.integer(8);
      const matrix = Float64Array.from({ length: n * n }, () => random.integer(7) - 3);
      const coefficients = characteristic(matrix, n);
      for (const value of sorted(generalEigenvalues(matrix.slice(), n))) {
        expect(residual(coefficients, value)).toBeLessThan(1e-11);
      }
    }
  });

  it('are the n-th roots of unity for a cycle, whose shifts need an exception', () => {
    for (const n of [2, 3, 4, 7, 12, 32]) {
      const matrix = new Float64Array(n * n);
      for (let i = 0; i < n; i++) matrix[i * n + ((i + 1) % n)] = 1;
      const values = sorted(generalEigenvalues(matrix, n));
      for (const [re, im] of values) expect(Math.hypot(re, im)).toBeCloseTo(1, 12);
      const angles = values.map(([re, im]) => Math.round((Math.atan2(im, re) * n) / (2 * Math.PI) + n) % n);
      expect(new Set(angles).size).toBe(n);
    }
  });

  it('keep trace and conjugate pairs on a large matrix', () => {
    const n = 120;
    const random = createRandom(5);
    const matrix = Float64Array.from({ length: n * n }, () => random.normal());
    let trace = 0;
    for (let i = 0; i < n; i++) trace += matrix[i * n + i];
    const { real, imaginary } = generalEigenvalues(matrix, n);
    expect(real.reduce((a, b) => a + b, 0)).toBeCloseTo(trace, 9);
    expect(imaginary.reduce((a, b) => a + b, 0)).toBeCloseTo(0, 12);
  });

  it('come from the components of the graph as from the whole matrix', () => {
    const random = createRandom(9);
    for (let trial = 0; trial < 30; trial++) {
      const n = 3 + random.integer(20);
      const matrix = Float64Array.from({ length: n * n }, () => (random.uniform() < 1.2 / n ? random.normal() : 0));
      for (let i = 0; i < n; i++) matrix[i * n + i] = random.normal();
      const whole = sorted(generalEigenvalues(matrix.slice(), n));
      const parts = sorted(eigenvaluesByComponents(matrix, n));
      whole.forEach(([re, im], i) => {
        expect(parts[i][0]).toBeCloseTo(re, 9);
        expect(parts[i][1]).toBeCloseTo(im, 9);
      });
    }
  });

  it('finds the strongly connected components', () => {
    // 0 -> 1 -> 2 -> 0, 2 -> 3, 3 <-> 4, 5 alone
    const matrix = new Float64Array(36);
    for (const [i, j] of [
      [0, 1],
      [1, 2],
      [2, 0],
      [2, 3],
      [3, 4],
      [4, 3],
    ])
      matrix[i * 6 + j] = 1;
    expect(stronglyConnected(matrix, 6).sort((a, b) => a[0] - b[0])).toEqual([[0, 1, 2], [3, 4], [5]]);
  });

  it('refuses what is no finite square matrix', () => {
    expect(() => generalEigenvalues(new Float64Array(3), 2)).toThrow(/no 2 x 2/);
    expect(() => generalEigenvalues(Float64Array.of(Number.NaN), 1)).toThrow(/NaN/);
  });
});
