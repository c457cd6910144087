import { describe, expect, it } from 'vitest';
import {
  expertPairs,
  groupedLoad,
  massEntropy,
  type RoutingTotals,
  routingMeasures,
  tokenErrors,
  usageMeasures,
} from '../../src/moe/routing-measures.js';
import { createRoutingSums } from '../../src/moe/routing-statistics.js';
import { createRandom } from '../../src/random.js';

function totalsOf(logits: Float64Array, experts: number, topK: number): RoutingTotals {
  const sums = createRoutingSums(0, experts, { score: 'softmax', topK, normalizeTopK: true }, { grams: false });
  sums.add(logits, logits.length / experts);
  return sums.finish();
}

const random = (seed: bigint, count: number, scale = 1): Float64Array => {
  const source = createRandom(seed);
  return Float64Array.from({ length: count }, () => scale * source.normal());
};

describe('usage of experts', () => {
  it('of an even load is the largest entropy, of a single expert the least', () => {
    expect(usageMeasures([3, 3, 3, 3])).toEqual({
      entropyNats: Math.log(4),
      effectiveExperts: expect.closeTo(4, 12),
      inverseSimpson: 4,
      klToUniformNats: 0,
      variation: 0,
      gini: 0,
      maxOverMean: 1,
      dead: [],
    });
    const single = usageMeasures([0, 0, 5, 0]);
    expect(single).toMatchObject({
      entropyNats: 0,
      effectiveExperts: 1,
      inverseSimpson: 1,
      maxOverMean: 4,
      gini: 0.75,
    });
    expect(single.dead).toEqual([0, 1, 3]);
    expect(single.variation).toBeCloseTo(Math.sqrt(3), 12);
  });

  it('has the Gini coefficient of mean absolute differences', () => {
    const load = [7, 0, 3, 11, 2, 2];
    const mean = load.reduce((a, b) => a + b) / load.length;
    const differences = load.flatMap((a) => load.map((b) => Math.abs(a - b))).reduce((a, b) => a + b);
    expect(usageMeasures(load).gini).toBeCloseTo(differences / (2 * load.length ** 2 * mean), 12);
  });

  it('is unknown where nothing was routed, and certain with one expert', () => {
    expect(massEntropy([0, 0])).toBeNaN();
    expect(
      Object.values(usageMeasures([0, 0]))
        .slice(0, -1)
        .every(Number.isNaN),
    ).toBe(true);
    expect(usageMeasures([4])).toMatchObject({ entropyNats: 0, effectiveExperts: 1, gini: 0, maxOverMean: 1 });
  });

  it('adds up in groups, without the experts that were dropped', () => {
    expect([...groupedLoad([1, 2, 4, 8], [1, 0, 1, -1], 2)]).toEqual([2, 5]);
  });
});

describe('measures of a router', () => {
  it('without tokens are not numbers', () => {
    const measures = routingMeasures(totalsOf(new Float64Array(0), 4, 2));
    expect(Object.values(measures).every(Number.isNaN)).toBe(true);
  });

  it('of one expert are those of certainty', () => {
    const measures = routingMeasures(totalsOf(Float64Array.of(3, -1, 2), 1, 1));
    expect(measures).toMatchObject({
      mean_token_entropy: 0,
      mean_token_entropy_normalized: 0,
      usage_entropy: 0,
      effective_experts_usage: 1,
      token_expert_mutual_information: 0,
      switch_balance_loss: 1,
      router_z_loss: 14 / 3,
    });
  });

  it('tell tokens that are all alike from tokens that are specialised', () => {
    const alike = routingMeasures(
      totalsOf(
        new Float64Array(60).map((_, i) => [2, 1, 0][i % 3]),
        3,
        1,
      ),
    );
    expect(alike.token_expert_mutual_information).toBeCloseTo(0, 12);
    expect(alike.std_token_entropy).toBe(0);
    const special = routingMeasures(
      totalsOf(
        new Float64Array(90).map((_, i) => (Math.floor(i / 3) % 3 === i % 3 ? 900 : 0)),
        3,
        1,
      ),
    );
    expect(special.mean_token_entropy).toBe(0);
    expect(special.token_expert_mutual_information).toBeCloseTo(Math.log(3), 12);
    expect(special.effective_experts_usage).toBeCloseTo(3, 12);
  });

  it('are in bounds that they keep to each other', () => {
    const experts = 7;
    const found = routingMeasures(totalsOf(random(4n, 300 * experts, 1.5), experts, 3));
    expect(found.usage_kl_to_uniform).toBeCloseTo(Math.log(experts) - found.usage_entropy, 12);
    expect(found.mean_probability_entropy).toBeLessThanOrEqual(Math.log(experts));
    expect(found.mean_topk_weight_entropy).toBeLessThanOrEqual(Math.log(3));
    expect(found.inverse_simpson_usage).toBeLessThanOrEqual(found.effective_experts_usage);
  });
});

describe('pairs of experts', () => {
  it('share what was chosen together, and expect what usage explains', () => {
    const pairs = expertPairs(totalsOf(random(9n, 400 * 5), 5, 2));
    expect(pairs).toHaveLength(10);
    expect(pairs.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(400);
    expect(pairs.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1, 12);
    expect(pairs.reduce((sum, { expectedShare }) => sum + expectedShare, 0)).toBeCloseTo(1, 12);
  });

  it('diverge from usage where experts come in couples only', () => {
    const coupled = new Float64Array(4 * 40).map((_, i) => (Math.floor(i / 2) % 2 === Math.floor(i / 4) % 2 ? 5 : 0));
    const totals = totalsOf(coupled, 4, 2);
    expect(expertPairs(totals).map(({ tokens }) => tokens)).toEqual([20, 0, 0, 0, 0, 20]);
    // Six equal pairs are expected, two come: ln 3.
    expect(routingMeasures(totals).co_activation_kl).toBeCloseTo(Math.log(3), 12);
  });

  it('do not exist for top-1 routers', () => {
    const totals = totalsOf(random(2n, 40), 4, 1);
    expect(expertPairs(totals)).toEqual([]);
    expect(routingMeasures(totals).co_activation_kl).toBeNaN();
  });
});

describe('standard errors over tokens', () => {
  it('are the spread over repeated samples', () => {
    const [experts, tokens, samples] = [5, 150, 400];
    const bias = [1, 0.5, 0, -0.5, -1];
    const found = { entropy: [] as number[], usage: [] as number[] };
    const told = { entropy: 0, usage: 0 };
    const source = createRandom(17n);
    for (let s = 0; s < samples; s++) {
      const logits = Float64Array.from({ length: tokens * experts }, (_, i) => bias[i % experts] + source.normal());
      const totals = totalsOf(logits, experts, 2);
      const measures = routingMeasures(totals);
      const errors = tokenErrors(totals);
      found.entropy.push(measures.mean_token_entropy);
      found.usage.push(measures.usage_entropy);
      told.entropy += errors.mean_token_entropy / samples;
      told.usage += errors.usage_entropy / samples;
    }
    const spread = (values: number[]): number => {
      const mean = values.reduce((a, b) => a + b) / values.length;
      return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
    };
    expect(told.entropy / spread(found.entropy)).toBeGreaterThan(0.88);
    expect(told.entropy / spread(found.entropy)).toBeLessThan(1.12);
    expect(told.usage / spread(found.usage)).toBeGreaterThan(0.88);
    expect(told.usage / spread(found.usage)).toBeLessThan(1.12);
  });

  it('are unknown for a single token', () => {
    expect(Object.values(tokenErrors(totalsOf(random(1n, 4), 4, 2))).every(Number.isNaN)).toBe(true);
  });
});
