import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkedCounts, checkSupport, coverageOf, profileOf, withoutOne } from '../../src/dependence/count-profile.js';
import { chaoShenEntropy, chaoWangJostEntropy, logarithmicTail } from '../../src/dependence/entropy-coverage.js';
import {
  ENTROPY_ESTIMATORS,
  entropyEstimator,
  estimateWithError,
  inUnit,
  jackknifeStandardError,
  leaveOneOut,
  samplingAdvice,
} from '../../src/dependence/entropy-estimators.js';
import { grassberger1988Entropy, grassbergerEntropy, grassbergerG } from '../../src/dependence/entropy-grassberger.js';
import { ansbEntropy, nsbEntropy } from '../../src/dependence/entropy-nsb.js';
import {
  jackknifeEntropy,
  millerMadowEntropy,
  pluginEntropy,
  pluginOfRows,
} from '../../src/dependence/entropy-plugin.js';
import { dirichletMoments, jamesSteinEntropy } from '../../src/dependence/entropy-shrinkage.js';
import { InputError } from '../../src/errors.js';
import { digamma, logGamma, trigamma } from '../../src/linalg/special-functions.js';

const COUNTS = [11, 7, 5, 4, 3, 2, 2, 1, 1, 1];
const someCounts = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 12 });

function plugin(counts: readonly number[]): number {
  const total = counts.reduce((a, b) => a + b, 0);
  return -counts.filter((c) => c > 0).reduce((sum, c) => sum + (c / total) * Math.log(c / total), 0);
}

/** Without observation of symbol i. */
const less = (counts: readonly number[], i: number): number[] => counts.map((c, j) => (i === j ? c - 1 : c));

describe('profileOf', () => {
  it('groups counts and leaves zeros out', () => {
    const profile = profileOf([0, 3, 1, 1, 9000, 3, 9000, 2, 0]);
    expect(profile).toMatchObject({ total: 18010, observed: 7, singles: 2, doubles: 1 });
    expect(Array.from(profile.values)).toEqual([1, 2, 3, 9000]);
    expect(Array.from(profile.multiplicities)).toEqual([2, 1, 2, 2]);
    expect(coverageOf(profile)).toBe(1 - 2 / 18010);
  });

  it('takes one observation away as the counts would', () => {
    fc.assert(
      fc.property(someCounts, fc.nat(), (counts, pick) => {
        const i = pick % counts.length;
        expect(withoutOne(profileOf(counts), counts[i])).toEqual(profileOf(less(counts, i)));
      }),
    );
  });

  it('refuses counts that are none', () => {
    expect(() => checkedCounts([1, -2], 'f')).toThrow(/row 1: the count -2 is negative/);
    expect(() => checkedCounts([1.5], 'f')).toThrow(/no whole number/);
    expect(() => checkedCounts([0, 0], 'f')).toThrow(InputError);
    expect(() => checkSupport(3, 4, 'v')).toThrow(/support of 3 .* 4 different symbols/);
  });
});

