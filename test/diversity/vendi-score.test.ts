import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { dualSource } from '../../src/diversity/feature-source.js';
import { gramSource } from '../../src/diversity/gram-source.js';
import { internalDiversity, sampledInternalDiversity } from '../../src/diversity/internal-diversity.js';
import { rkeGains, rkeScore } from '../../src/diversity/rke.js';
import { checkSimilarity } from '../../src/diversity/similarity-matrix.js';
import { truncatedSpectrum } from '../../src/diversity/truncated-vendi.js';
import { scanRows, stackedRows, unitGram, unitRows } from '../../src/diversity/unit-rows.js';
import { kernelSpectrum, parseOrder, vendiScore, withUnitTrace } from '../../src/diversity/vendi-score.js';
import { checkWeights } from '../../src/diversity/weights.js';
import { arrayMatrix } from '../../src/formats/feature-matrix.js';
import { openProducts } from '../../src/linalg/tiled-products.js';
import { createRandom } from '../../src/random.js';

const products = openProducts({ threads: 2 });
afterAll(() => products.close());

const ORDERS = [0, 0.1, 0.5, 0.9999, 1, 1.0001, 1.5, 2, 5, 40, Number.POSITIVE_INFINITY];

function normalRows(n: number, d: number, seed: number): Float64Array {
  const random = createRandom(seed);
  return Float64Array.from({ length: n * d }, () => random.normal());
}

const shape = fc.record({
  n: fc.integer({ min: 1, max: 18 }),
  d: fc.integer({ min: 1, max: 12 }),
  seed: fc.integer({ min: 0, max: 1 << 30 }),
  repeats: fc.integer({ min: 1, max: 3 }),
});

/** Rows of which some are repeated, so that spectra of low rank occur. */
function sample({ n, d, seed, repeats }: { n: number; d: number; seed: number; repeats: number }): {
  data: Float64Array;
  rows: number;
} {
  const one = normalRows(n, d, seed);
  const data = new Float64Array(repeats * one.length);
  for (let r = 0; r < repeats; r++) data.set(one, r * one.length);
  return { data, rows: n * repeats };
}

const close = (a: number, b: number, tolerance = 1e-9): void =>
  expect(Math.abs(a - b)).toBeLessThanOrEqual(tolerance * b);

