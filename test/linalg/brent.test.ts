import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { brentMinimum, brentRoot } from '../../src/linalg/brent.js';

describe('brentRoot', () => {
  it('finds roots of smooth, flat and broken functions to the last bits', () => {
    expect(brentRoot((x) => x * x - 2, 0, 2)?.x).toBeCloseTo(Math.SQRT2, 12);
    expect(brentRoot((x) => Math.cos(x) - x, 0, 1)?.x).toBeCloseTo(0.7390851332151607, 12);
    expect(brentRoot((x) => (x - 0.3) ** 9, -1, 2, 1e-14)?.x).toBeCloseTo(0.3, 1);
    expect(brentRoot((x) => (x < 0.123 ? -1 : 1), 0, 1)?.x).toBeCloseTo(0.123, 11);
    expect(brentRoot((x) => Math.exp(x) - 1e5, -20, 30)?.x).toBeCloseTo(Math.log(1e5), 12);
  });

  it('takes a root at an end, and gives undefined without a change of sign', () => {
    expect(brentRoot((x) => x, 0, 1)?.x).toBe(0);
    expect(brentRoot((x) => x - 1, 0, 1)?.x).toBe(1);
    expect(brentRoot((x) => x * x + 1, -1, 1)).toBeUndefined();
    expect(brentRoot(() => Number.NaN, -1, 1)).toBeUndefined();
  });

  it('does not evaluate ends that are known', () => {
    let calls = 0;
    const f = (x: number): number => {
      calls++;
      return x ** 3 - 5;
    };
    const root = brentRoot(f, 0, 5, 1e-12, -5, 120);
    expect(root?.x).toBeCloseTo(Math.cbrt(5), 12);
    expect(root?.evaluations).toBe(calls);
    expect(calls).toBeLessThan(16);
  });

  it('keeps the root within the bracket for any monotone cubic', () => {
    fc.assert(
      fc.property(fc.double({ min: -50, max: 50, noNaN: true }), fc.double({ min: 0, max: 5, noNaN: true }), (r, s) => {
        const root = brentRoot((x) => (x - r) ** 3 + s * (x - r), -60, 61, 1e-12);
        expect(root).toBeDefined();
        expect(Math.abs((root?.x ?? Number.NaN) - r)).toBeLessThan(s > 1e-3 ? 1e-8 : 1e-3);
      }),
    );
  });
});

describe('brentMinimum', () => {
  it('finds interior minima to half of the digits and the value to all', () => {
    const found = brentMinimum((x) => (x - 1.7) ** 2 + 3, -4, 9);
    expect(found.x).toBeCloseTo(1.7, 7);
    expect(found.value).toBeCloseTo(3, 14);
    expect(found.evaluations).toBeLessThan(30);
    expect(brentMinimum((x) => -Math.sin(x), 0, 3).x).toBeCloseTo(Math.PI / 2, 7);
    expect(brentMinimum((x) => Math.abs(x - 0.25), 0, 1).x).toBeCloseTo(0.25, 8);
  });

  it('gives an end where the function is monotone, and passes over NaN', () => {
    expect(brentMinimum((x) => x, 2, 5).x).toBe(2);
    expect(brentMinimum((x) => -x, 2, 5).x).toBe(5);
    expect(brentMinimum((x) => (x < 0 ? Number.NaN : (x - 1) ** 2), -1, 3).x).toBeCloseTo(1, 7);
  });
});
