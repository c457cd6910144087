import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { topKEntropyBounds } from '../../src/policy/topk-bounds.js';

const entropy = (p: readonly number[]): number => -p.reduce((sum, x) => sum + (x > 0 ? x * Math.log(x) : 0), 0);

describe('bounds on an entropy from its likeliest tokens', () => {
  it('enclose it on any distribution', () => {
    const weights = fc.array(fc.double({ min: 1e-9, max: 1, noNaN: true }), { minLength: 2, maxLength: 40 });
    fc.assert(
      fc.property(weights, fc.integer({ min: 1, max: 40 }), (list, wanted) => {
        const total = list.reduce((sum, x) => sum + x, 0);
        const p = list.map((x) => x / total).sort((a, b) => b - a);
        const k = Math.min(wanted, p.length);
        const top = Float64Array.from(p.slice(0, k), Math.log);
        const bounds = topKEntropyBounds(top, 1, k, p.length);
        const exact = entropy(p);
        const slack = 1e-12;
        expect(bounds.lowerLump[0]).toBeLessThanOrEqual(bounds.lower[0] + slack);
        expect(bounds.lower[0]).toBeLessThanOrEqual(exact + slack);
        expect(bounds.upper?.[0] ?? 0).toBeGreaterThanOrEqual(exact - slack);
        expect(topKEntropyBounds(top, 1, k).lower[0]).toBeLessThanOrEqual(exact + slack);
      }),
    );
  });

  it('meet where nothing is left, and on a uniform distribution', () => {
    const whole = topKEntropyBounds(Float64Array.from([0.5, 0.25, 0.25], Math.log), 1, 3, 3);
    expect(whole.lower[0]).toBeCloseTo(entropy([0.5, 0.25, 0.25]), 14);
    expect(whole.upper?.[0]).toBeCloseTo(entropy([0.5, 0.25, 0.25]), 14);
    const uniform = topKEntropyBounds(new Float64Array(4).fill(-Math.log(64)), 1, 4, 64);
    expect(uniform.lower[0]).toBeCloseTo(Math.log(64), 12);
    expect(uniform.upper?.[0]).toBeCloseTo(Math.log(64), 12);
  });

  it('leave out places without a token, and know rows without any', () => {
    const bounds = topKEntropyBounds(
      Float64Array.of(Math.log(0.5), Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY),
      2,
      2,
      10,
    );
    expect(bounds.tailMass).toEqual(Float64Array.of(0.5, 1));
    expect(bounds.lower[0]).toBeCloseTo(Math.log(2), 14);
    expect(bounds.lower[1]).toBe(0);
    expect(bounds.upper?.[1]).toBeCloseTo(Math.log(10), 14);
    expect(bounds.truncatedSum[1]).toBe(0);
  });
});
