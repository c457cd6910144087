import { describe, expect, it } from 'vitest';
import { rareEventProbability, rareEventProbabilityAsync } from '../../src/optimization/rare-event.js';
import {
  bernoulliLaw,
  dimensionOf,
  drawPoint,
  exponentialLaw,
  gaussianLaw,
  lawDivergenceNats,
  lawEntropyNats,
  logDensity,
  mixtureLaw,
  productLaw,
  uniformLaw,
} from '../../src/optimization/sampling-law.js';
import { createRandom } from '../../src/random.js';

describe('rare events', () => {
  // P(X_1 + X_2 >= 20) of standard exponentials is e^-20 (1 + 20).
  const sum = (x: Float64Array): number => x[0] + x[1];
  const exact = Math.exp(-20) * 21;

  it('finds a tail of 4e-8 within four standard errors on 20 seeds, with finite-variance weights', () => {
    for (let seed = 0; seed < 20; seed++) {
      const found = rareEventProbability(sum, createRandom(seed), {
        nominal: exponentialLaw([1, 1]),
        level: 20,
        samples: 500,
        finalSamples: 4000,
      });
      expect(found.reached).toBe(true);
      expect(found.levels[found.levels.length - 1].level).toBe(20);
      expect(Math.abs(found.estimate - exact)).toBeLessThan(4 * found.standardError);
      expect(found.relativeError).toBeLessThan(0.1);
      expect(found.hits).toBeGreaterThan(500);
    }
  });

  it('bounds weights by a defensive part', () => {
    const found = rareEventProbability(sum, createRandom(1), {
      nominal: exponentialLaw([1, 1]),
      level: 20,
      defensive: 0.2,
    });
    expect(found.effectiveSampleSize).toBeGreaterThan(0.1 * found.draws);
    expect(Math.abs(found.estimate - exact)).toBeLessThan(4 * found.standardError);
  });

  it('is the plain share without levels, in batches, awaited or not', async () => {
    const options = { nominal: uniformLaw([0], [1]), level: 0.75, finalSamples: 5000, maxLevels: 0, batch: 700 };
    const found = rareEventProbability((x) => x[0], createRandom(5), options);
    expect(found.draws).toBe(5000);
    expect(found.estimate).toBe(found.hits / 5000);
    expect(found.effectiveSampleSize).toBeCloseTo(5000, 8);
    expect(found.largestWeightShare).toBeCloseTo(1 / found.hits, 12);
    expect(Math.abs(found.estimate - 0.25)).toBeLessThan(4 * found.standardError);
    const awaited = await rareEventProbabilityAsync(async (points) => points, createRandom(5), options);
    expect(awaited).toEqual(found);
  });

  it('says when the levels ran out, and refuses what has no meaning', () => {
    const nominal = bernoulliLaw([0.5]);
    const found = rareEventProbability((x) => x[0], createRandom(1), { nominal, level: 2, maxLevels: 3, samples: 50 });
    expect(found.reached).toBe(false);
    expect(found.hits).toBe(0);
    expect(found.relativeError).toBeNaN();
    expect(() => rareEventProbability(sum, createRandom(1), { nominal, level: Number.NaN })).toThrow(
      'must be a number',
    );
    expect(() => rareEventProbability(sum, createRandom(1), { nominal, level: 1, defensive: 1 })).toThrow('defensive');
  });
});

describe('sampling laws', () => {
  it('have densities whose mean logarithm over draws is minus the entropy', () => {
    const law = productLaw([gaussianLaw([1], [2]), exponentialLaw([3]), bernoulliLaw([0.2]), uniformLaw([-1], [4])]);
    const random = createRandom(8);
    const x = new Float64Array(dimensionOf(law));
    let total = 0;
    let squares = 0;
    const draws = 20_000;
    for (let i = 0; i < draws; i++) {
      drawPoint(law, random, x);
      const value = -logDensity(law, x);
      total += value;
      squares += value * value;
    }
    const mean = total / draws;
    const error = Math.sqrt((squares / draws - mean ** 2) / draws);
    expect(Math.abs(mean - lawEntropyNats(law))).toBeLessThan(4 * error);
    expect(lawDivergenceNats(law, law)).toBe(0);
    expect(lawDivergenceNats(exponentialLaw([2]), exponentialLaw([1]))).toBeCloseTo(1 - Math.log(2), 12);
    const twin = mixtureLaw([1, 3], [gaussianLaw([0], [1]), gaussianLaw([5], [1])]);
    const at = (value: number) => Math.exp(logDensity(twin, Float64Array.of(value)));
    expect(at(0)).toBeCloseTo(0.25 / Math.sqrt(2 * Math.PI), 5);
    expect(logDensity(uniformLaw([0], [1]), Float64Array.of(2))).toBe(Number.NEGATIVE_INFINITY);
    expect(() => uniformLaw([1], [1])).toThrow('below');
    expect(() => lawDivergenceNats(bernoulliLaw([0.5]), exponentialLaw([1]))).toThrow('no divergence');
  });
});
