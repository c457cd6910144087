import { describe, expect, it } from 'vitest';
import { multiply } from '../../src/kernels/gemm.js';
import { orthonormalColumns, truncatedSvd } from '../../src/linalg/randomized-svd.js';
import { thinSvd } from '../../src/linalg/svd.js';
import { createRandom } from '../../src/random.js';

function normal(length: number, seed: number): Float64Array {
  const random = createRandom(seed);
  return Float64Array.from({ length }, () => random.normal());
}

/** U diag(values) V^T with random orthonormal vectors. */
function withSpectrum(rows: number, columns: number, values: readonly number[], seed: number): Float64Array {
  const k = values.length;
  const left = orthonormalColumns(normal(rows * k, seed), rows, k);
  const right = orthonormalColumns(normal(columns * k, seed + 1), columns, k);
  const scaled = left.map((value, at) => value * values[at % k]);
  return multiply(scaled, right, new Float64Array(rows * columns), { m: rows, n: columns, k }, { transposeB: true });
}

function product(
  { left, values, right }: ReturnType<typeof truncatedSvd>,
  rows: number,
  columns: number,
): Float64Array {
  const k = values.length;
  const scaled = left.map((value, at) => value * values[at % k]);
  return multiply(scaled, right, new Float64Array(rows * columns), { m: rows, n: columns, k }, { transposeB: true });
}

const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.sqrt(Array.from(a).reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0));

describe('orthonormal columns', () => {
  it('are orthonormal, and zero where they depend on others', () => {
    const [rows, n] = [300, 12];
    const y = normal(rows * n, 1);
    for (let i = 0; i < rows; i++) y[i * n + 5] = 3 * y[i * n] - y[i * n + 4];
    orthonormalColumns(y, rows, n);
    const gram = multiply(y, y, new Float64Array(n * n), { m: n, n, k: rows }, { transposeA: true });
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) expect(gram[i * n + j]).toBeCloseTo(i === j && i !== 5 ? 1 : 0, 13);
    }
  });
});

describe('truncated singular values', () => {
  const [rows, columns] = [180, 130];
  const decaying = Array.from({ length: 130 }, (_, i) => 2 ** (-i / 6));
  const matrix = withSpectrum(rows, columns, decaying, 7);

  it.each(['exact', 'randomised'] as const)('finds the leading ones (%s)', (path) => {
    const svd = truncatedSvd(matrix, rows, columns, 10, { path });
    expect(svd.path).toBe(path);
    for (let i = 0; i < 10; i++) expect(svd.values[i]).toBeCloseTo(decaying[i], path === 'exact' ? 12 : 4);
    const tail = Math.sqrt(decaying.slice(10).reduce((sum, value) => sum + value * value, 0));
    expect(svd.residual / tail).toBeGreaterThanOrEqual(1 - 1e-9);
    expect(svd.residual / tail).toBeLessThan(1 + 1e-4);
    expect(svd.residual).toBeCloseTo(distance(matrix, product(svd, rows, columns)), 10);
    expect(svd.norm).toBeCloseTo(Math.hypot(...decaying), 10);
    for (const [vectors, height] of [
      [svd.left, rows],
      [svd.right, columns],
    ] as const) {
      const gram = multiply(vectors, vectors, new Float64Array(100), { m: 10, n: 10, k: height }, { transposeA: true });
      for (let i = 0; i < 10; i++)
        for (let j = 0; j < 10; j++) expect(gram[i * 10 + j]).toBeCloseTo(i === j ? 1 : 0, 9);
    }
  });

  it('is near the best even where the spectrum is flat, nearer with more power iterations', () => {
    const [m, n, k] = [160, 120, 10];
    const noise = normal(m * n, 3);
    const best = thinSvd(noise, m, n).values;
    const tail = Math.sqrt(best.slice(k).reduce((sum, value) => sum + value * value, 0));
    const residuals = [0, 2, 6].map(
      (powerIterations) => truncatedSvd(noise, m, n, k, { path: 'randomised', powerIterations }).residual / tail,
    );
    // What scikit-learn's randomized_svd leaves on twenty such matrices, from least to most.
    const ranges = [
      [1.045, 1.054],
      [1.007, 1.011],
      [1.0004, 1.0016],
    ];
    residuals.forEach((residual, i) => {
      expect(residual).toBeGreaterThan(ranges[i][0]);
      expect(residual).toBeLessThan(ranges[i][1]);
    });
  });

  it('takes single precision, wide and tall', () => {
    const single = Float32Array.from(matrix);
    const svd = truncatedSvd(single, rows, columns, 6);
    expect(svd.path).toBe('randomised');
    const turned = new Float32Array(rows * columns);
    for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) turned[j * rows + i] = single[i * columns + j];
    const other = truncatedSvd(turned, columns, rows, 6);
    for (let i = 0; i < 6; i++) {
      expect(svd.values[i]).toBeCloseTo(decaying[i], 5);
      expect(other.values[i]).toBeCloseTo(svd.values[i], 5);
    }
  });

  it('gives the same bits for any number of threads, and others for another seed', () => {
    const single = Float32Array.from(matrix);
    const one = truncatedSvd(single, rows, columns, 6, { threads: 1 });
    expect(truncatedSvd(single, rows, columns, 6, { threads: 2 })).toEqual(one);
    expect(truncatedSvd(single, rows, columns, 6, { seed: 1 }).left).not.toEqual(one.left);
  });

  it('reproduces a matrix of lower rank and one of zeros', () => {
    const low = withSpectrum(200, 150, [5, 2, 1], 9);
    const svd = truncatedSvd(low, 200, 150, 8);
    expect(svd.path).toBe('randomised');
    expect(svd.residual).toBeLessThan(1e-7);
    expect(svd.values[3]).toBeLessThan(1e-6);
    const none = truncatedSvd(new Float32Array(200 * 150), 200, 150, 4);
    expect([...none.values]).toEqual([0, 0, 0, 0]);
    expect([none.norm, none.residual]).toEqual([0, 0]);
  });

  it('decomposes as a whole what is small or complete', () => {
    expect(truncatedSvd(normal(20 * 30, 1), 20, 30, 3).spectrum).toHaveLength(20);
    expect(truncatedSvd(normal(120 * 100, 1), 120, 100, 100)).toMatchObject({ path: 'exact' });
    const nothing = truncatedSvd(normal(200 * 150, 2), 200, 150, 0);
    expect(nothing.values).toHaveLength(0);
    expect(nothing.residual).toBe(nothing.norm);
  });

  it('refuses what is no matrix', () => {
    expect(() => truncatedSvd(new Float64Array(5), 2, 3, 1)).toThrow(/5 entries/);
    expect(() => truncatedSvd(new Float64Array(6), 2, 3, 3)).toThrow(/rank 3/);
    expect(() => truncatedSvd(Float64Array.of(1, Number.NaN), 1, 2, 1)).toThrow(/not finite/);
    expect(() => truncatedSvd(Float64Array.of(1, Number.POSITIVE_INFINITY), 1, 2, 1)).toThrow(/not finite/);
  });
});
