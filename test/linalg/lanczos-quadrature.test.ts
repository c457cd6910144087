import { afterAll, describe, expect, it } from 'vitest';
import { symmetricSpectrum } from '../../src/kernels/symmetric-spectrum.js';
import { studentQuantile } from '../../src/linalg/control-variates.js';
import { estimateEntropies } from '../../src/linalg/estimated-entropy.js';
import {
  anisotropicOperator,
  gaussianOperator,
  linearOperator,
  matrixOperator,
  type Points,
  type SymmetricOperator,
} from '../../src/linalg/kernel-operator.js';
import { traceFunctions } from '../../src/linalg/lanczos-quadrature.js';
import { quadratureNodes } from '../../src/linalg/quadrature-nodes.js';
import { openProducts } from '../../src/linalg/tiled-products.js';
import { createRandom } from '../../src/random.js';

const products = openProducts({ threads: 2 });
const single = openProducts({ threads: 1 });
afterAll(async () => {
  await products.close();
  await single.close();
});

/** Groups of points with noise of falling variance, as in features of models. */
function pointsOf(n: number, d: number): Points {
  const random = createRandom(3);
  const centres = Float64Array.from({ length: 10 * d }, () => 2 * random.normal());
  const data = new Float64Array(n * d);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < d; k++) data[i * d + k] = centres[(i % 10) * d + k] + random.normal() / (1 + k / 8);
  }
  return { data, n, d };
}

/** The operator as a matrix. */
async function matrixOf(operator: SymmetricOperator): Promise<Float64Array> {
  const { n } = operator;
  const identity = new Float64Array(n * n);
  for (let i = 0; i < n; i++) identity[i * (n + 1)] = 1;
  const matrix = new Float64Array(n * n);
  await operator.multiply(identity, n, matrix);
  return matrix;
}

const spectrumOf = async (operator: SymmetricOperator): Promise<Float64Array> =>
  symmetricSpectrum(await matrixOf(operator), operator.n);

function renyi(values: Float64Array, t: number, q: number): number {
  const powers = values.map((value) => Math.abs(value) ** t);
  const total = powers.reduce((sum, value) => sum + value, 0);
  const shares = powers.map((value) => value / total).filter((p) => p > 0);
  if (q === 1) return shares.reduce((sum, p) => sum - p * Math.log(p), 0);
  return Math.log(shares.reduce((sum, p) => sum + p ** q, 0)) / (1 - q);
}

describe('nodes of a quadrature', () => {
  it('are the eigenvalues of the Jacobi matrix, with weights that reproduce its moments', () => {
    const random = createRandom(1);
    for (const m of [1, 2, 3, 17, 40]) {
      const alphas = Array.from({ length: m }, () => random.normal());
      const betas = Array.from({ length: m - 1 }, () => random.uniform());
      const { values, weights } = quadratureNodes(alphas, betas);
      const matrix = new Float64Array(m * m);
      alphas.forEach((value, i) => {
        matrix[i * (m + 1)] = value;
      });
      betas.forEach((value, i) => {
        matrix[(i + 1) * m + i] = value;
      });
      const expected = symmetricSpectrum(matrix.slice(), m);
      expect(Math.max(...values.map((value, i) => Math.abs(value - expected[i])))).toBeLessThan(1e-13);
      const moment = (k: number): number => values.reduce((sum, value, i) => sum + weights[i] * value ** k, 0);
      expect(moment(0)).toBeCloseTo(1, 13);
      expect(moment(1)).toBeCloseTo(alphas[0], 12);
      expect(moment(2)).toBeCloseTo(alphas[0] ** 2 + (betas[0] ?? 0) ** 2, 12);
    }
  });

  it('of Legendre polynomials integrate them exactly', () => {
    const m = 12;
    const betas = Array.from({ length: m - 1 }, (_, i) => (i + 1) / Math.sqrt(4 * (i + 1) ** 2 - 1));
    const { values, weights } = quadratureNodes(new Float64Array(m), betas);
    for (let k = 0; k < 2 * m; k++) {
      const moment = values.reduce((sum, value, i) => sum + weights[i] * value ** k, 0);
      expect(moment).toBeCloseTo(k % 2 === 0 ? 1 / (k + 1) : 0, 13);
    }
  });

  it('split where an off-diagonal entry is zero, and refuse what is not finite', () => {
    const { values, weights } = quadratureNodes([2, 1, 3], [0, 0.5]);
    expect(values[1]).toBe(2);
    expect([...weights]).toEqual([0, 1, 0]);
    expect(() => quadratureNodes([1, Number.NaN], [1])).toThrow(RangeError);
  });
});

