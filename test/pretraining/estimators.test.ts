import { describe, expect, it } from 'vitest';
import { arrayMatrix } from '../../src/formats/feature-matrix.js';
import { createPairNetwork, fitPairs, pairLoss } from '../../src/pretraining/contrastive.js';
import {
  fitFactorModel,
  leadingSpectrum,
  loadingsProduct,
  posteriorMeans,
} from '../../src/pretraining/factor-model.js';
import {
  assignComponents,
  fitMixture,
  majorityHead,
  runBatchEm,
  runEm,
} from '../../src/pretraining/gaussian-mixture.js';
import { leastSquares, linearPredictions } from '../../src/pretraining/least-squares.js';
import { secondMomentOf, streamedSpectrum } from '../../src/pretraining/moments.js';
import { largestPrincipalAngle } from '../../src/pretraining/principal-angles.js';
import { bootstrapSeeds, crossover, logSlope, nonNegativePair } from '../../src/pretraining/rates.js';
import { createRandom } from '../../src/random.js';

const draw = (seed: number, size: number): Float64Array => {
  const random = createRandom(seed);
  return Float64Array.from({ length: size }, () => random.normal());
};

describe('factor model', () => {
  const [m, d, r] = [4000, 6, 2];
  const loadings = draw(1, d * r);
  const x = draw(2, m * d);
  const z = draw(3, m * r);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < d; j++) {
      for (let k = 0; k < r; k++) x[i * d + j] += 2 * loadings[j * r + k] * z[i * r + k];
    }
  }
  const moment = secondMomentOf(x, m, d);

  it('finds the loadings up to rotation, and the noise', () => {
    const known = fitFactorModel(leadingSpectrum(moment, d, r), r, 1);
    const estimated = fitFactorModel(leadingSpectrum(moment, d, r), r, 'estimate');
    expect(estimated.noiseVariance).toBeCloseTo(1, 1);
    expect(estimated.logLikelihoodPerRow).toBeGreaterThanOrEqual(known.logLikelihoodPerRow);
    expect(known.effectiveFactors).toBe(2);
    const product = loadingsProduct(known);
    for (let i = 0; i < d; i++) {
      for (let j = 0; j < d; j++) {
        let truth = 0;
        for (let k = 0; k < r; k++) truth += 4 * loadings[i * r + k] * loadings[j * r + k];
        expect(Math.abs(product[i * d + j] - truth)).toBeLessThan(0.62);
      }
    }
    expect(largestPrincipalAngle(known.loadings, loadings, d, r)).toBeLessThan(0.1);
  });

  it('has posterior means that solve (noise I + B^T B) z = B^T x', () => {
    const model = fitFactorModel(leadingSpectrum(moment, d, r), r, 'estimate');
    const row = x.slice(0, d);
    const mean = posteriorMeans(model, row, 1);
    for (let k = 0; k < r; k++) {
      let left = model.noiseVariance * mean[k];
      let right = 0;
      for (let j = 0; j < d; j++) {
        right += model.loadings[j * r + k] * row[j];
        for (let l = 0; l < r; l++) left += model.loadings[j * r + k] * model.loadings[j * r + l] * mean[l];
      }
      expect(left).toBeCloseTo(right, 8);
    }
  });

  it('gives no factor to eigenvalues below the noise, and refuses as many factors as features', () => {
    const few = fitFactorModel(leadingSpectrum(Float64Array.of(3, 0, 0, 0, 0.9, 0, 0, 0, 0.5), 3, 2), 2, 1);
    expect(few.effectiveFactors).toBe(1);
    expect([...posteriorMeans(few, [1, 1, 1], 1)][1]).toBe(0);
    expect(() => fitFactorModel(leadingSpectrum(moment, d, d), d, 1)).toThrow(/below the 6 features/);
  });

  it('is the same from streamed rows', async () => {
    const { spectrum, path } = await streamedSpectrum(arrayMatrix('x', x, m, d), r, null, 0, (own, n) =>
      leadingSpectrum(own, n, r),
    );
    expect(path).toBe('exact');
    const direct = leadingSpectrum(moment, d, r);
    expect(spectrum.trace).toBeCloseTo(direct.trace, 9);
    spectrum.values.forEach((value, i) => {
      expect(value).toBeCloseTo(direct.values[i], 9);
    });
  });

  it('comes from random subspaces for very wide rows', async () => {
    const [rows, wide, factors] = [60, 5200, 2];
    const wideX = draw(5, rows * wide);
    const directions = draw(6, factors * wide);
    const scores = draw(7, rows * factors);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < wide; j++) {
        wideX[i * wide + j] += scores[i * 2] * directions[j] + 0.5 * scores[i * 2 + 1] * directions[wide + j];
      }
    }
    const { spectrum, path } = await streamedSpectrum(arrayMatrix('w', wideX, rows, wide), factors, null, 0, (own, n) =>
      leadingSpectrum(own, n, factors),
    );
    expect(path).toBe('randomised');
    // The rows' own products have the same non-zero eigenvalues.
    const rowMoment = new Float64Array(rows * rows);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < rows; j++) {
        for (let k = 0; k < wide; k++) rowMoment[i * rows + j] += (wideX[i * wide + k] * wideX[j * wide + k]) / rows;
      }
    }
    const direct = leadingSpectrum(rowMoment, rows, factors);
    spectrum.values.forEach((value, i) => {
      expect(value / direct.values[i]).toBeCloseTo(1, 6);
    });
  });
});