describe('plug-in entropy and its corrections', () => {
  it('are the sums over the symbols', () => {
    fc.assert(
      fc.property(someCounts, (counts) => {
        const profile = profileOf(counts);
        const total = profile.total;
        expect(pluginEntropy(profile)).toBeCloseTo(plugin(counts), 12);
        expect(millerMadowEntropy(profile)).toBeCloseTo(plugin(counts) + (counts.length - 1) / (2 * total), 12);
        if (total < 2) return;
        const left = counts.map((c, i) => c * plugin(less(counts, i)));
        const expected = total * plugin(counts) - ((total - 1) / total) * left.reduce((a, b) => a + b, 0);
        expect(jackknifeEntropy(profile)).toBeCloseTo(expected, 9);
      }),
    );
  });

  it('of rows is the same sum in the order of the rows', () => {
    const codes = Int32Array.of(2, 0, 2, 1, 1, 2);
    expect(pluginOfRows(codes)).toBeCloseTo(plugin([1, 2, 3]), 14);
    expect(pluginOfRows(codes, [0, 2, 5])).toBe(0);
  });

  it('Chao-Shen is the sum over symbols, also without coverage', () => {
    const direct = (counts: readonly number[], singles: number): number => {
      const total = counts.reduce((a, b) => a + b, 0);
      return -counts.reduce((sum, c) => {
        const p = (1 - singles / total) * (c / total);
        return sum + (p * Math.log(p)) / (1 - (1 - p) ** total);
      }, 0);
    };
    expect(chaoShenEntropy(profileOf(COUNTS))).toBeCloseTo(direct(COUNTS, 3), 12);
    expect(chaoShenEntropy(profileOf([1, 1, 1]))).toBeCloseTo(direct([1, 1, 1], 2), 12);
    expect(chaoShenEntropy(profileOf([5]))).toBe(0);
  });

  it.each([
    [0.3, 5],
    [0.9, 12],
    [0.999, 40],
    [0.99, 200],
  ])('the tail of Chao-Wang-Jost for x = %d from n = %d', (x, n) => {
    let sum = 0;
    for (let j = 1; j < 60_000; j++) sum += x ** j / (n - 1 + j);
    expect(logarithmicTail(x, 1 - x, n)).toBeCloseTo(sum, 12);
  });

  it('the tail where its closed form is exact enough', () => {
    // -ln A - Σ_{r<n} x^r/r, over x^(n-1)
    const a = 1e-9;
    const n = 50;
    let head = 0;
    for (let r = 1; r < n; r++) head += (1 - a) ** r / r;
    expect(logarithmicTail(1 - a, a, n) / ((-Math.log(a) - head) / (1 - a) ** (n - 1))).toBeCloseTo(1, 12);
  });

  it('Chao-Wang-Jost without doubles and without singles', () => {
    const base = [4, 1, 1, 3].reduce((sum, c) => sum + (c / 9) * (digamma(9) - digamma(c)), 0);
    const found = chaoWangJostEntropy(profileOf([4, 1, 1, 3]));
    let direct = base;
    const own = 2 / (8 * 1 + 2);
    for (let r = 9; r < 4000; r++) direct += (2 / 9) * ((1 - own) ** (r - 9 + 1) / r);
    expect(found).toBeCloseTo(direct, 12);
    expect(chaoWangJostEntropy(profileOf([4, 5]))).toBeCloseTo(
      (4 / 9) * (digamma(9) - digamma(4)) + (5 / 9) * (digamma(9) - digamma(5)),
      13,
    );
  });
});

describe('Grassberger', () => {
  it('G by recursion equals its formula', () => {
    for (const n of [1, 2, 3, 10, 101, 4095, 4096, 4097, 100_000]) {
      const sign = n % 2 === 0 ? 0.5 : -0.5;
      expect(grassbergerG(n)).toBeCloseTo(digamma(n) + sign * (digamma((n + 1) / 2) - digamma(n / 2)), 11);
    }
  });

  it('E[n G(n)] of a Poisson number is nearly λ ln λ: the published exact biases at λ = 5', () => {
    const bias = (entropy: (n: number) => number): number => {
      let sum = 0;
      for (let n = 1; n < 100; n++) sum += Math.exp(n * Math.log(5) - 5 - logGamma(n + 1)) * n * entropy(n);
      return Math.abs(sum - 5 * Math.log(5));
    };
    const g88 = (n: number): number => digamma(n) + (n % 2 === 0 ? 1 : -1) / (n * (n + 1));
    expect(bias(digamma)).toBeCloseTo(5.7e-3, 4);
    expect(bias(g88)).toBeCloseTo(3.4e-4, 5);
    expect(bias(grassbergerG)).toBeCloseTo(2.1e-5, 6);
    const profile = profileOf([3, 4]);
    const by = (g: (n: number) => number): number => Math.log(7) - (3 * g(3) + 4 * g(4)) / 7;
    expect(grassberger1988Entropy(profile)).toBeCloseTo(by(g88), 13);
    expect(grassbergerEntropy(profile)).toBeCloseTo(by(grassbergerG), 13);
  });
});

