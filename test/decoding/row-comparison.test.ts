import { describe, expect, it } from 'vitest';
import { entropyConstrainedMass } from '../../src/decoding/entropy-constrained-mass.js';
import { logSoftmax } from '../../src/decoding/log-softmax.js';
import { compareRows, createRowComparison, jaccard, topHStep } from '../../src/decoding/row-comparison.js';
import { parseSamplingPlan } from '../../src/decoding/sampler-text.js';
import { createRandom } from '../../src/random.js';
import { keptTokens } from './kept-tokens.js';

const ROWS = 12;
const VOCABULARY = 60;
const LOGITS = (() => {
  const random = createRandom(9);
  return Float32Array.from({ length: ROWS * VOCABULARY }, () => 2.5 * random.normal());
})();
const NAMES = ['temperature=1.4,top-h=0.5', 'min-p=0.1', 'top-p=0.9', 'top-h=0.4:reference'];
const settings = (changes = {}) => ({
  samplers: NAMES.map((name) => ({ name, plan: parseSamplingPlan(name) })),
  alphas: [0.4],
  temperature: 1,
  exactCandidates: 12,
  ...changes,
});
const row = (r: number): Float32Array => LOGITS.subarray(r * VOCABULARY, (r + 1) * VOCABULARY);

describe('samplers on the same rows', () => {
  it('sums the Jaccard indices of what each sampler keeps', () => {
    const comparison = createRowComparison(settings());
    compareRows(comparison, LOGITS, ROWS, VOCABULARY);
    NAMES.forEach((_, a) => {
      NAMES.forEach((__, b) => {
        let sum = 0;
        for (let r = 0; r < ROWS; r++) {
          const [first, second] = [a, b].map((s) => new Set(keptTokens(comparison.settings.samplers[s].plan, row(r))));
          const common = [...first].filter((token) => second.has(token)).length;
          sum += common / (first.size + second.size - common);
        }
        expect(comparison.overlap[a * NAMES.length + b]).toBeCloseTo(sum, 12);
      });
    });
  });

  it('searches the optimum of the tempered distribution', () => {
    const comparison = createRowComparison(settings());
    const [own] = compareRows(comparison, LOGITS, ROWS, VOCABULARY);
    for (let r = 0; r < ROWS; r++) {
      const probabilities = logSoftmax(row(r).map((x) => x / 1.4)).map(Math.exp);
      const found = entropyConstrainedMass(probabilities, { alpha: 0.5, candidates: 12 });
      if (own.keptCount[r] > 12) continue;
      expect(own.exactMass[r]).toBeCloseTo(found.optimalMass, 6);
      expect(own.optimalityRatio[r]).toBeCloseTo(own.keptMass[r] / found.optimalMass, 6);
      expect(own.boundNats[r]).toBeCloseTo(0.5 * own.temperedEntropyNats[r], 12);
      expect(own.entropyAfterNats[r]).toBeLessThanOrEqual(own.boundNats[r] * (1 + 1e-12));
    }
    const exact = comparison.exact[0];
    expect((exact?.ratio.count ?? 0) + (exact?.beyond ?? 0)).toBe(ROWS);
    expect(comparison.exact.slice(1)).toEqual([undefined, undefined, undefined]);
  });

  it('gives the same figures in blocks as at once', () => {
    const whole = createRowComparison(settings());
    compareRows(whole, LOGITS, ROWS, VOCABULARY);
    const parts = createRowComparison(settings());
    for (let first = 0; first < ROWS; first += 5) {
      const count = Math.min(5, ROWS - first);
      compareRows(parts, LOGITS.subarray(first * VOCABULARY), count, VOCABULARY, { firstRow: first });
    }
    expect(parts).toEqual(whole);
  });

  it('counts rows of each rule within the bound; the rule of the paper never leaves it', () => {
    const comparison = createRowComparison(settings());
    compareRows(comparison, LOGITS, ROWS, VOCABULARY);
    const [{ figures }] = comparison.rules;
    expect(figures.map(({ bounded }) => bounded)).toEqual([ROWS, ROWS, ROWS]);
    expect(figures[0].held).toBe(ROWS);
    expect(figures[1].held).toBeLessThan(ROWS);
  });

  it('names the row that is no distribution', () => {
    const bad = LOGITS.slice();
    bad.fill(Number.NEGATIVE_INFINITY, 3 * VOCABULARY, 4 * VOCABULARY);
    const comparison = createRowComparison(settings());
    expect(() => compareRows(comparison, bad, ROWS, VOCABULARY, { name: 'a.npy', firstRow: 100 })).toThrow(
      /a\.npy: row 103 has no finite logit/,
    );
  });

  it('finds the bound of plans that begin with temperatures and top-h alone', () => {
    expect(topHStep(parseSamplingPlan('temperature=2,top-h=0.3,top-k=5'))?.alpha).toBe(0.3);
    expect(topHStep(parseSamplingPlan('top-k=5,top-h=0.3'))).toBeUndefined();
    expect(topHStep(parseSamplingPlan('none'))).toBeUndefined();
  });

  it('takes two empty sets as alike', () => {
    expect(jaccard(Int32Array.of(), Int32Array.of())).toBe(1);
    expect(jaccard(Int32Array.of(1, 4, 9), Int32Array.of(4, 8, 9, 11))).toBe(2 / 5);
  });
});
