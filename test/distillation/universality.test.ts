import { describe, expect, test } from 'vitest';
import { gridRegret } from '../../src/distillation/bernoulli-grid.js';
import { ballOf, regretBounds, sampleComplexity, weightProfile } from '../../src/distillation/hypothesis-weight.js';
import {
  createMixture,
  effectiveNumber,
  estimateDivergences,
  priorOf,
  temperedPosterior,
} from '../../src/distillation/universality.js';
import { createRandom } from '../../src/random.js';

describe('mixtures', () => {
  const random = createRandom(3);
  const prior = Float64Array.of(0.5, 0.2, 0.3);
  const records = Array.from({ length: 200 }, () => Float64Array.from(prior, () => -Math.log(random.uniform())));

  test('the sum of losses is minus the log of the prior-weighted likelihood, and regret never passes its limit', () => {
    const mixture = createMixture(prior);
    for (const record of records) mixture.observe(record);
    const logs = prior.map((weight, m) => Math.log(weight) - mixture.totals[m]);
    const most = Math.max(...logs);
    const direct = -(most + Math.log(logs.reduce((sum, value) => sum + Math.exp(value - most), 0)));
    expect(mixture.total).toBeCloseTo(direct, 8);
    prior.forEach((weight, m) => {
      expect(mixture.total - mixture.totals[m]).toBeLessThanOrEqual(-Math.log(weight) + 1e-9);
    });
    expect(temperedPosterior(prior, mixture.totals, 1)[0]).toBeCloseTo(mixture.posterior()[0], 9);
    temperedPosterior(prior, mixture.totals, 0).forEach((weight, m) => {
      expect(weight).toBeCloseTo(prior[m], 14);
    });
  });

  test('a model with probability 0 is out for ever, and nothing left is an error with the record', () => {
    const mixture = createMixture(Float64Array.of(0.5, 0.5));
    mixture.observe([Number.POSITIVE_INFINITY, 1]);
    expect(mixture.posterior()).toEqual(Float64Array.of(0, 1));
    mixture.observe([0, 1]);
    expect(mixture.posterior()[0]).toBe(0);
    expect(() => mixture.observe([0, Number.POSITIVE_INFINITY])).toThrow(/record 2/);
    expect(() => mixture.observe([Number.NaN, 1])).toThrow(/model 0, record 2: NaN/);
  });

  test('duplicated models are counted by mass', () => {
    const once = regretBounds(weightProfile([0, 0.1], [0.5, 0.5]), 10);
    const twice = regretBounds(weightProfile([0, 0, 0.1], [0.25, 0.25, 0.5]), 10);
    expect(twice).toEqual(once);
    expect(effectiveNumber(Float64Array.of(0.5, 0.5))).toBeCloseTo(2, 12);
  });

  test('priors', () => {
    expect(priorOf(4).weights).toEqual(new Float64Array(4).fill(0.25));
    expect(priorOf(2, [1, 3])).toEqual({ weights: Float64Array.of(0.25, 0.75), normalisedBy: 4 });
    expect(() => priorOf(2, [1])).toThrow(/1 weights for 2 models/);
    expect(() => priorOf(2, [-1, 2])).toThrow(/model 0 is -1/);
    expect(() => priorOf(1, [0])).toThrow(/every prior weight/);
  });

  test('estimated divergences are clamped and flagged', () => {
    expect(estimateDivergences(1, [9, 10, 12], 2)).toEqual({ values: Float64Array.of(0, 0, 1), clamped: [0] });
  });
});

describe('weight of a hypothesis', () => {
  const profile = weightProfile([0, 0.02, 0.5, Number.POSITIVE_INFINITY], [0.1, 0.4, 0.4, 0.1]);

  test('balls, bounds and sample complexity', () => {
    expect(ballOf(profile, 0.01, 100)).toMatchObject({ models: 1, weight: 0.1 });
    expect(ballOf(profile, -1, 100).bound_nats).toBe(Number.POSITIVE_INFINITY);
    const bounds = regretBounds(profile, 100);
    expect(bounds.ball_nats).toBeCloseTo(-Math.log(0.1), 12);
    expect(bounds.jensen_nats).toBeLessThanOrEqual(bounds.ball_nats);
    const samples = sampleComplexity(profile, 0.05) ?? Number.NaN;
    expect(regretBounds(profile, samples).ball_nats / samples).toBeLessThanOrEqual(0.05);
    expect(regretBounds(profile, samples - 1).ball_nats / (samples - 1)).toBeGreaterThan(0.05);
    expect(sampleComplexity(weightProfile([1], [1]), 0.5)).toBeUndefined();
  });
});

describe('Bernoulli grid', () => {
  test('a finer grid leaves the regret as it is', () => {
    const [coarse, fine] = [25, 1001].map((grid) => gridRegret(0.3, 200, grid));
    expect(coarse.expected_regret_nats).toBeCloseTo(2.0159, 4);
    expect(fine.expected_regret_nats).toBeCloseTo(2.0159, 4);
    expect(fine.ball_bound_nats).toBeCloseTo(3.22, 2);
    expect(fine.jensen_bound_nats).toBeCloseTo(2.69, 2);
    expect(fine.expected_regret_nats).toBeLessThan(fine.jensen_bound_nats);
  });

  test('one sample by hand, and a certain coin', () => {
    // Models 1/4 and 3/4: q(0) = q(1) = 1/2.
    const { expected_regret_nats } = gridRegret(0.5, 1, 2);
    expect(expected_regret_nats).toBeCloseTo(0, 12);
    expect(gridRegret(1, 3, 2).expected_regret_nats).toBeCloseTo(-Math.log((0.25 ** 3 + 0.75 ** 3) / 2), 12);
    expect(() => gridRegret(2, 3, 2)).toThrow(/theta/);
  });
});
