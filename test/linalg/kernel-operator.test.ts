import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { configureKernels } from '../../src/kernels/native.js';
import { gaussianDegrees, gaussianPowerSum, scalePoints } from '../../src/linalg/gaussian-tiles.js';
import {
  anisotropicOperator,
  diffusionOperator,
  gaussianHeight,
  gaussianOperator,
  linearOperator,
  matrixOperator,
  type Points,
  type SymmetricOperator,
} from '../../src/linalg/kernel-operator.js';
import { openProducts } from '../../src/linalg/tiled-products.js';
import { createRandom } from '../../src/random.js';

const products = openProducts({ threads: 2 });
const single = openProducts({ threads: 1 });
const many = openProducts({ threads: 4 });
afterAll(async () => {
  for (const each of [products, single, many]) await each.close();
});
afterEach(() => configureKernels({ native: true }));

function pointsOf(n: number, d: number, seed = 1, offset = 0): Points {
  const random = createRandom(seed);
  return { data: Float64Array.from({ length: n * d }, () => offset + random.normal()), n, d };
}

/** The kernel entry by entry. */
function plainGaussian({ data, n, d }: Points, sigma: number): Float64Array {
  const kernel = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      let squared = 0;
      for (let k = 0; k < d; k++) squared += (data[i * d + k] - data[j * d + k]) ** 2;
      kernel[i * n + j] = Math.exp(-squared / (2 * sigma * sigma));
    }
  }
  return kernel;
}

/** K_ij / sqrt(s_i s_j) with s the row sums. */
function normalised(kernel: Float64Array, n: number): Float64Array {
  const sums = new Float64Array(n);
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) sums[i] += kernel[i * n + j];
  return kernel.map((value, at) => value / Math.sqrt(sums[Math.floor(at / n)] * sums[at % n]));
}

function plainProduct(kernel: Float64Array, n: number, v: Float64Array, b: number): Float64Array {
  const out = new Float64Array(b * n);
  for (let p = 0; p < b; p++)
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) out[p * n + i] += kernel[i * n + j] * v[p * n + j];
  return out;
}

const largestDifference = (a: Float64Array, b: Float64Array): number =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);

/** Compares with a matrix: products of one and of several vectors, trace, squared norm. */
async function expectMatrix(operator: SymmetricOperator, kernel: Float64Array, tolerance: number): Promise<void> {
  const { n } = operator;
  const random = createRandom(99);
  const v = Float64Array.from({ length: 5 * n }, () => random.normal());
  const out = new Float64Array(5 * n).fill(Number.NaN);
  await operator.multiply(v, 5, out);
  const expected = plainProduct(kernel, n, v, 5);
  expect(largestDifference(out, expected)).toBeLessThan(tolerance * Math.max(1, ...expected.map(Math.abs)));
  const alone = new Float64Array(n);
  await operator.multiply(v.subarray(2 * n), 1, alone);
  expect(alone).toEqual(out.slice(2 * n, 3 * n));
  const trace = kernel.filter((_, at) => at % (n + 1) === 0).reduce((sum, value) => sum + value, 0);
  expect(Math.abs((await operator.trace()) / trace - 1)).toBeLessThan(tolerance);
  const squares = kernel.reduce((sum, value) => sum + value * value, 0);
  if (operator.squaredNorm) expect(Math.abs((await operator.squaredNorm()) / squares - 1)).toBeLessThan(tolerance);
}