describe("Student's quantile", () => {
  it('agrees with tables', () => {
    for (const [freedom, quantile] of [
      [5, 2.570582],
      [10, 2.228139],
      [29, 2.04523],
      [61, 1.999624],
      [1e9, 1.959964],
    ])
      expect(Math.abs(studentQuantile(freedom) - quantile)).toBeLessThan(3e-4);
  });
});

describe('stochastic Lanczos quadrature', () => {
  it('is exact up to rounding where the probes see the whole matrix', async () => {
    // With a diagonal matrix random signs see the spectrum without noise.
    const n = 9;
    const matrix = new Float64Array(n * n);
    for (let i = 0; i < n; i++) matrix[i * (n + 1)] = (i + 1) / 10;
    const functions = [
      { name: 'log', at: (x: number) => Math.log(x) },
      { name: 'cube', at: (x: number) => x ** 3 },
    ];
    const { traces, steps } = await traceFunctions(matrixOperator(matrix, n, products), functions, {
      seed: 1,
      probes: 8,
    });
    expect(steps).toBeLessThanOrEqual(n);
    for (const [k, { at }] of functions.entries()) {
      let sum = 0;
      for (let i = 0; i < n; i++) sum += at((i + 1) / 10);
      expect(traces[k].value).toBeCloseTo(sum, 9);
      expect(traces[k].standardError).toBeLessThan(1e-9);
    }
  });

  it('handles a multiple of the identity, rank one and zero', async () => {
    const n = 12;
    const entropy = [{ name: 'entropy', at: (x: number) => (x === 0 ? 0 : Math.abs(x) * Math.log(Math.abs(x))) }];
    const identity = new Float64Array(n * n);
    for (let i = 0; i < n; i++) identity[i * (n + 1)] = 1 / n;
    const one = await traceFunctions(matrixOperator(identity, n, products), entropy, { seed: 1, probes: 8 });
    expect(one.traces[0].value).toBeCloseTo(-Math.log(n), 12);
    const ones = new Float64Array(n * n).fill(1 / n);
    const rank = await traceFunctions(matrixOperator(ones, n, products), entropy, { seed: 1, probes: 8 });
    expect(rank.traces[0].value).toBeCloseTo(0, 9);
    const zero = await traceFunctions(matrixOperator(new Float64Array(n * n), n, products), entropy, {
      seed: 1,
      probes: 8,
    });
    expect(zero.traces[0].value).toBe(0);
  });

  it('covers entropies of diffusion and Vendi spectra', { timeout: 60_000 }, async () => {
    const points = pointsOf(400, 12);
    const anisotropic = await anisotropicOperator(points, 2, { products });
    const gaussian = gaussianOperator(points, 2, { products }, new Float64Array(400).fill(1 / Math.sqrt(400)));
    const cosine = linearOperator(points, { products, normalise: true });
    for (const [operator, requests] of [
      [anisotropic, [{}, { power: 2 }, { power: 4 }, { order: 2 }]],
      [gaussian, [{}, { order: 0.5 }, { order: 3 }, { power: 2 }]],
      [cosine, [{}, { order: 2 }, { order: 4 }]],
    ] as const) {
      const spectrum = await spectrumOf(operator);
      const exact = requests.map((request) => {
        const { power = 1, order = 1 } = request as { power?: number; order?: number };
        return renyi(spectrum, power, order);
      });
      const covered = requests.map(() => 0);
      for (let seed = 0; seed < 12; seed++) {
        const { entropies } = await estimateEntropies(operator, requests, { seed, probes: 24 });
        entropies.forEach(({ value, low, high, standardError, quadratureChange }, k) => {
          const rounding = 1e-10;
          if (exact[k] >= low - rounding && exact[k] <= high + rounding) covered[k]++;
          expect(Math.abs(value - exact[k])).toBeLessThan(5 * standardError + 1e-9);
          expect(Math.abs(quadratureChange)).toBeLessThan(0.1 * standardError + 1e-9);
        });
      }
      // Of 12 trials of 95 % 8 or fewer hit once in 5,700 times; bench/slq-coverage.mjs counts a hundred.
      for (const count of covered) expect(count).toBeGreaterThanOrEqual(9);
    }
  });

  it('is within three standard errors at n = 2000', async () => {
    const n = 2000;
    const matrix = await matrixOf(await anisotropicOperator(pointsOf(n, 16), 2, { products }));
    const operator = matrixOperator(matrix, n, products);
    const spectrum = symmetricSpectrum(matrix.slice(), n);
    const requests = [{}, { power: 2 }, { power: 5 }];
    const { entropies } = await estimateEntropies(operator, requests, { seed: 11, probes: 32 });
    entropies.forEach(({ value, standardError, power }) => {
      expect(Math.abs(value - renyi(spectrum, power, 1))).toBeLessThan(3 * standardError);
      expect(standardError).toBeLessThan(8e-3);
    });
  });

  it('knows the first two moments exactly, which takes most of the noise away', async () => {
    const operator = await anisotropicOperator(pointsOf(300, 8), 1.5, { products });
    const functions = [
      { name: 'trace', at: (x: number) => x },
      { name: 'square', at: (x: number) => x * x },
      { name: 'entropy', at: (x: number) => (x > 0 ? x * Math.log(x) : 0) },
    ];
    const known = await traceFunctions(operator, functions, { seed: 2 });
    const { knownTraces, traces } = known;
    expect(traces[0].value).toBeCloseTo(knownTraces.trace, 10);
    expect(traces[1].value).toBeCloseTo(knownTraces.squaredNorm ?? Number.NaN, 10);
    const without = await traceFunctions({ ...operator, squaredNorm: undefined }, functions, { seed: 2 });
    expect(traces[2].standardError).toBeLessThan(0.6 * without.traces[2].standardError);
  });

  it('takes the noise of a known eigenpair away', async () => {
    const operator = await anisotropicOperator(pointsOf(300, 8), 1.5, { products });
    const { degrees } = operator;
    const total = degrees.reduce((sum, degree) => sum + degree, 0);
    const known = { value: 1, vector: degrees.map((degree) => Math.sqrt(degree / total)) };
    const image = new Float64Array(300);
    await operator.multiply(known.vector, 1, image);
    expect(Math.max(...image.map((value, i) => Math.abs(value - known.vector[i])))).toBeLessThan(1e-14);
    const exact = renyi(await spectrumOf(operator), 5, 1);
    const errors = async (options: { known?: typeof known }): Promise<[number, number]> => {
      let squares = 0;
      let claimed = 0;
      for (let seed = 0; seed < 12; seed++) {
        const found = await estimateEntropies(operator, [{ power: 5 }], { seed, probes: 16, ...options });
        squares += (found.entropies[0].value - exact) ** 2 / 12;
        claimed += found.entropies[0].standardError / 12;
        if (options.known) expect(found.largestShare * found.trace).toBeCloseTo(1, 10);
        expect(found.trace).toBeCloseTo(await operator.trace(), 12);
      }
      return [Math.sqrt(squares), claimed];
    };
    const [[without, claimedWithout], [taken, claimed]] = [await errors({}), await errors({ known })];
    expect(taken).toBeLessThan(1.1 * without);
    expect(claimed).toBeLessThan(1.1 * claimedWithout);
    await expect(
      estimateEntropies(operator, [{}], { seed: 1, known: { value: 1, vector: image.slice(1) } }),
    ).rejects.toThrow(RangeError);
  });

  it('gives the same figures whatever the threads and the memory', async () => {
    const points = pointsOf(1030, 5);
    for (const precision of ['f32', 'f64'] as const) {
      const of = async (each: typeof products, maxMemoryBytes?: number) => {
        const operator = await anisotropicOperator(points, 1.5, { products: each, precision });
        const threads = each.threads;
        return estimateEntropies(operator, [{}, { power: 2 }], {
          seed: 4,
          probes: 16,
          steps: 10,
          threads,
          ...(maxMemoryBytes && { maxMemoryBytes }),
        });
      };
      const all = await of(products);
      expect(await of(single)).toEqual(all);
      expect(await of(products, 2 ** 20 * (precision === 'f32' ? 1.2 : 2))).toEqual(all);
    }
  });

  it('agrees between f32 and f64 within the error', async () => {
    const points = pointsOf(700, 12);
    const double = await anisotropicOperator(points, 2, { products });
    const float = await anisotropicOperator(points, 2, { products, precision: 'f32' });
    const options = { seed: 5, probes: 16 };
    const [a, b] = [await estimateEntropies(double, [{}], options), await estimateEntropies(float, [{}], options)];
    expect(Math.abs(a.entropies[0].value - b.entropies[0].value)).toBeLessThan(0.05 * a.entropies[0].standardError);
  });

  it('refuses too little memory, too few probes and values that are not finite', async () => {
    const operator = matrixOperator(new Float64Array(400).fill(1), 20, products);
    const functions = [{ name: 'trace', at: (x: number) => x }];
    await expect(traceFunctions(operator, functions, { seed: 1, maxMemoryBytes: 1000 })).rejects.toThrow(
      /need 1 MiB: raise --max-memory/,
    );
    await expect(traceFunctions(operator, functions, { seed: 1, probes: 4 })).rejects.toThrow(RangeError);
    const bad = matrixOperator(new Float64Array(400).fill(Number.NaN), 20, products);
    await expect(traceFunctions(bad, functions, { seed: 1 })).rejects.toThrow(RangeError);
    await expect(estimateEntropies(operator, [{ order: 0 }], { seed: 1 })).rejects.toThrow(RangeError);
  });
});
