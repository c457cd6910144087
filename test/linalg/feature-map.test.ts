import { afterAll, describe, expect, it } from 'vitest';
import { arrayMatrix, type FeatureMatrix } from '../../src/formats/feature-matrix.js';
import { symmetricSpectrum } from '../../src/kernels/symmetric-spectrum.js';
import { diffusionCovariance, featureCovariance, largestOf, leadingModes } from '../../src/linalg/feature-map.js';
import { anisotropicOperator, diffusionOperator, type SymmetricOperator } from '../../src/linalg/kernel-operator.js';
import { drawLandmarks, nystromMap } from '../../src/linalg/nystrom.js';
import { drawFrequencies, fourierMap, fourierScores, spectrumOfFrequencies } from '../../src/linalg/random-features.js';
import { openProducts } from '../../src/linalg/tiled-products.js';
import { createRandom } from '../../src/random.js';

const products = openProducts({ threads: 2 });
const single = openProducts({ threads: 1 });
afterAll(async () => {
  await products.close();
  await single.close();
});

/** Groups of points in the plane of the first coordinates, with noise. */
function groups(n: number, d: number, count: number, spread: number, seed = 1): FeatureMatrix {
  const random = createRandom(seed);
  const data = new Float64Array(n * d);
  for (let i = 0; i < n; i++) {
    const angle = (2 * Math.PI * (i % count)) / count;
    for (let k = 0; k < d; k++) data[i * d + k] = spread * random.normal();
    data[i * d] += 8 * Math.cos(angle);
    data[i * d + 1] += 8 * Math.sin(angle);
  }
  return arrayMatrix('groups', data, n, d);
}

const whole = (matrix: FeatureMatrix): Float64Array => {
  const data = new Float64Array(matrix.rows * matrix.columns);
  matrix.readRows(0, matrix.rows, data);
  return data;
};

async function spectrumOf(operator: SymmetricOperator): Promise<Float64Array> {
  const { n } = operator;
  const identity = Float64Array.from({ length: n * n }, (_, at) => (at % (n + 1) === 0 ? 1 : 0));
  const matrix = new Float64Array(n * n);
  await operator.multiply(identity, n, matrix);
  return symmetricSpectrum(matrix, n);
}

const entropy = (values: Float64Array): number => {
  const total = values.reduce((sum, value) => sum + Math.max(0, value), 0);
  return values.reduce((sum, value) => (value > 0 ? sum - (value / total) * Math.log(value / total) : sum), 0);
};