describe('operators of points', () => {
  const small = pointsOf(60, 4);
  // More than one tile, the last one narrow.
  const large = pointsOf(1030, 3, 2, 50);

  it('multiply by the Gaussian kernel', async () => {
    for (const points of [small, large]) {
      const kernel = plainGaussian(points, 1.3);
      await expectMatrix(gaussianOperator(points, 1.3, { products }), kernel, 1e-11);
      await expectMatrix(gaussianOperator(points, 1.3, { products, precision: 'f32' }), kernel, 3e-6);
    }
    expect(gaussianHeight(10)).toBeCloseTo(0.03989422804014327, 15);
  });

  it('multiply by the kernel under weights', async () => {
    const random = createRandom(5);
    const factors = Float64Array.from({ length: small.n }, () => Math.sqrt(random.uniform()));
    const kernel = plainGaussian(small, 2).map((x, at) => x * factors[Math.floor(at / 60)] * factors[at % 60]);
    await expectMatrix(gaussianOperator(small, 2, { products }, factors), kernel, 1e-12);
  });

  it('multiply by the anisotropic kernel and by the diffusion operator', async () => {
    for (const points of [small, large]) {
      const anisotropic = normalised(plainGaussian(points, 0.9), points.n);
      await expectMatrix(await anisotropicOperator(points, 0.9, { products }), anisotropic, 1e-11);
      await expectMatrix(await diffusionOperator(points, 0.9, { products }), normalised(anisotropic, points.n), 1e-11);
      await expectMatrix(await anisotropicOperator(points, 0.9, { products, precision: 'f32' }), anisotropic, 3e-6);
    }
  });

  it('keep an isolated point and equal points', async () => {
    const data = Float64Array.from([0, 0, 0, 0, 1e6, 1e6, 3, 4]);
    const points = { data, n: 4, d: 2 };
    const kernel = plainGaussian(points, 1);
    await expectMatrix(await anisotropicOperator(points, 1, { products }), normalised(kernel, 4), 1e-9);
  });

  it('multiply by inner products and cosines without the matrix of pairs', async () => {
    const wide = pointsOf(40, 90, 7);
    const factors = Float64Array.from({ length: 40 }, (_, i) => 0.5 + i / 40);
    const gram = (points: Points, s: (i: number) => number): Float64Array => {
      const { data, n, d } = points;
      return Float64Array.from({ length: n * n }, (_, at) => {
        const [i, j] = [Math.floor(at / n), at % n];
        let sum = 0;
        for (let k = 0; k < d; k++) sum += data[i * d + k] * data[j * d + k];
        return sum * s(i) * s(j);
      });
    };
    const length = (points: Points, i: number): number =>
      Math.hypot(...points.data.subarray(i * points.d, (i + 1) * points.d));
    await expectMatrix(
      linearOperator(large, { products }),
      gram(large, () => 1),
      1e-11,
    );
    await expectMatrix(
      linearOperator(wide, { products, normalise: true, factors }),
      gram(wide, (i) => factors[i] / length(wide, i)),
      1e-12,
    );
    await expectMatrix(
      linearOperator(wide, { products, normalise: true, precision: 'f32' }),
      gram(wide, (i) => 1 / length(wide, i)),
      3e-6,
    );
    const zero = { data: new Float64Array(4), n: 2, d: 2 };
    expect(() => linearOperator(zero, { products, normalise: true })).toThrow(/row 0 is all zeros/);
  });

  it('multiply by a matrix, also under factors', async () => {
    const kernel = plainGaussian(large, 3);
    await expectMatrix(matrixOperator(kernel, large.n, products), kernel, 1e-12);
    const factors = Float64Array.from({ length: large.n }, (_, i) => 1 + (i % 3));
    const scaled = kernel.map((x, at) => x * factors[Math.floor(at / large.n)] * factors[at % large.n]);
    await expectMatrix(matrixOperator(kernel, large.n, products, factors), scaled, 1e-12);
  });

  it('give the same bits on any number of threads, and nearly the same without the addon', async () => {
    const v = Float64Array.from({ length: 3 * large.n }, (_, i) => Math.sin(i));
    for (const precision of ['f32', 'f64'] as const) {
      const results: Float64Array[] = [];
      for (const each of [single, products, many]) {
        const out = new Float64Array(v.length);
        await (await anisotropicOperator(large, 1, { products: each, precision })).multiply(v, 3, out);
        results.push(out);
      }
      expect(results[1]).toEqual(results[0]);
      expect(results[2]).toEqual(results[0]);
      configureKernels({ native: false });
      const reference = new Float64Array(v.length);
      await (await anisotropicOperator(large, 1, { products, precision })).multiply(v, 3, reference);
      configureKernels({ native: true });
      expect(largestDifference(reference, results[0])).toBeLessThan(precision === 'f32' ? 1e-6 : 1e-13);
    }
  });

  it('sum powers of the kernel and its rows', async () => {
    const kernel = plainGaussian(large, 1.5);
    const { n } = large;
    const random = createRandom(8);
    const weights = Float64Array.from({ length: n }, () => random.uniform() / n);
    const scaled = scalePoints(large, 1.5);
    for (const power of [1, 2, 3.5]) {
      let expected = 0;
      for (let i = 0; i < n; i++)
        for (let j = 0; j < n; j++) expected += weights[i] * weights[j] * kernel[i * n + j] ** power;
      const got = await gaussianPowerSum(scaled, weights, power, { products });
      expect(Math.abs(got / expected - 1)).toBeLessThan(1e-11);
    }
    const degrees = await gaussianDegrees(scaled, { products });
    const expected = plainProduct(kernel, n, new Float64Array(n).fill(1), 1);
    expect(largestDifference(degrees, expected)).toBeLessThan(1e-9);
  });

  it('refuse a bandwidth that is not positive', async () => {
    expect(() => gaussianOperator(small, 0, { products })).toThrow(RangeError);
    await expect(anisotropicOperator(small, Number.NaN, { products })).rejects.toThrow(RangeError);
  });
});
