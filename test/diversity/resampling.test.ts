import { afterAll, describe, expect, it } from 'vitest';
import { chooseBandwidth } from '../../src/diversity/bandwidth.js';
import { dualSource, featureSource } from '../../src/diversity/feature-source.js';
import { gaussianGram } from '../../src/diversity/gaussian-kernel.js';
import { gramSource } from '../../src/diversity/gram-source.js';
import { planKernel } from '../../src/diversity/kernel-plan.js';
import { leaveOneOut } from '../../src/diversity/leave-one-out.js';
import { scoresOf, spectralMeasures } from '../../src/diversity/measures.js';
import { quadratureScores } from '../../src/diversity/quadrature-source.js';
import {
  curveSizes,
  halfSampleErrors,
  partsOf,
  permutationTest,
  subsamplingCurve,
} from '../../src/diversity/resampling.js';
import { unitGram, unitRows } from '../../src/diversity/unit-rows.js';
import { arrayMatrix } from '../../src/formats/feature-matrix.js';
import { matrixOperator } from '../../src/linalg/kernel-operator.js';
import { drawLandmarks, nystromMap } from '../../src/linalg/nystrom.js';
import { drawFrequencies, fourierMap } from '../../src/linalg/random-features.js';
import { openProducts } from '../../src/linalg/tiled-products.js';
import { createRandom } from '../../src/random.js';

const products = openProducts({ threads: 1 });
afterAll(() => products.close());

const MEASURES = spectralMeasures([1, 2, Number.POSITIVE_INFINITY], []);

/** Rows about four centres of unequal weight, in six dimensions. */
function clustered(n: number, seed: number): Float64Array {
  const random = createRandom(seed);
  const x = new Float64Array(n * 6);
  for (let i = 0; i < n; i++) {
    const draw = random.uniform();
    const kind = draw < 0.5 ? 0 : draw < 0.75 ? 1 : draw < 0.9 ? 2 : 3;
    for (let k = 0; k < 6; k++) x[i * 6 + k] = (k === kind ? 3 : 0) + 0.5 * random.normal();
  }
  return x;
}

const dualOf = (n: number, seed: number) =>
  dualSource(unitRows(arrayMatrix('X', clustered(n, seed), n, 6)), { products });

describe('half-samples', () => {
  it('have the spread of fresh samples', async () => {
    const fresh: Float64Array[] = [];
    for (let seed = 100; seed < 220; seed++)
      fresh.push(scoresOf(await dualOf(400, seed).eigenvalues(), 400, MEASURES, {}));
    const source = dualOf(400, 1);
    const parts = await source.parts([400], 3);
    const errors = await halfSampleErrors(parts, partsOf(parts, 0), MEASURES, { seed: 3, resamples: 400, scores: {} });
    MEASURES.forEach((_, k) => {
      const mean = fresh.reduce((sum, row) => sum + row[k], 0) / fresh.length;
      const spread = Math.sqrt(fresh.reduce((sum, row) => sum + (row[k] - mean) ** 2, 0) / (fresh.length - 1));
      expect((errors?.[k] ?? 0) / spread).toBeGreaterThan(0.75);
      expect((errors?.[k] ?? 0) / spread).toBeLessThan(1.33);
    });
  });

  it('need four parts', async () => {
    const source = dualOf(3, 1);
    const parts = await source.parts([3], 0);
    const options = { seed: 0, resamples: 10, scores: {} };
    expect(await halfSampleErrors(parts, partsOf(parts, 0), MEASURES, options)).toBeUndefined();
  });
});