describe('Bayesian estimators', () => {
  it('the variance of the Dirichlet posterior is the second moment of Wolpert and Wolf', () => {
    const second = (alphas: readonly number[]): number => {
      const nu = alphas.reduce((a, b) => a + b, 0);
      let sum = 0;
      for (const [i, a] of alphas.entries()) {
        for (const [j, b] of alphas.entries()) {
          if (i === j) continue;
          const [da, db] = [a, b].map((alpha) => digamma(alpha + 1) - digamma(nu + 2));
          sum += a * b * (da * db - trigamma(nu + 2));
        }
        const e = digamma(a + 2) - digamma(nu + 2);
        sum += a * (a + 1) * (e * e + trigamma(a + 2) - trigamma(nu + 2));
      }
      return sum / (nu * (nu + 1));
    };
    for (const [counts, support, a] of [
      [COUNTS, 10, 0.3],
      [COUNTS, 14, 2],
      [[4], 3, 0.01],
    ] as const) {
      const alphas = [...counts.map((c) => c + a), ...new Array<number>(support - counts.length).fill(a)];
      const { meanNats, variance } = dirichletMoments(profileOf(counts), support, a);
      const nu = alphas.reduce((x, y) => x + y, 0);
      const mean = digamma(nu + 1) - alphas.reduce((sum, alpha) => sum + (alpha / nu) * digamma(alpha + 1), 0);
      expect(meanNats).toBeCloseTo(mean, 12);
      expect(variance).toBeCloseTo(second(alphas) - mean * mean, 11);
    }
  });

  it('NSB equals a fine sum over ln a', () => {
    const counts = [3, 2, 1];
    const support = 6;
    let [mass, first, square] = [0, 0, 0];
    for (let u = -60; u < 14; u += 0.002) {
      const a = Math.exp(u);
      const prior = support * trigamma(support * a + 1) - trigamma(a + 1);
      if (!(prior > 0)) continue;
      let log = Math.log(prior) + u + logGamma(support * a) - logGamma(6 + support * a);
      for (const c of counts) log += logGamma(c + a) - logGamma(a);
      const { meanNats, variance } = dirichletMoments(profileOf(counts), support, a);
      const w = Math.exp(log);
      mass += w;
      first += w * meanNats;
      square += w * (variance + meanNats ** 2);
    }
    const found = nsbEntropy(profileOf(counts), support);
    // Beyond, the gammas of this plain sum cancel; what it leaves out falls as 1/a.
    expect(found.meanNats).toBeCloseTo(first / mass, 5);
    expect(found.sdNats).toBeCloseTo(Math.sqrt(square / mass - (first / mass) ** 2), 4);
  });

  it('NSB on the counts that two public programs get wrong', () => {
    expect(nsbEntropy(profileOf([2, 2, 1, 1, 1]), 5).meanNats).toBeCloseTo(1.505043, 6);
  });

  it('NSB holds for one symbol, huge supports and huge counts', () => {
    expect(nsbEntropy(profileOf([9]), 1)).toEqual({ meanNats: 0, sdNats: 0 });
    // One observation leaves the entropy uniform over its range.
    expect(nsbEntropy(profileOf([1]), 1e12).meanNats).toBeCloseTo(Math.log(1e12) / 2, 6);
    const even = nsbEntropy(profileOf(new Array(10).fill(1e8)), 10);
    expect(even.meanNats).toBeCloseTo(Math.log(10), 8);
    expect(even.sdNats).toBeLessThan(1e-8);
    const zipf = Array.from({ length: 200 }, (_, i) => Math.floor(1e7 / (i + 1)));
    const wide = nsbEntropy(profileOf(zipf), 1e12);
    expect(Math.abs(wide.meanNats - plugin(zipf))).toBeLessThan(1e-4);
    expect(wide.sdNats).toBeGreaterThan(0);
  });

  it('ANSB has no value without coincidences', () => {
    expect(ansbEntropy(profileOf([1, 1])).meanNats).toBeNaN();
    expect(entropyEstimator('ansb').estimate(profileOf([1, 1]), 2).reason).toMatch(/coincidences/);
  });

  it('James-Stein shrinks to uniform where nothing else is known', () => {
    expect(jamesSteinEntropy(profileOf([1]), 7)).toEqual({ entropyNats: expect.closeTo(Math.log(7), 12), lambda: 1 });
    const { lambda } = jamesSteinEntropy(profileOf(COUNTS), 20);
    expect(lambda).toBeGreaterThan(0);
    expect(lambda).toBeLessThan(1);
  });
});