describe('least squares', () => {
  it('has the least norm among solutions, and keeps a bound', () => {
    const [n, d] = [4, 7];
    const x = draw(1, n * d);
    const y = draw(2, n);
    const w = leastSquares(x, y, n, d);
    linearPredictions(x, w, n).forEach((value, r) => {
      expect(value).toBeCloseTo(y[r], 9);
    });
    const norm = Math.hypot(...w);
    const short = leastSquares(x, y, n, d, { normBound: norm / 2 });
    expect(Math.hypot(...short)).toBeCloseTo(norm / 2, 9);
    expect(leastSquares(x, y, n, d, { normBound: 2 * norm })).toEqual(w);
    expect([...linearPredictions(x, w, n, 0.1)].every((value) => Math.abs(value) <= 0.1)).toBe(true);
  });
});

describe('mixture', () => {
  const [m, d, K] = [300, 2, 3];
  const centres = [0, 0, 8, 0, 0, 8];
  const x = draw(4, m * d);
  for (let r = 0; r < m; r++) for (let j = 0; j < d; j++) x[r * d + j] += centres[(r % K) * d + j];

  it('finds the components, with a likelihood that never falls', () => {
    const fit = fitMixture(x, m, d, K, { seed: 1 });
    expect(fit.startLogLikelihoods).toHaveLength(20);
    for (let i = 1; i < fit.logLikelihoods.length; i++) {
      expect(fit.logLikelihoods[i]).toBeGreaterThanOrEqual(fit.logLikelihoods[i - 1] - 1e-9);
    }
    const assigned = assignComponents(fit, x, m);
    expect(new Set(assigned.filter((_, r) => r % K === 0)).size).toBe(1);
    expect(new Set(assigned).size).toBe(K);
    expect(fitMixture(x, m, d, K, { seed: 1 }).means).toEqual(fit.means);
  });

  it('by batches comes near the full fit', () => {
    const full = fitMixture(x, m, d, K, { seed: 1 });
    const start = { means: Float64Array.of(1, 1, 6, 1, 1, 6), components: K, dimension: d };
    const fit = runBatchEm(x, m, start, { batch: 50, epochs: 10, seed: 2 });
    expect(fit.logLikelihoods[10] / m).toBeCloseTo(full.logLikelihoods[full.logLikelihoods.length - 1] / m, 1);
  });

  it('puts an empty component on the row that is explained worst, and says so', () => {
    const far = x.slice();
    far[2 * 7] = 100;
    const means = Float64Array.of(0, 0, 8, 0, 1e6, 1e6);
    const fit = runEm(far, m, { means, components: K, dimension: d }, { iterations: 3, tolerance: 0 });
    expect(fit.reseeds[0]).toEqual({ iteration: 0, component: 2, row: 7 });
    expect(fit.logLikelihoods).toHaveLength(4);
  });

  it('refuses fewer rows than components', () => {
    expect(() => fitMixture(x, 2, d, K)).toThrow(/2 unlabelled rows for 3 components/);
  });

  it('has a head of majorities: ties to the smallest, no rows to the majority of all', () => {
    const head = majorityHead(Int32Array.of(0, 0, 1, 1, 1), [1, 0, 2, 2, 0], 3, 3);
    expect([...head]).toEqual([0, 2, 0]);
  });
});