describe('permutations', () => {
  const testOf = async (left: Float64Array, right: Float64Array, sizes: [number, number]) => {
    const both = new Float64Array(left.length + right.length);
    both.set(left);
    both.set(right, left.length);
    const n = sizes[0] + sizes[1];
    const source = dualSource(unitRows(arrayMatrix('X', both, n, 6)), { products });
    const parts = await source.parts(sizes, 1);
    const scores: Float64Array[] = [];
    for (const set of [0, 1])
      scores.push(scoresOf(await parts.eigenvalues(partsOf(parts, set)), sizes[set], MEASURES, {}));
    const observed = scores[0].map((value, k) => value - scores[1][k]);
    return permutationTest(parts, observed, MEASURES, { seed: 2, permutations: 200, scores: {} });
  };

  it('see no difference between samples of one kind, of equal size or not', async () => {
    for (const sizes of [
      [150, 150],
      [220, 80],
    ] as [number, number][]) {
      const found = await testOf(clustered(sizes[0], 11), clustered(sizes[1], 12), sizes);
      for (const p of found?.p ?? [0]) expect(p).toBeGreaterThan(0.02);
    }
  });

  it('see a set that has lost its modes', async () => {
    const narrow = clustered(600, 5).filter((_, at, all) => all[Math.floor(at / 6) * 6] > 2);
    const n = narrow.length / 6;
    const found = await testOf(clustered(150, 11), narrow, [150, n]);
    for (const p of found?.p ?? [1]) expect(p).toBeLessThan(0.01);
  });
});

describe('curves and single items', () => {
  it('end at the score of all items', async () => {
    const source = dualOf(200, 4);
    const sizes = curveSizes(200);
    expect([sizes[0], sizes[sizes.length - 1]]).toEqual([8, 200]);
    const curve = await subsamplingCurve(source, MEASURES, { sizes, subsamples: 3, seed: 1, scores: {} });
    const whole = scoresOf(await source.eigenvalues(), 200, MEASURES, {});
    expect([...curve[curve.length - 1].mean]).toEqual([...whole]);
    expect(Number.isNaN(curve[curve.length - 1].deviation[0])).toBe(true);
    expect(curve[0].mean[0]).toBeLessThan(whole[0]);
    expect(curveSizes(1)).toEqual([1]);
  });

  it('leave out one item at a time', async () => {
    const n = 30;
    const rows = unitRows(arrayMatrix('X', clustered(n, 2), n, 6));
    const source = gramSource(await unitGram(rows), n);
    const whole = scoresOf(await source.eigenvalues(), n, MEASURES, {});
    const found = await leaveOneOut(source, whole, MEASURES, { count: 5, seed: 1, scores: {} });
    expect(found.items.length).toBe(5);
    const [first] = found.items;
    const others = Int32Array.from({ length: n }, (_, i) => i).filter((i) => i !== first);
    const left = scoresOf(await source.eigenvalues(others), n - 1, MEASURES, {});
    MEASURES.forEach((_, k) => {
      expect(found.gains[k]).toBeCloseTo(whole[k] - left[k], 12);
    });
  });
});