describe('the table of estimators', () => {
  it('gives one symbol no entropy, and never less than none', () => {
    for (const estimator of ENTROPY_ESTIMATORS) {
      const value = estimator.value(profileOf([9]), 1);
      if (estimator.name.startsWith('grassberger') || estimator.name === 'ansb') continue;
      expect(value).toBeCloseTo(0, 12);
    }
  });

  it('agrees on a large sample of an even law', () => {
    for (const estimator of ENTROPY_ESTIMATORS) {
      if (estimator.name === 'ansb') continue;
      expect(estimator.value(profileOf(new Array(8).fill(100_000)), 8)).toBeCloseTo(Math.log(8), 4);
    }
  });

  it('leaves out observations as brute force does', () => {
    const profile = profileOf(COUNTS);
    for (const name of ['plugin', 'chao-shen', 'james-stein']) {
      const estimator = entropyEstimator(name);
      const left = leaveOneOut(profile, 12, estimator);
      const brute = COUNTS.flatMap((c, i) =>
        new Array<number>(c).fill(estimator.value(profileOf(less(COUNTS, i)), 12)),
      );
      const mean = brute.reduce((a, b) => a + b, 0) / brute.length;
      const squares = brute.reduce((sum, value) => sum + (value - mean) ** 2, 0);
      const n = brute.length;
      expect(jackknifeStandardError(profile, left)).toBeCloseTo(Math.sqrt(((n - 1) / n) * squares), 10);
    }
  });

  it('names its standard errors', () => {
    const method = (name: string): string | null =>
      estimateWithError(profileOf(COUNTS), 10, entropyEstimator(name)).seMethod;
    expect(method('plugin')).toBe('delta');
    expect(method('grassberger')).toBe('delta');
    expect(method('chao-shen')).toBe('jackknife');
    expect(method('nsb')).toBe('posterior');
    expect(method('dirichlet-0.25')).toBe('posterior');
  });

  it('knows names, and the nearest to a wrong one', () => {
    expect(() => entropyEstimator('grasberger')).toThrow(/did you mean "grassberger"/);
    expect(() => entropyEstimator('dirichlet-0')).toThrow(InputError);
    expect(entropyEstimator('dirichlet-2.5').value(profileOf([1, 1]), 2)).toBeCloseTo(
      dirichletMoments(profileOf([1, 1]), 2, 2.5).meanNats,
      12,
    );
  });

  it('advises on undersampled counts in the unit of the report', () => {
    const profile = profileOf([1, 1, 1, 1, 2]);
    expect(samplingAdvice(profile, 'nats')).toMatch(/\(k-1\)\/\(2N\) = 0\.333 nats/);
    expect(samplingAdvice(profile, 'bits')).toMatch(/= 0\.481 bits/);
    expect(samplingAdvice(profileOf([10, 10]), 'nats')).toBeUndefined();
    expect(inUnit(Math.LN2, 'bits')).toBe(1);
  });
});