describe('random Fourier features', () => {
  const matrix = groups(1500, 6, 5, 0.6);
  const [n, d] = [matrix.rows, matrix.columns];

  it('have a covariance of trace 1 that agrees with plain sums, whatever the threads', async () => {
    const frequencies = 20;
    const omega = drawFrequencies(d, frequencies, 2, 7);
    const covariance = await featureCovariance(fourierMap(matrix, omega, frequencies, { products }), { products });
    const x = whole(matrix);
    const features = 2 * frequencies;
    const phi = new Float64Array(n * features);
    for (let i = 0; i < n; i++) {
      for (let r = 0; r < frequencies; r++) {
        let angle = 0;
        for (let k = 0; k < d; k++) angle += x[i * d + k] * omega[k * frequencies + r];
        phi[i * features + r] = Math.cos(angle) / Math.sqrt(frequencies);
        phi[i * features + frequencies + r] = Math.sin(angle) / Math.sqrt(frequencies);
      }
    }
    const plain = new Float64Array(features * features);
    for (let i = 0; i < n; i++)
      for (let a = 0; a < features; a++)
        for (let b = 0; b < features; b++)
          plain[a * features + b] += (phi[i * features + a] * phi[i * features + b]) / n;
    const trace = covariance.reduce((sum, value, at) => (at % (features + 1) === 0 ? sum + value : sum), 0);
    expect(trace).toBeCloseTo(1, 13);
    // The features are rotated in pairs; the spectrum is that of the plain ones.
    const expected = symmetricSpectrum(plain, features);
    const actual = symmetricSpectrum(covariance.slice(), features);
    expect(Math.max(...actual.map((value, i) => Math.abs(value - expected[i])))).toBeLessThan(1e-13);
    for (const precision of ['f32', 'f64'] as const) {
      const of = (each: typeof products): Promise<Float64Array> =>
        featureCovariance(fourierMap(matrix, omega, frequencies, { products: each, precision }), { products: each });
      const one = await of(single);
      expect(await of(products)).toEqual(one);
      expect(Math.max(...one.map((value, i) => Math.abs(value - covariance[i])))).toBeLessThan(2e-6);
    }
  });

  it('take weights of the points', async () => {
    const frequencies = 8;
    const omega = drawFrequencies(d, frequencies, 2, 7);
    const map = fourierMap(matrix, omega, frequencies, { products });
    const uniform = await featureCovariance(map, { products });
    const weighted = await featureCovariance(map, { products, weights: new Float64Array(n).fill(1 / n) });
    expect(Math.max(...weighted.map((value, i) => Math.abs(value - uniform[i])))).toBeLessThan(1e-14);
    const onlyFirst = await featureCovariance(map, {
      products,
      weights: Float64Array.from({ length: n }, (_, i) => (i === 0 ? 1 : 0)),
    });
    const values = symmetricSpectrum(onlyFirst, 2 * frequencies);
    expect(values[2 * frequencies - 1]).toBeCloseTo(1, 12);
  });

  it('are those of fewer frequencies in the principal parts of the covariance', async () => {
    const all = drawFrequencies(d, 16, 2, 3);
    const half = drawFrequencies(d, 8, 2, 3);
    const covariance = await featureCovariance(fourierMap(matrix, all, 16, { products }), { products });
    const direct = await featureCovariance(fourierMap(matrix, half, 8, { products }), { products });
    const expected = symmetricSpectrum(direct, 16);
    const part = spectrumOfFrequencies(covariance, 16, (r) => r < 8);
    expect(Math.max(...part.map((value, i) => Math.abs(value - expected[i])))).toBeLessThan(1e-13);
    expect(drawFrequencies(d, 8, 2, 3, 1)).not.toEqual(half);
  });

  it('give entropies whose jackknife errors match the spread over draws, and a bias that falls with D', async () => {
    const draws = await Promise.all(
      Array.from({ length: 24 }, async (_, seed) => {
        const map = fourierMap(matrix, drawFrequencies(d, 64, 2, seed), 64, { products });
        return fourierScores(await featureCovariance(map, { products }), 64, [entropy])[0];
      }),
    );
    const mean = draws.reduce((sum, { value }) => sum + value, 0) / draws.length;
    const spread = Math.sqrt(draws.reduce((sum, { value }) => sum + (value - mean) ** 2, 0) / (draws.length - 1));
    const claimed = Math.sqrt(draws.reduce((sum, { standardError: se }) => sum + se * se, 0) / draws.length);
    expect(claimed / spread).toBeGreaterThan(0.6);
    expect(claimed / spread).toBeLessThan(1.6);
    const half = draws.reduce((sum, { half }) => sum + half, 0) / draws.length;
    const exact = entropy(await exactSpectrum(matrix, 2));
    expect(half).toBeLessThan(mean);
    expect(mean).toBeLessThan(exact);
    expect(exact - mean).toBeLessThan(0.65 * (exact - half));
  });

  it('give modes: one a group, with points of that group', async () => {
    // Groups of different sizes have eigenvectors of their own; those of equal ones mix.
    const kept = Int32Array.from({ length: n }, (_, i) => i).filter((i) => i / 5 < 100 + 50 * (i % 5));
    const data = new Float64Array(kept.length * d);
    const x = whole(matrix);
    kept.forEach((row, i) => {
      data.set(x.subarray(row * d, (row + 1) * d), i * d);
    });
    const unequal = arrayMatrix('unequal', data, kept.length, d);
    const map = fourierMap(unequal, drawFrequencies(d, 200, 2, 5), 200, { products });
    const covariance = await featureCovariance(map, { products });
    const { eigenvalues, scores } = await leadingModes(map, covariance, { modes: 5 }, products);
    const found = new Set<number>();
    for (const [mode, eigenvalue] of eigenvalues.entries()) {
      const all = scores.subarray(mode * map.n, (mode + 1) * map.n);
      const rows = largestOf(all, 10);
      const projections = Array.from(rows, (row) => all[row]);
      expect(projections[0]).toBe(Math.max(...all));
      expect(all.reduce((sum, value) => sum + value * value, 0) / map.n).toBeCloseTo(eigenvalue, 10);
      expect(eigenvalue).toBeGreaterThan(0.04);
      const group = kept[rows[0]] % 5;
      expect([...rows].every((row) => kept[row] % 5 === group)).toBe(true);
      expect([...projections]).toEqual([...projections].sort((a, b) => b - a));
      expect(projections[0]).toBeGreaterThan(0);
      found.add(group);
    }
    expect(found.size).toBe(5);
  });

  it('refuse a frequency too few', () => {
    expect(() => fourierScores(Float64Array.of(1, 0, 0, 1), 1, [entropy])).toThrow(RangeError);
    expect(() => fourierMap(matrix, new Float64Array(5), 3, { products })).toThrow(RangeError);
  });
});

/** Eigenvalues of K/n of the Gaussian kernel. */
async function exactSpectrum(matrix: FeatureMatrix, sigma: number): Promise<Float64Array> {
  const { rows: n, columns: d } = matrix;
  const landmarks = drawLandmarks(n, n, 0);
  expect(landmarks.length).toBe(n);
  const x = whole(matrix);
  const kernel = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let squared = 0;
      for (let k = 0; k < d; k++) squared += (x[i * d + k] - x[j * d + k]) ** 2;
      kernel[i * n + j] = Math.exp(-squared / (2 * sigma * sigma)) / n;
    }
  }
  return symmetricSpectrum(kernel, n);
}