describe('pairs', () => {
  it('have the gradient of their loss', () => {
    const network = createPairNetwork(3, 4, 2, 1);
    const [count, x, x2, t] = [5, draw(1, 15), draw(2, 15), [1, 0, 1, 1, 0]] as const;
    const { gradient } = pairLoss(network, x, x2, t, count);
    gradient.forEach((value, i) => {
      const moved = (by: number): number => {
        const theta = network.theta.slice();
        theta[i] += by;
        return pairLoss({ ...network, theta }, x, x2, t, count).loss;
      };
      expect((moved(1e-5) - moved(-1e-5)) / 2e-5).toBeCloseTo(value, 7);
    });
  });

  it('are learnt', () => {
    const m = 600;
    const z = draw(3, m);
    const [x, x2] = [draw(4, m * 2), draw(5, m * 2)];
    const t = Float64Array.from({ length: m }, (_, r) => r % 2);
    for (let r = 0; r < m; r++) {
      x[2 * r] += 3 * z[r];
      x2[2 * r] += 3 * (t[r] === 1 ? z[r] : z[(r + 17) % m]);
    }
    const network = fitPairs(x, x2, t, m, 2, 2, { hidden: 8, epochs: 120, seed: 1 });
    expect(pairLoss(network, x, x2, t, m).loss).toBeLessThan(0.62);
  });
});

describe('rates', () => {
  it('recover a slope, two terms and a crossing', () => {
    const n = [10, 100, 1000];
    expect(logSlope(n, [1, 0.1, 0.01])).toBeCloseTo(-1, 12);
    expect(logSlope(n, [1, 0, -1])).toBeNaN();
    const u = [1, 0.1, 1, 0.1];
    const v = [1, 1, 0.1, 0.1];
    const y = u.map((value, i) => 3 * value + 2 * v[i]);
    const { a, b } = nonNegativePair(u, v, y, [1, 1, 1, 1]);
    expect([a, b]).toEqual([expect.closeTo(3, 9), expect.closeTo(2, 9)]);
    expect(
      nonNegativePair(
        u,
        v,
        u.map((value, i) => 3 * value - v[i]),
        [1, 1, 1, 1],
      ).b,
    ).toBe(0);
    // 1/10 against 10/n^1: they meet at n = 100.
    expect(crossover(n, [0.1, 0.1, 0.1], [1, 0.1 + 1e-12, 0.01])).toBeCloseTo(100, 6);
    expect(crossover(n, [1, 1, 1], [2, 2, 2])).toBeNaN();
    expect(crossover(n, [1, 1, 1], [0.5, 0.5, 0.5])).toBe(10);
  });

  it('have intervals that hold their value', () => {
    const random = createRandom(2);
    const risks = Float64Array.from({ length: 20 }, () => 1 + 0.1 * random.normal());
    const estimate = bootstrapSeeds({ seeds: 20, points: 1, risks }, ([mean]) => mean, 300, 1);
    expect(estimate.low).toBeLessThan(estimate.value);
    expect(estimate.high).toBeGreaterThan(estimate.value);
  });
});