describe('approximate paths', () => {
  const n = 120;
  const x = clustered(n, 8);
  const matrix = arrayMatrix('X', x, n, 6);

  it('reach the kernel with all landmarks, and near it with many frequencies and probes', async () => {
    const sigma = 2;
    const gram = await gaussianGram(x, n, 6, sigma, products);
    const exact = scoresOf(await gramSource(gram, n).eigenvalues(), n, MEASURES, {});
    const landmarks = await nystromMap(matrix, { kind: 'gaussian', sigma }, drawLandmarks(n, n, 0), products);
    const spanned = featureSource(matrix, landmarks, { path: 'nystrom', products });
    const whole = scoresOf(await spanned.eigenvalues(), n, MEASURES, {});
    MEASURES.forEach((_, k) => {
      expect(whole[k] / exact[k]).toBeCloseTo(1, 6);
    });
    const map = fourierMap(matrix, drawFrequencies(6, 700, sigma, 0), 700, { products });
    const random = featureSource(matrix, map, { path: 'fkea', products });
    const near = scoresOf(await random.eigenvalues(), n, MEASURES, {});
    MEASURES.forEach((_, k) => {
      expect(Math.abs(near[k] / exact[k] - 1)).toBeLessThan(0.06);
    });
    const operator = matrixOperator(gram, n, products, new Float64Array(n).fill(1 / Math.sqrt(n)));
    const orders = [0.5, 1, 1.0001, 2, 5, Number.POSITIVE_INFINITY];
    const settings = { probes: 64, seed: 1, threads: 1, maxMemoryBytes: 2 ** 28 };
    const { scores, standardErrors } = await quadratureScores(operator, orders, settings);
    const wanted = scoresOf(await gramSource(gram, n).eigenvalues(), n, spectralMeasures(orders, []), {});
    orders.forEach((q, k) => {
      const slack = q === Number.POSITIVE_INFINITY ? 1e-6 * wanted[k] : 4 * standardErrors[k] + 1e-9 * wanted[k];
      expect(Math.abs(scores[k] - wanted[k])).toBeLessThan(slack);
    });
  });

  it('give parts and subsets of features that add up to the whole', async () => {
    for (const precision of ['f64', 'f32'] as const) {
      const map = fourierMap(matrix, drawFrequencies(6, 20, 2, 1), 20, { products, precision });
      const landmarks = await nystromMap(matrix, { kind: 'gaussian', sigma: 2 }, drawLandmarks(n, 30, 0), products);
      for (const source of [
        featureSource(matrix, map, { path: 'fkea', products, precision }),
        featureSource(matrix, landmarks, { path: 'nystrom', products, precision }),
      ]) {
        const digits = precision === 'f64' ? 12 : 6;
        const whole = (await source.eigenvalues()).slice().sort();
        const parts = await source.parts([n], 4);
        const united = await parts.eigenvalues(Int32Array.from(parts.sizes, (_, part) => part));
        const subset = (await source.eigenvalues(Int32Array.from({ length: n }, (_, i) => i))).slice().sort();
        whole.forEach((value, i) => {
          expect(united[i]).toBeCloseTo(value, digits);
          expect(subset[i]).toBeCloseTo(value, digits);
        });
        const few = Int32Array.of(3, 50, 51, 90);
        const ofFew = (await source.eigenvalues(few)).slice().sort();
        const direct = await source.parts([n], 4).then(() => source.eigenvalues(Int32Array.from([...few, ...few])));
        expect(ofFew[3]).toBeCloseTo(Math.max(...direct), digits);
      }
    }
  });

  it('choose a bandwidth from the data', () => {
    const chosen = chooseBandwidth(matrix, 'median', 0);
    expect(chosen.sigma).toBe(chosen.medianDistance);
    expect(chosen.warning).toBeUndefined();
    const same = chooseBandwidth(arrayMatrix('X', Float64Array.of(1, 1, 1, 1), 2, 2), 'median', 0);
    expect([same.sigma, same.meanSimilarity, same.warning]).toEqual([1, 1, undefined]);
  });

  it('are chosen by size, and refused where they do not fit', () => {
    const request = {
      frequencies: 1024,
      landmarks: 512,
      maxMemoryBytes: 2 ** 31,
      columns: 384,
      pointBytes: 0,
      method: 'auto',
    } as const;
    const method = (kernel: 'cosine' | 'rbf' | 'ngram' | 'match', items: number, columns = 384) =>
      planKernel({ ...request, kernel, items, columns }).method;
    expect(method('cosine', 1_000_000)).toBe('dual');
    expect(method('cosine', 100)).toBe('exact');
    expect(method('cosine', 100_000, 200_000)).toBe('slq');
    expect([method('rbf', 2000), method('rbf', 100_000)]).toEqual(['exact', 'fkea']);
    expect([method('ngram', 2000, 0), method('ngram', 50_000, 0)]).toEqual(['exact', 'slq']);
    expect(method('match', 10_000_000, 0)).toBe('counts');
    const held = { ...request, kernel: 'rbf', method: 'slq', items: 1_000_000, pointBytes: 4 * 384e6 } as const;
    expect(() => planKernel(held)).toThrow(/the 1000000 rows .* take 2930 MiB, .* use --method fkea or nystrom/);
    expect(() => planKernel({ ...request, kernel: 'edit', items: 100_000, columns: 0 })).toThrow(
      /the matrix of 100000 x 100000 .* more than --max-memory allows .* fewer items with --limit/,
    );
  });
});