describe('Vendi score', () => {
  it('is the same from the kernel, the dual and equal weights', async () => {
    await fc.assert(
      fc.asyncProperty(shape, async (drawn) => {
        const { data, rows: n } = sample(drawn);
        const rows = unitRows(arrayMatrix('X', data, n, drawn.d));
        const k = await unitGram(rows);
        const weights = new Float64Array(n).fill(1 / n);
        const spectra = await Promise.all(
          [
            gramSource(k, n),
            gramSource(k, n, { weights }),
            dualSource(rows, { products }),
            dualSource(rows, { products, weights }),
          ].map(async (source) => withUnitTrace(kernelSpectrum(await source.eigenvalues())).eigenvalues),
        );
        for (const q of ORDERS) {
          const [first, ...others] = spectra.map((spectrum) => vendiScore(spectrum, q));
          for (const other of others) close(other, first);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('does not increase with the order, and lies between 1 and the rank', async () => {
    await fc.assert(
      fc.asyncProperty(shape, async (drawn) => {
        const { data, rows: n } = sample(drawn);
        const k = await unitGram(unitRows(arrayMatrix('X', data, n, drawn.d)));
        const { eigenvalues } = withUnitTrace(kernelSpectrum(await gramSource(k, n).eigenvalues()));
        expect(eigenvalues.length).toBeLessThanOrEqual(Math.min(drawn.n, drawn.d));
        let last = eigenvalues.length * (1 + 1e-12);
        for (const q of ORDERS) {
          const score = vendiScore(eigenvalues, q);
          expect(score).toBeLessThanOrEqual(last * (1 + 1e-12));
          expect(score).toBeGreaterThanOrEqual(1 - 1e-12);
          last = score;
        }
      }),
      { numRuns: 80 },
    );
  });

  it('goes through order 1 without a step', () => {
    const spectrum = Float64Array.of(0.7, 0.2, 0.1);
    for (const step of [1e-4, 1e-7, 1e-10, 1e-13]) {
      close(vendiScore(spectrum, 1 + step), vendiScore(spectrum, 1), 2 * step + 1e-14);
      close(vendiScore(spectrum, 1 - step), vendiScore(spectrum, 1), 2 * step + 1e-14);
    }
    close(vendiScore(spectrum, 1.000999), vendiScore(spectrum, 1.001001), 1e-6);
  });

  it('keeps high orders in range', () => {
    const spectrum = new Float64Array(1000).fill(1e-3);
    for (const q of [200, 1e6]) close(vendiScore(spectrum, q), 1000, 1e-9);
  });

  it('counts a share of classes by closed forms', () => {
    // Blocks of equal items have eigenvalues that are their shares.
    const shares = Float64Array.of(0.5, 0.25, 0.25);
    close(vendiScore(shares, 1), 2 ** 1.5);
    close(vendiScore(shares, 2), 1 / 0.375);
    expect(vendiScore(shares, Number.POSITIVE_INFINITY)).toBe(2);
    expect(vendiScore(shares, 0)).toBe(3);
    expect(vendiScore(Float64Array.of(1), 0.5)).toBe(1);
  });

  it('has the cut of a rank', () => {
    const { eigenvalues, cut, dropped, smallest, negativeMass } = kernelSpectrum(
      Float64Array.of(0.4, 1e-16, -1e-12, 0.6, 0.5e-14),
    );
    expect([...eigenvalues]).toEqual([0.6, 0.4]);
    expect([cut, dropped, smallest, negativeMass]).toEqual([0.6 * 1e-14, 3, -1e-12, 1e-12]);
  });

  it('refuses a kernel that is not positive semidefinite', () => {
    const values = Float64Array.of(0.7, 0.4, -0.1);
    expect(() => kernelSpectrum(values, { origin: '--kernel edit' })).toThrow(
      /^--kernel edit is not positive semidefinite: the smallest eigenvalue of K\/n is -0\.100000 \(1\.4e-1 of the largest\)/,
    );
    const dropped = kernelSpectrum(values, { negative: 'drop' });
    expect([...withUnitTrace(dropped).eigenvalues].map((value) => Number(value.toFixed(12)))).toEqual([
      Number((0.7 / 1.1).toFixed(12)),
      Number((0.4 / 1.1).toFixed(12)),
    ]);
  });

  it('reads orders', () => {
    expect(['0', '1', ' 2.5', 'inf', 'Infinity'].map(parseOrder)).toEqual([0, 1, 2.5, Infinity, Infinity]);
    for (const text of ['-1', 'nan', '', 'two']) expect(() => parseOrder(text)).toThrow(/no order/);
  });
});

describe('truncated Vendi score', () => {
  it('shares what is left among the kept', () => {
    expect([...truncatedSpectrum(Float64Array.of(0.4, 0.3, 0.2, 0.1), 2, 4)]).toEqual([0.55, 0.45]);
    close(vendiScore(truncatedSpectrum(new Float64Array(50).fill(0.02), 10, 50), 1), 10);
  });

  it('is the score itself when nothing is left out', () => {
    const spectrum = Float64Array.of(0.6, 0.3, 0.1);
    for (const t of [3, 4, 100]) close(vendiScore(truncatedSpectrum(spectrum, t, 3), 1), vendiScore(spectrum, 1));
  });

  it('refuses what is no count', () => {
    for (const t of [0, -1, 1.5]) expect(() => truncatedSpectrum(Float64Array.of(1), t, 1)).toThrow(RangeError);
  });
});

describe('RKE and IntDiv', () => {
  it('give order 2 and the mean similarity without eigenvalues', async () => {
    const n = 23;
    const d = 7;
    const rows = unitRows(arrayMatrix('X', normalRows(n, d, 3), n, d));
    const k = await unitGram(rows);
    const weights = Float64Array.from({ length: n }, (_, i) => (2 * (i + 1)) / (n * (n + 1)));
    for (const source of [gramSource(k, n), dualSource(rows, { products })]) {
      close(rkeScore(await source.squaredNorm()).score, vendiScore(await source.eigenvalues(), 2));
      close(1 - ((await source.meanPower(1)) ?? 0), internalDiversity(k, n, 1));
      close(1 - ((await source.meanPower(2)) ?? 0), internalDiversity(k, n, 2));
    }
    for (const source of [gramSource(k, n, { weights }), dualSource(rows, { products, weights })]) {
      close(1 - ((await source.meanPower(1)) ?? 0), internalDiversity(k, n, 1, weights));
      close(1 - ((await source.meanPower(2)) ?? 0), internalDiversity(k, n, 2, weights));
    }
    expect(() => internalDiversity(k, n, 0.5)).toThrow(/IntDiv of order 0.5: the similarity of items \d+ and \d+ is -/);
  });

  it('gives what every item adds, for all at once', async () => {
    const n = 15;
    const d = 4;
    const rows = unitRows(arrayMatrix('X', normalRows(n, d, 5), n, d));
    const k = await unitGram(rows);
    for (const source of [gramSource(k, n), dualSource(rows, { products })]) {
      const norm = await source.squaredNorm();
      const gains = rkeGains(n, norm, await source.rowSquares());
      for (const item of [0, 7, 14]) {
        const without = rkeScore(
          (await source.eigenvaluesWithout(item)).reduce((sum, value) => sum + value * value, 0),
        ).score;
        expect(gains[item]).toBeCloseTo(1 / norm - without, 10);
      }
    }
  });

  it('is met by drawn pairs within their error', async () => {
    const n = 200;
    const d = 5;
    const k = await unitGram(unitRows(arrayMatrix('X', normalRows(n, d, 9), n, d)));
    const exact = internalDiversity(k, n, 3);
    const drawn = sampledInternalDiversity((i, j) => k[i * n + j], n, 3, { pairs: 20_000, seed: 1 });
    expect(Math.abs(drawn.value - exact)).toBeLessThan(4 * drawn.standardError);
    expect(drawn.standardError).toBeLessThan(0.01);
  });
});

describe('sources', () => {
  const n = 40;
  const d = 6;
  const rows = unitRows(arrayMatrix('X', normalRows(n, d, 11), n, d));
  const weights = Float64Array.from({ length: n }, (_, i) => (2 * (i + 1)) / (n * (n + 1)));

  it('agree on subsets, on leaving one out and on modes', async () => {
    const k = await unitGram(rows);
    for (const options of [{}, { weights }]) {
      const gram = gramSource(k, n, options);
      const dual = dualSource(rows, { products, ...options });
      const sorted = async (values: Promise<Float64Array>): Promise<number[]> =>
        [...withUnitTrace(kernelSpectrum(await values)).eigenvalues].map((value) => Number(value.toFixed(12)));
      for (const subset of [
        Int32Array.of(3),
        Int32Array.of(1, 2, 30),
        Int32Array.from({ length: 25 }, (_, i) => i + 9),
      ]) {
        expect(await sorted(dual.eigenvalues(subset))).toEqual(await sorted(gram.eigenvalues(subset)));
      }
      expect(await sorted(dual.eigenvaluesWithout(4))).toEqual(await sorted(gram.eigenvaluesWithout(4)));
      const [a, b] = [await gram.leading(3), await dual.leading(3)];
      for (let m = 0; m < 3; m++) expect(b?.eigenvalues[m]).toBeCloseTo(a?.eigenvalues[m] ?? 0, 10);
      if (!options.weights) {
        // Scores of the kernel have length 1, those of the features length sqrt(n lambda).
        for (let m = 0; m < 3; m++) {
          const scale = Math.sqrt(n * (b?.eigenvalues[m] ?? 0));
          for (let i = 0; i < n; i++)
            expect((b?.scores[m * n + i] ?? 0) / scale).toBeCloseTo(a?.scores[m * n + i] ?? 0, 8);
        }
      }
    }
  });

  it('unite parts to the moment of their rows', async () => {
    for (const partBytes of [1 << 20, 8 * 8 * d * d]) {
      const dual = dualSource(rows, { products, partBytes });
      const parts = await dual.parts([25, 15], 7);
      expect(parts.sizes.reduce((sum, size) => sum + size, 0)).toBe(n);
      expect(parts.strata.length).toBe(partBytes === 1 << 20 ? n : 8);
      const all = await parts.eigenvalues(Int32Array.from(parts.sizes, (_, part) => part));
      const whole = (await dual.eigenvalues()).slice().sort();
      for (let i = 0; i < d; i++) expect(all[i]).toBeCloseTo(whole[i], 13);
      const first = Int32Array.from(parts.sizes, (_, part) => part).filter((part) => parts.strata[part] === 0);
      const stratum = await parts.eigenvalues(first);
      const direct = (await dual.eigenvalues(Int32Array.from({ length: 25 }, (_, i) => i))).slice().sort();
      for (let i = 0; i < d; i++) expect(stratum[i]).toBeCloseTo(direct[i], 12);
    }
  });

  it('take single precision to a millionth', async () => {
    const single = dualSource(rows, { products, precision: 'f32' });
    const double = dualSource(rows, { products });
    for (const q of [1, 2, Number.POSITIVE_INFINITY])
      close(vendiScore(await single.eigenvalues(), q), vendiScore(await double.eigenvalues(), q), 1e-6);
  });
});

describe('what is refused', () => {
  it('names where a similarity matrix is not symmetric, and its diagonal', () => {
    const k = Float64Array.of(1, 0.5, 0.2, 0.5, 1, 0.1, 0.3, 0.1, 1);
    expect(() => checkSimilarity(k, 3, { name: 'K.npy' })).toThrow(
      'K.npy: is not symmetric: the largest |K_ij - K_ji| is 0.100000, at i=2, j=0 (0.3 and 0.2)',
    );
    expect(() => checkSimilarity(Float64Array.of(2, 1, 1, 2), 2, { name: 'K.npy' })).toThrow(
      'K.npy: the diagonal is not 1: K_ii = 2 at i=0; --normalize',
    );
    const normalized = Float64Array.of(4, 1, 1, 1);
    checkSimilarity(normalized, 2, { name: 'K', normalize: true });
    expect([...normalized]).toEqual([1, 0.5, 0.5, 1]);
    expect(() => checkSimilarity(Float64Array.of(0, 0, 0, 1), 2, { name: 'K', normalize: true })).toThrow(/K_ii = 0/);
    expect(() => checkSimilarity(Float64Array.of(1, Number.NaN, 0, 1), 2, { name: 'K' })).toThrow(
      /row 0, column 1 is NaN/,
    );
    expect(() => checkSimilarity(Float64Array.of(1, 0), 2, { name: 'K' })).toThrow(/no 2 x 2 matrix/);
  });

  it('names what is wrong with weights', () => {
    expect(() => checkWeights(Float64Array.of(0.5, 0.4), 2, 'w.txt')).toThrow('w.txt: the weights sum to 0.9');
    expect(() => checkWeights(Float64Array.of(1.5, -0.5), 2, 'w.txt')).toThrow('w.txt: the weight of row 1 is -0.5');
    expect(() => checkWeights(Float64Array.of(1), 2, 'w.txt')).toThrow('w.txt: 1 weights for 2 items');
    checkWeights(Float64Array.of(1, 0), 2, 'w.txt');
  });

  it('names the first zero row and counts NaN rows and duplicates', async () => {
    const zero = arrayMatrix('x.npy', Float64Array.of(1, 2, 0, 0, 1, 2), 3, 2);
    await expect(scanRows(zero, true)).rejects.toThrow('x.npy: row 1 is zero');
    expect(await scanRows(zero, false)).toEqual({ duplicates: 1 });
    const bad = arrayMatrix('x.npy', Float64Array.of(1, Number.NaN, 0, 1, 1, Number.NaN), 3, 2);
    await expect(scanRows(bad, true)).rejects.toThrow(
      /2 of 3 rows hold NaN or an infinite value, the first is row 0, column 1/,
    );
    // 0 and -0 are equal.
    expect(await scanRows(arrayMatrix('x', Float64Array.of(0, 1, -0, 1), 2, 2), false)).toEqual({ duplicates: 1 });
  });

  it('stacks sets with the same columns only', () => {
    const a = arrayMatrix('a', Float64Array.of(1, 2, 3, 4), 2, 2);
    const b = arrayMatrix('b', Float64Array.of(5, 6), 1, 2);
    const both = stackedRows([a, b]);
    const read = new Float64Array(4);
    both.readRows(1, 2, read);
    expect([...read]).toEqual([3, 4, 5, 6]);
    expect(() => stackedRows([a, arrayMatrix('c', Float64Array.of(1), 1, 1)])).toThrow(/c: has 1 columns, a has 2/);
  });
});
