import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  lmPolygraphMeasures,
  measureTokens,
  renyiDivergenceFromUniformNats,
  sumTokens,
} from '../../src/entropy/token-measures.js';
import { createRandom } from '../../src/random.js';

const block = (data: Float64Array, columns: number) => ({
  data,
  dtype: 'F64' as const,
  rows: data.length / columns,
  columns,
});

const draw = (seed: number, size: number, scale = 3): Float64Array => {
  const random = createRandom(seed);
  return Float64Array.from({ length: size }, () => Math.round(scale * random.normal() * 256) / 256);
};

describe('measures of logits', () => {
  it('do not change by a constant or by the order of the vocabulary', () => {
    fc.assert(
      fc.property(fc.integer(), fc.constantFrom(64, -1000, 1e4), (seed, shift) => {
        const logits = draw(seed, 40);
        const order = createRandom(seed + 1).permutation(40);
        const [a, b] = [
          measureTokens(block(logits, 40), Int32Array.of(order[3])),
          measureTokens(
            block(
              Float64Array.from(order, (i) => logits[i] + shift),
              40,
            ),
            Int32Array.of(3),
          ),
        ];
        for (const key of [
          'entropyNats',
          'varentropyNats2',
          'surprisalNats',
          'rank',
          'selfCertaintyNats',
          'fisherRao',
        ] as const) {
          const scale = Math.max(1, Math.abs(a.statistics[key][0]));
          expect(Math.abs(b.statistics[key][0] - a.statistics[key][0])).toBeLessThan(1e-9 * scale);
        }
      }),
      { numRuns: 30 },
    );
  });

  it('keep Renyi entropies falling in their order, from Hartley to the least', () => {
    const orders = [0, 0.25, 0.5, 1, 2, 3, Number.POSITIVE_INFINITY];
    const { renyiNats, hartleyNats, statistics } = measureTokens(block(draw(2, 64), 64), Int32Array.of(5), {
      renyiOrders: orders,
    });
    const values = orders.map((order) => renyiNats.get(order)?.[0] ?? Number.NaN);
    for (let i = 1; i < values.length; i++) expect(values[i]).toBeLessThan(values[i - 1]);
    expect(values[0]).toBe(hartleyNats[0]);
    expect(values[3]).toBe(statistics.entropyNats[0]);
    expect(values[6]).toBeCloseTo(statistics.minEntropyNats[0], 14);
  });

  it('sum as many of the largest as are asked for, beyond what the kernel keeps', () => {
    const logits = draw(3, 200);
    const z = logits.reduce((sum, x) => sum + Math.exp(x), 0);
    const p = [...logits].map((x) => Math.exp(x) / z).sort((a, b) => b - a);
    const { topMass } = measureTokens(block(logits, 200), Int32Array.of(0), { topK: [1, 7, 64, 150, 500] });
    for (const k of [1, 7, 64, 150, 500]) {
      expect(topMass.get(k)?.[0]).toBeCloseTo(
        p.slice(0, k).reduce((a, b) => a + b),
        12,
      );
    }
  });

  it('count as support what has a probability in f64', () => {
    const no = Number.NEGATIVE_INFINITY;
    const { hartleyNats, tsallis } = measureTokens(block(Float64Array.of(0, -745, -747, no), 4), Int32Array.of(0), {
      tsallisOrders: [0],
    });
    expect(hartleyNats[0]).toBeCloseTo(Math.log(2), 14);
    expect(tsallis.get(0)?.[0]).toBe(1);
  });

  it('handle a vocabulary of one and rows without target', () => {
    const { statistics, aggregate } = measureTokens(block(Float64Array.of(3, -2), 1), Int32Array.of(0, -1));
    expect([...statistics.normalizedEntropy]).toEqual([0, 0]);
    expect([...statistics.surprisalNats]).toEqual([0, Number.NaN]);
    expect(aggregate.scored_tokens).toBe(1);
    expect(sumTokens(statistics).tokens).toBe(1);
  });

  it('refuse hostile rows and targets by name', () => {
    expect(() => measureTokens(block(Float64Array.of(0, 1, 2, Number.NaN), 2), Int32Array.of(0, 0))).toThrow(
      /row 1, column 1 is NaN/,
    );
    const no = Number.NEGATIVE_INFINITY;
    expect(() => measureTokens(block(Float64Array.of(no, no), 2), Int32Array.of(0))).toThrow(/row 0 has empty support/);
    expect(() => measureTokens(block(Float64Array.of(1, 2), 2), Int32Array.of(2))).toThrow(/row 0: target 2.*of 2/);
  });
});

describe("lm-polygraph's readings", () => {
  it('divide the logits by 2 and are not the divergence from uniform', () => {
    const logits = draw(9, 30);
    const z = logits.reduce((sum, x) => sum + Math.exp(x / 2), 0);
    const p = [...logits].map((x) => Math.exp(x / 2) / z);
    const roots = p.reduce((sum, x) => sum + Math.sqrt(x), 0);
    const { fisherRao, renyinegCompat } = lmPolygraphMeasures(logits, 30);
    expect(fisherRao[0]).toBeCloseTo((2 / Math.PI) * Math.acos(roots / Math.sqrt(30)), 12);
    const asWritten = (1 / (0.5 - 1)) * (Math.log(roots) - (0.5 - 1) * Math.log(30));
    expect(renyinegCompat[0]).toBeCloseTo(asWritten, 12);
    // D_alpha(p || U) = log(sum p^alpha (1/V)^(1-alpha)) / (alpha - 1).
    const divergence = Math.log(roots * (1 / 30) ** 0.5) / (0.5 - 1);
    expect(renyiDivergenceFromUniformNats(2 * Math.log(roots), 30)).toBeCloseTo(divergence, 12);
  });
});
