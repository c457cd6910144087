import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { symmetricSpectrum } from '../../src/kernels/symmetric-spectrum.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

/** Lower triangle of a random symmetric matrix; above the diagonal NaN, which must not be read. */
function randomMatrix(n: number, seed: number): Float64Array {
  const random = createRandom(seed);
  const matrix = new Float64Array(n * n).fill(Number.NaN);
  for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) matrix[i * n + j] = random.normal();
  return matrix;
}

/** Q diag(values) Q', Q a product of reflections with random directions. */
function withSpectrum(values: readonly number[], seed: number): Float64Array {
  const n = values.length;
  const random = createRandom(seed);
  const matrix = new Float64Array(n * n);
  for (let i = 0; i < n; i++) matrix[i * n + i] = values[i];
  for (let turn = 0; turn < 3; turn++) {
    const v = Float64Array.from({ length: n }, () => random.normal());
    const factor = 2 / v.reduce((sum, x) => sum + x * x, 0);
    const w = new Float64Array(n);
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) w[i] += factor * matrix[i * n + j] * v[j];
    const half = 0.5 * factor * w.reduce((sum, x, i) => sum + x * v[i], 0);
    for (let i = 0; i < n; i++) w[i] -= half * v[i];
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) matrix[i * n + j] -= v[i] * w[j] + w[i] * v[j];
  }
  return matrix;
}

const laplacian = (n: number): Float64Array => {
  const matrix = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    matrix[i * n + i] = 2;
    if (i > 0) matrix[i * n + i - 1] = -1;
  }
  return matrix;
};

/** Largest difference in units of n eps |A|, n at least 8; |A| is the largest of the expected magnitudes. */
function distance(found: Float64Array, expected: ArrayLike<number>): number {
  let worst = 0;
  let norm = 0;
  for (let i = 0; i < found.length; i++) {
    worst = Math.max(worst, Math.abs(found[i] - expected[i]));
    norm = Math.max(norm, Math.abs(expected[i]));
  }
  return worst / (Number.EPSILON * Math.max(norm, Number.MIN_VALUE) * Math.max(8, found.length));
}

/** Orders around the lengths of vectors, blocks, bands and pieces, and around the change of method at 384. */
const ORDERS = [1, 2, 3, 4, 7, 31, 33, 65, 97, 130, 384, 385, 386, 399, 415, 416, 417, 490, 545];

const modes = kernelModes();
const references = new Map<number, Float64Array>();

beforeAll(() => {
  modes[0].use();
  for (const n of ORDERS) references.set(n, symmetricSpectrum(randomMatrix(n, n), n));
  useBestKernels();
});

describe.each(modes)('spectrum of a symmetric matrix, $name', (mode) => {
  beforeAll(mode.use);
  afterAll(useBestKernels);

  it('agrees with the reference at every order around a block, on any number of threads', () => {
    for (const n of ORDERS) {
      const one = symmetricSpectrum(randomMatrix(n, n), n, { threads: 1 });
      expect(distance(one, references.get(n) ?? [])).toBeLessThan(2);
      if (mode.name !== 'typescript') {
        expect(symmetricSpectrum(randomMatrix(n, n), n, { threads: 3 })).toEqual(one);
      }
    }
  });

  it('finds the eigenvalues 2 - 2 cos(pi k / (n + 1)) of a second difference', () => {
    for (const n of [5, 96, 450]) {
      const expected = Array.from({ length: n }, (_, k) => 2 - 2 * Math.cos((Math.PI * (k + 1)) / (n + 1)));
      expect(distance(symmetricSpectrum(laplacian(n), n), expected)).toBeLessThan(1);
    }
  });

  it('finds clustered, graded, indefinite and rank-one spectra', () => {
    const n = 420;
    const spectra: ((i: number) => number)[] = [
      (i) => (i < 70 ? 1 : 3),
      (i) => 10 ** (-i / 14),
      (i) => (i % 2 === 0 ? 1 : -1) * (1 + i),
      (i) => (i === 0 ? 5 : 0),
      (i) => 1 + i * 1e-13,
    ];
    for (const [seed, value] of spectra.entries()) {
      const expected = Array.from({ length: n }, (_, i) => value(i)).sort((a, b) => a - b);
      expect(distance(symmetricSpectrum(withSpectrum(expected, seed), n), expected)).toBeLessThan(2);
    }
  });

  it('keeps trace and Frobenius norm', () => {
    const n = 410;
    const matrix = randomMatrix(n, 5);
    let trace = 0;
    let squares = 0;
    for (let i = 0; i < n; i++) {
      trace += matrix[i * n + i];
      for (let j = 0; j <= i; j++) squares += (i === j ? 1 : 2) * matrix[i * n + j] ** 2;
    }
    const values = symmetricSpectrum(matrix, n);
    expect(Math.abs(values.reduce((sum, x) => sum + x, 0) - trace)).toBeLessThan(1e-11);
    expect(values.reduce((sum, x) => sum + x * x, 0) / squares).toBeCloseTo(1, 13);
    expect([...values]).toEqual([...values].sort((a, b) => a - b));
  });

  it('handles orders 0 and 1, zeros and the identity exactly', () => {
    expect(symmetricSpectrum(new Float64Array(0), 0)).toEqual(new Float64Array(0));
    expect(symmetricSpectrum(Float64Array.of(-3), 1)).toEqual(Float64Array.of(-3));
    for (const n of [2, 40, 430]) {
      expect(symmetricSpectrum(new Float64Array(n * n), n)).toEqual(new Float64Array(n));
      const identity = Float64Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0));
      expect(symmetricSpectrum(identity, n)).toEqual(new Float64Array(n).fill(1));
    }
  });

  it('scales what would overflow or vanish', () => {
    for (const n of [3, 388]) {
      const plain = symmetricSpectrum(randomMatrix(n, 9), n);
      for (const exponent of [1000, -1000, -200]) {
        const scaled = randomMatrix(n, 9).map((x) => x * 2 ** exponent);
        const values = symmetricSpectrum(scaled, n).map((x) => x * 2 ** -exponent);
        expect(distance(values, plain)).toBeLessThan(1);
      }
    }
    const [small, large] = symmetricSpectrum(Float64Array.of(0, 0, 5e-324, 0), 2);
    expect([small, large]).toEqual([-5e-324, 5e-324]);
  });

  it('refuses entries that are not finite, and shapes that do not fit', () => {
    for (const bad of [Number.NaN, Infinity, -Infinity]) {
      for (const n of [4, 390]) {
        const matrix = randomMatrix(n, 1);
        matrix[3 * n + 1] = bad;
        expect(() => symmetricSpectrum(matrix, n)).toThrow(`entry (3, 1) of a symmetric matrix is ${bad}`);
      }
    }
    expect(() => symmetricSpectrum(new Float64Array(8), 3)).toThrow(RangeError);
    expect(() => symmetricSpectrum(new Float64Array(1), -1)).toThrow(RangeError);
  });
});
