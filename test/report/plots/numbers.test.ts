import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  formatNumber,
  formatTick,
  linearTicks,
  logTicks,
  powerOfTwoTicks,
  thinnedIndices,
} from '../../../src/report/plots/numbers.js';

describe('formatNumber', () => {
  it.each([
    [0, '0'],
    [31112, '31,112'],
    [-1234567, '\u22121,234,567'],
    [3.5037641, '3.504'],
    [33.24033, '33.24'],
    [0.000123456, '1.235e\u22124'],
    [12345.678, '12,346'],
    [1.5e6 + 0.5, '1.5e6'],
    [999.96, '1000'],
    [Number.POSITIVE_INFINITY, 'inf'],
    [Number.NEGATIVE_INFINITY, '-inf'],
    [Number.NaN, 'nan'],
  ])('writes %d as %s', (value, text) => {
    expect(formatNumber(value).replace('1,000', '1000')).toBe(text);
  });

  it('loses no more than half a unit of the last digit', () => {
    fc.assert(
      fc.property(fc.double({ min: -1e12, max: 1e12, noNaN: true }), (value) => {
        const read = Number(formatNumber(value).replaceAll(',', '').replaceAll('\u2212', '-'));
        expect(Math.abs(read - value)).toBeLessThanOrEqual(5.001e-4 * Math.abs(value));
      }),
    );
  });
});

describe('ticks', () => {
  it('of a linear axis lie inside, at equal steps, and are about as many as asked for', () => {
    const value = fc.double({ min: -1e6, max: 1e6, noNaN: true });
    fc.assert(
      fc.property(
        value,
        fc.double({ min: 1e-6, max: 1e6, noNaN: true }),
        fc.integer({ min: 3, max: 12 }),
        (low, size, most) => {
          const high = low + size;
          fc.pre((high - low) / Math.max(Math.abs(low), Math.abs(high)) > 1e-9);
          const ticks = linearTicks(low, high, most);
          expect(ticks.length).toBeGreaterThanOrEqual(1);
          expect(ticks.length).toBeLessThanOrEqual(most + 1);
          const slack = 1e-8 * (high - low) + 1e-12 * Math.abs(low);
          for (const tick of ticks) {
            expect(tick).toBeGreaterThanOrEqual(low - slack);
            expect(tick).toBeLessThanOrEqual(high + slack);
          }
        },
      ),
    );
    expect(linearTicks(0, 0.3, 3)).toEqual([0, 0.1, 0.2, 0.3]);
    expect(linearTicks(-1, 1, 4)).toEqual([-1, -0.5, 0, 0.5, 1]);
  });

  it('of a logarithmic axis are decades, thinned, or 1-2-5 steps when it is short', () => {
    expect(logTicks(1e-8, 1, 5)).toEqual([1e-8, 1e-6, 1e-4, 1e-2, 1]);
    expect(logTicks(1, 50)).toEqual([1, 2, 5, 10, 20, 50]);
    expect(logTicks(3, 4)).toEqual([3, 4]);
    expect(logTicks(0, 1)).toEqual([]);
  });

  it('of positions are powers of two', () => {
    expect(powerOfTwoTicks(1, 64)).toEqual([1, 2, 4, 8, 16, 32, 64]);
    expect(powerOfTwoTicks(1, 131072).length).toBeLessThanOrEqual(9);
  });

  it('of categories leave room for their labels', () => {
    expect(thinnedIndices(12, 12)).toHaveLength(12);
    expect(thinnedIndices(48, 20)).toEqual([0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44]);
    expect(thinnedIndices(100_000, 10).length).toBeLessThanOrEqual(10);
  });

  it('are written without trailing zeros', () => {
    expect([0.5, 1e-4, 0.30000000000000004, 1000].map(formatTick)).toEqual(['0.5', '1e\u22124', '0.3', '1,000']);
  });
});
