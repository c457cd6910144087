import { describe, expect, it } from 'vitest';
import { type AllocationItem, allocate, type CodeChoice, lowerHull } from '../../src/quantization/allocation.js';
import { createRandom } from '../../src/random.js';

function choice(bytes: number, relativeError: number): CodeChoice {
  return { bytes, relativeError, code: { groupLength: 16, pulses: bytes, gainBits: 2, superGroup: 1 } };
}

function randomItems(seed: number, count: number, size: number): AllocationItem[] {
  const random = createRandom(seed);
  return Array.from({ length: count }, (_, i) => ({
    name: `t${i}`,
    weights: 64,
    sensitivity: 0.1 + 5 * random.uniform(),
    choices: Array.from({ length: size }, () => {
      const bytes = 8 + Math.floor(30 * random.uniform());
      return choice(bytes, 2 ** (-bytes / 6) * (0.7 + 0.6 * random.uniform()));
    }),
  }));
}

/** The least loss within the budget over all combinations. */
function bruteForce(items: readonly AllocationItem[], budget: number): number {
  let best = Number.POSITIVE_INFINITY;
  const visit = (i: number, bytes: number, loss: number): void => {
    if (bytes > budget) return;
    if (i === items.length) {
      best = Math.min(best, loss);
      return;
    }
    for (const c of items[i].choices) visit(i + 1, bytes + c.bytes, loss + items[i].sensitivity * c.relativeError);
  };
  visit(0, 0, 0);
  return best;
}

describe('lowerHull', () => {
  it('keeps the vertices of falling slope and drops what lies above', () => {
    const hull = lowerHull([choice(10, 1), choice(12, 0.9), choice(14, 0.4), choice(20, 0.45), choice(24, 0.1)]);
    expect(hull.map((c) => c.bytes)).toEqual([10, 14, 24]);
  });

  it('is convex, and no choice lies below it', () => {
    for (let seed = 0; seed < 20; seed++) {
      const [{ choices }] = randomItems(seed, 1, 30);
      const hull = lowerHull(choices);
      const slopes = hull.slice(1).map((c, i) => (hull[i].relativeError - c.relativeError) / (c.bytes - hull[i].bytes));
      for (let i = 1; i < slopes.length; i++) expect(slopes[i]).toBeLessThan(slopes[i - 1]);
      for (const c of choices) {
        for (let i = 1; i < hull.length; i++) {
          if (c.bytes < hull[i - 1].bytes || c.bytes > hull[i].bytes) continue;
          const line = hull[i - 1].relativeError - slopes[i - 1] * (c.bytes - hull[i - 1].bytes);
          expect(c.relativeError).toBeGreaterThanOrEqual(line - 1e-12);
        }
      }
    }
  });
});

describe('allocate', () => {
  it('keeps to the budget and comes close to the best of all combinations', () => {
    for (let seed = 0; seed < 30; seed++) {
      const items = randomItems(seed, 4, 7);
      const least = items.reduce((sum, item) => sum + Math.min(...item.choices.map((c) => c.bytes)), 0);
      const most = items.reduce((sum, item) => sum + Math.max(...item.choices.map((c) => c.bytes)), 0);
      const budget = Math.floor((least + most) / 2);
      const found = allocate(items, (8 * budget) / 256);
      expect(found.bytes).toBeLessThanOrEqual(budget);
      expect(found.bytes).toBe(found.choices.reduce((sum, c) => sum + c.bytes, 0));
      const best = bruteForce(items, budget);
      expect(found.expectedLoss).toBeGreaterThanOrEqual(best - 1e-12);
      expect(found.expectedLoss).toBeLessThanOrEqual(1.35 * best);
    }
  });

  it('is optimal at every rate that its own steps reach', () => {
    // Convex curves: the greedy walk along the hull is optimal whenever it uses the budget up.
    const items = randomItems(5, 3, 1).map((item) => ({
      ...item,
      choices: [8, 12, 16, 20, 24].map((bytes) => choice(bytes, 2 ** (-bytes / 4))),
    }));
    for (let bytes = 24; bytes <= 72; bytes += 4) {
      const found = allocate(items, (8 * bytes) / 192);
      expect(found.bytes).toBe(bytes);
      expect(found.expectedLoss).toBeCloseTo(bruteForce(items, bytes), 12);
    }
  });

  it('gives more bits to a tensor that matters more', () => {
    const choices = Array.from({ length: 20 }, (_, i) => choice(10 + i, 2 ** (-(10 + i) / 4)));
    const items = [0.01, 1, 100].map((sensitivity, i) => ({ name: `t${i}`, weights: 64, sensitivity, choices }));
    const bytes = allocate(items, (8 * 57) / 192).choices.map((c) => c.bytes);
    expect(bytes[0]).toBeLessThan(bytes[1]);
    expect(bytes[1]).toBeLessThan(bytes[2]);
  });

  it('refuses a rate out of reach and names the range', () => {
    const items = randomItems(1, 2, 4);
    expect(() => allocate(items, 0.1)).toThrow(/--bpw 0\.1 cannot be reached.*between \d\.\d+ and \d\.\d+/);
    expect(() => allocate(items, 20)).toThrow(/--bpw 20 cannot be reached/);
    expect(() => allocate(items, Number.NaN)).toThrow(/cannot be reached/);
  });
});
