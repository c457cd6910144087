import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addComparison,
  compareLogits,
  comparisonFromJson,
  comparisonToJson,
  createComparison,
  mergeComparisons,
  summarizeComparison,
} from '../../src/entropy/compare.js';
import { createRandom } from '../../src/random.js';

const VOCABULARY = 50;

function rows(seed: number, count: number, scale = 4): Float64Array {
  const random = createRandom(seed);
  return Float64Array.from({ length: count * VOCABULARY }, () => scale * random.normal());
}

const targets = (count: number): Int32Array => Int32Array.from({ length: count }, (_, i) => (i * 13) % VOCABULARY);

describe('comparison of rows', () => {
  it('finds nothing between equal distributions, whatever constant was added', () => {
    const base = rows(1, 20).map((x) => Math.round(x * 256) / 256);
    const result = compareLogits(
      base,
      base.map((x) => x + 64),
      VOCABULARY,
      targets(20),
    );
    for (const values of [result.klNats, result.reverseKlNats, result.jensenShannonNats, result.deltaProbability]) {
      for (const value of values) expect(Math.abs(value)).toBeLessThan(1e-12);
    }
    expect([...result.baseTop]).toEqual([...result.candidateTop]);
  });

  it('gives closed forms for two outcomes', () => {
    const logit = (p: number): number => Math.log(p / (1 - p));
    const p = 0.8;
    const q = 0.3;
    const result = compareLogits(Float64Array.of(logit(p), 0), Float64Array.of(logit(q), 0), 2, Int32Array.of(0));
    const kl = (a: number, b: number): number => a * Math.log(a / b) + (1 - a) * Math.log((1 - a) / (1 - b));
    const m = (p + q) / 2;
    expect(result.klNats[0]).toBeCloseTo(kl(p, q), 14);
    expect(result.reverseKlNats[0]).toBeCloseTo(kl(q, p), 14);
    expect(result.jensenShannonNats[0]).toBeCloseTo((kl(p, m) + kl(q, m)) / 2, 14);
    expect(result.deltaProbability[0]).toBeCloseTo(q - p, 14);
    expect(result.codedKlNats[0]).toBeCloseTo(kl(p, q), 3);
  });

  it('handles masked tokens: infinite where only the base has mass, ln 2 for disjoint supports', () => {
    const no = Number.NEGATIVE_INFINITY;
    const result = compareLogits(
      Float64Array.of(0, 0, no, /**/ 0, no, no),
      Float64Array.of(0, no, no, /**/ no, 0, 0),
      3,
      Int32Array.of(1, 0),
    );
    expect([...result.klNats]).toEqual([Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]);
    expect(result.reverseKlNats[0]).toBeCloseTo(Math.LN2, 14);
    expect(result.jensenShannonNats[1]).toBeCloseTo(Math.LN2, 14);
    expect(result.candidateSurprisalNats[0]).toBe(Number.POSITIVE_INFINITY);
    expect(result.deltaProbability[0]).toBeCloseTo(-0.5, 14);
  });

  it('survives probabilities at the edge of what a double holds', () => {
    const result = compareLogits(
      Float64Array.of(0, -745),
      Float64Array.of(0, Number.NEGATIVE_INFINITY),
      2,
      Int32Array.of(0),
    );
    expect(result.jensenShannonNats[0]).toBeCloseTo(0, 12);
  });

  it('keeps the inequalities of divergences', () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer(), fc.double({ min: 0.01, max: 30, noNaN: true }), (a, b, scale) => {
        const result = compareLogits(rows(a, 3, scale), rows(b, 3, scale), VOCABULARY, targets(3));
        const swapped = compareLogits(rows(b, 3, scale), rows(a, 3, scale), VOCABULARY, targets(3));
        for (let i = 0; i < 3; i++) {
          expect(result.klNats[i]).toBeGreaterThanOrEqual(0);
          expect(result.jensenShannonNats[i]).toBeLessThanOrEqual(Math.LN2);
          expect(result.jensenShannonNats[i]).toBeLessThanOrEqual(
            (result.klNats[i] + result.reverseKlNats[i]) / 4 + 1e-12,
          );
          expect(swapped.klNats[i]).toBeCloseTo(result.reverseKlNats[i], 10);
          expect(swapped.jensenShannonNats[i]).toBeCloseTo(result.jensenShannonNats[i], 10);
        }
      }),
      { numRuns: 40 },
    );
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY])('names block, row and column of %d', (bad) => {
    const broken = rows(2, 3);
    broken[2 * VOCABULARY + 7] = bad;
    expect(() => compareLogits(rows(1, 3), broken, VOCABULARY, targets(3))).toThrow(
      /candidate logits: row 2, column 7/,
    );
    expect(() =>
      compareLogits(broken, rows(1, 3), VOCABULARY, targets(3), { base: 'a.npy', candidate: 'b.npy' }),
    ).toThrow(/a\.npy: row 2, column 7/);
  });

  it('refuses a row without support', () => {
    const empty = rows(1, 1).fill(Number.NEGATIVE_INFINITY);
    expect(() => compareLogits(rows(1, 1), empty, VOCABULARY, targets(1))).toThrow(/empty support/);
  });
});

