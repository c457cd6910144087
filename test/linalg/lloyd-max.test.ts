import { describe, expect, it } from 'vitest';
import { lloydMax, normalLloydMax, type ScalarLaw, scalarError } from '../../src/linalg/lloyd-max.js';

/** The law of density 2x on [0, 1]. */
const RAMP: ScalarLaw<number> = {
  low: 0,
  high: 1,
  at: (x) => x,
  moment: (from, to, p) => (2 * (to ** (p + 2) - from ** (p + 2))) / (p + 2),
  density: (x) => 2 * x,
};

describe('Lloyd-Max quantisers', () => {
  it('of the normal law are those of Max (1960)', () => {
    const two = normalLloydMax(2);
    expect(two.levels[1]).toBeCloseTo(Math.sqrt(2 / Math.PI), 14);
    expect(two.error).toBeCloseTo(1 - 2 / Math.PI, 13);
    expect(normalLloydMax(1)).toMatchObject({ levels: Float64Array.of(0) });
    expect(normalLloydMax(1).error).toBeCloseTo(1, 14);
    // Levels and errors as Max's table gives them, to its digits.
    const tables: readonly (readonly [error: number, levels: readonly number[]])[] = [
      [0.1175, [0.4528, 1.51]],
      [0.03454, [0.2451, 0.756, 1.344, 2.152]],
      [0.009497, [0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733]],
    ];
    for (const [error, levels] of tables) {
      const found = normalLloydMax(2 * levels.length);
      expect(found.error).toBeCloseTo(error, error < 0.01 ? 5 : 4);
      levels.forEach((level, i) => {
        expect(found.levels[levels.length + i]).toBeCloseTo(level, 3);
        expect(found.levels[levels.length - 1 - i]).toBe(-found.levels[levels.length + i]);
      });
    }
  });

  it('tend to the error of high resolution', () => {
    // Panter and Dite: sqrt(3) pi / 2 / count^2.
    expect(normalLloydMax(1024).error * 1024 ** 2).toBeCloseTo((Math.sqrt(3) * Math.PI) / 2, 1);
  });

  it('are centroids of their cells for any number of levels', () => {
    for (const count of [1, 2, 3, 64, 256]) {
      const levels = lloydMax(
        RAMP,
        Float64Array.from({ length: count }, (_, i) => (i + 0.5) / count),
      );
      for (let i = 0; i < count; i++) {
        const from = i === 0 ? 0 : (levels[i - 1] + levels[i]) / 2;
        const to = i === count - 1 ? 1 : (levels[i] + levels[i + 1]) / 2;
        expect(Math.abs(RAMP.moment(from, to, 1) / RAMP.moment(from, to, 0) - levels[i])).toBeLessThan(1e-12);
      }
      const nudged = levels.map((level) => level * (1 + 1e-4));
      expect(scalarError(RAMP, nudged)).toBeGreaterThan(scalarError(RAMP, levels));
    }
    expect(() => normalLloydMax(0)).toThrow(RangeError);
  });
});