describe('diffusion operators of features', () => {
  it('are those of the kernel itself with every point a landmark', async () => {
    const matrix = groups(120, 3, 3, 1);
    const [n, d] = [matrix.rows, matrix.columns];
    const points = { data: whole(matrix), n, d };
    const map = await nystromMap(matrix, { kind: 'gaussian', sigma: 2 }, drawLandmarks(n, n, 1), products);
    for (const normalisations of [1, 2] as const) {
      const { covariance, degrees } = await diffusionCovariance(map, normalisations, { products });
      const operator = await (normalisations === 1 ? anisotropicOperator : diffusionOperator)(points, 2, { products });
      const expected = (await spectrumOf(operator)).slice(n - map.features);
      const actual = symmetricSpectrum(covariance, map.features);
      expect(Math.max(...actual.map((value, i) => Math.abs(value - expected[i])))).toBeLessThan(1e-8);
      expect(Math.max(...degrees.map((value, i) => Math.abs(value / operator.degrees[i] - 1)))).toBeLessThan(1e-8);
    }
  });

  it('come near with random features, and refuse degrees that are noise', async () => {
    const matrix = groups(600, 3, 3, 1);
    const [n, d] = [matrix.rows, matrix.columns];
    const operator = await anisotropicOperator({ data: whole(matrix), n, d }, 4, { products });
    const exact = entropy(await spectrumOf(operator));
    const map = fourierMap(matrix, drawFrequencies(d, 256, 4, 1), 256, { products, sigma: 4 });
    const { covariance } = await diffusionCovariance(map, 1, { products });
    expect(entropy(symmetricSpectrum(covariance, 512))).toBeCloseTo(exact, 1);
    const coarse = fourierMap(matrix, drawFrequencies(d, 8, 0.05, 1), 8, { products, sigma: 0.05 });
    await expect(diffusionCovariance(coarse, 1, { products })).rejects.toThrow(
      /8 random frequencies at sigma 0\.05 are too coarse .* rows get a degree below 0\.5/,
    );
  });
});

describe('Nyström features', () => {
  const matrix = groups(1100, 4, 4, 0.5, 3);

  it('have the spectrum of the kernel when every point is a landmark', async () => {
    const small = groups(150, 4, 4, 0.5, 3);
    const map = await nystromMap(small, { kind: 'gaussian', sigma: 1.5 }, drawLandmarks(150, 150, 1), products);
    const covariance = await featureCovariance(map, { products });
    const expected = (await exactSpectrum(small, 1.5)).slice(150 - map.features);
    const actual = symmetricSpectrum(covariance, map.features);
    expect(map.dropped).toBe(150 - map.features);
    expect(Math.max(...actual.map((value, i) => Math.abs(value - expected[i])))).toBeLessThan(1e-10);
  });

  it('approximate it from below with fewer', async () => {
    const exact = await exactSpectrum(matrix, 3);
    const map = await nystromMap(matrix, { kind: 'gaussian', sigma: 3 }, drawLandmarks(1100, 120, 2), products);
    const covariance = await featureCovariance(map, { products });
    const actual = symmetricSpectrum(covariance, map.features);
    const trace = actual.reduce((sum, value) => sum + value, 0);
    expect(trace).toBeLessThan(1);
    expect(trace).toBeGreaterThan(0.99);
    for (let i = 1; i <= 5; i++) expect(Math.abs(actual[map.features - i] - exact[1100 - i])).toBeLessThan(1e-4);
  });

  it('drop the directions that equal landmarks share, and take cosines', async () => {
    const twice = arrayMatrix('twice', Float64Array.from([1, 0, 2, 0, 0, 3, 1, 1]), 4, 2);
    const map = await nystromMap(twice, { kind: 'cosine' }, drawLandmarks(4, 4, 1), products);
    expect(map.features).toBe(2);
    expect(map.dropped).toBe(2);
    const values = symmetricSpectrum(await featureCovariance(map, { products }), 2);
    expect(values[0] + values[1]).toBeCloseTo(1, 12);
    const zero = arrayMatrix('zero.npy', new Float64Array(4), 2, 2);
    await expect(nystromMap(zero, { kind: 'cosine' }, drawLandmarks(2, 2, 1), products)).rejects.toThrow(
      /zero\.npy: row 0/,
    );
  });

  it('draw landmarks without replacement, seeded', () => {
    const drawn = drawLandmarks(100, 30, 9);
    expect(new Set(drawn).size).toBe(30);
    expect(drawLandmarks(100, 30, 9)).toEqual(drawn);
    expect([...drawn]).toEqual([...drawn].sort((a, b) => a - b));
  });
});