describe('comparison statistics', () => {
  const tokens = compareLogits(rows(5, 300), rows(6, 300), VOCABULARY, targets(300));
  const part = (from: number, to: number): typeof tokens => {
    const slice = Object.fromEntries(
      Object.entries(tokens).map(([key, value]) => [
        key,
        typeof value === 'number' ? to - from : value.subarray(from, to),
      ]),
    );
    return slice as unknown as typeof tokens;
  };

  it('of united shards are those of one pass, byte for byte', () => {
    for (const exact of [10, 20_000]) {
      const whole = createComparison(exact);
      for (let d = 0; d < 30; d++) addComparison(whole, d, part(10 * d, 10 * d + 10));
      const shards = [0, 1, 2].map((shard) => {
        const statistics = createComparison(exact);
        for (let d = shard; d < 30; d += 3) addComparison(statistics, d, part(10 * d, 10 * d + 10));
        return comparisonFromJson(JSON.parse(JSON.stringify(comparisonToJson(statistics))));
      });
      const summary = summarizeComparison(whole, { seed: 4, resamples: 100 });
      expect(summarizeComparison(mergeComparisons(shards.reverse()), { seed: 4, resamples: 100 })).toEqual(summary);
      expect(summary.intervals?.mean_kl_nats.low).toBeLessThan(summary.mean_kl_nats);
      expect(summary.intervals?.mean_kl_nats.high).toBeGreaterThan(summary.mean_kl_nats);
      expect(summary.fewer_than_100_tokens).toBe(false);
    }
  });

  it('give no uncertainty for ten tokens, as llama.cpp', () => {
    const few = createComparison();
    addComparison(few, 0, part(0, 10));
    const summary = summarizeComparison(few, { seed: 0 });
    expect([summary.mean_kl_nats_se, summary.base_perplexity_se]).toEqual([0, 0]);
    expect(summary.fewer_than_100_tokens).toBe(true);
    expect(summary).not.toHaveProperty('intervals');
  });

  it('count infinite divergences and surprisals', () => {
    const no = Number.NEGATIVE_INFINITY;
    const statistics = createComparison();
    addComparison(
      statistics,
      0,
      compareLogits(Float64Array.of(0, 0, 1, 2), Float64Array.of(0, no, 2, 1), 2, Int32Array.of(1, 0)),
    );
    const summary = summarizeComparison(statistics, { seed: 0 });
    expect(summary.mean_kl_nats).toBe(Number.POSITIVE_INFINITY);
    expect(summary.infinite_kl_tokens).toBe(1);
    expect(summary.finite_mean_kl_nats).toBeCloseTo(Math.tanh(0.5), 12);
    expect(summary.candidate_perplexity).toBe(Number.POSITIVE_INFINITY);
    expect(summary.base_perplexity).toBeGreaterThan(1);
  });
});
