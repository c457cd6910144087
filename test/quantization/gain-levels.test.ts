import { describe, expect, it } from 'vitest';
import { DATA_SAMPLE, dataLevels, gainError, gainLevels, gainMoments } from '../../src/quantization/gain-levels.js';
import { createRandom } from '../../src/random.js';

/** Sum of squared distances to the nearest level. */
const squares = (values: ArrayLike<number>, levels: Float64Array): number =>
  Array.from(values).reduce((sum, value) => sum + Math.min(...levels.map((level) => (value - level) ** 2)), 0);

/** Least sum of squares over all ways to cut sorted values into `count` runs. */
function bestByTrying(sorted: readonly number[], count: number): number {
  const cost = (run: readonly number[]): number => {
    const mean = run.reduce((a, b) => a + b, 0) / run.length;
    return run.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  };
  if (count === 1) return cost(sorted);
  let best = Number.POSITIVE_INFINITY;
  for (let cut = 1; cut + count - 1 <= sorted.length; cut++) {
    best = Math.min(best, cost(sorted.slice(0, cut)) + bestByTrying(sorted.slice(cut), count - 1));
  }
  return best;
}

describe('levels from the law of the gain', () => {
  it('are uniform where the gain is: one coordinate of three', () => {
    for (const count of [1, 2, 5, 16, 64, 256]) {
      const middles = Float64Array.from({ length: count }, (_, i) => (i + 0.5) / count);
      const lloyd = gainLevels('lloyd', 1, 3, count);
      const quantile = gainLevels('quantile', 1, 3, count);
      for (let i = 0; i < count; i++) {
        // A few roundings of a tail, 2e-16, in a cell's mass of 1 / count, times the condition count^2 / pi^2.
        expect(Math.abs(lloyd[i] - middles[i])).toBeLessThan(2e-14 + 1e-16 * count ** 3);
        expect(Math.abs(quantile[i] / middles[i] - 1)).toBeLessThan(1e-12);
      }
      expect(gainError(lloyd, 1, 3) * 12 * count ** 2).toBeCloseTo(1, 8);
    }
  });

  it('follow closed forms for two coordinates of four: density 2r', () => {
    const quantile = gainLevels('quantile', 2, 4, 8);
    for (let i = 0; i < 8; i++) expect(quantile[i]).toBeCloseTo(Math.sqrt((i + 0.5) / 8), 13);
    expect(gainMoments(2, 4)).toEqual({ mean: expect.closeTo(2 / 3, 13), square: 0.5 });
    // One level is the mean, and its error the variance.
    expect(gainLevels('lloyd', 2, 4, 1)[0]).toBeCloseTo(2 / 3, 13);
    expect(gainError(Float64Array.of(2 / 3), 2, 4)).toBeCloseTo(1 / 18, 13);
    expect(gainError(Float64Array.of(0), 2, 4)).toBeCloseTo(0.5, 14);
  });

  it('have the relative errors of the specification for rows of 4096', () => {
    const expected: readonly (readonly [number, number, number, number, number])[] = [
      [8, 2, 0.0216, 0.0286, 0.0227],
      [8, 8, 0.002, 0.00224, 0.00334],
      [16, 2, 0.01105, 0.01493, 0.01155],
      [16, 16, 2.8e-4, 3.0e-4, 6.9e-4],
      [128, 4, 4.4e-4, 5.5e-4, 5.5e-4],
    ];
    for (const [length, count, ...errors] of expected) {
      (['lloyd', 'compander', 'quantile'] as const).forEach((policy, i) => {
        const error = gainError(gainLevels(policy, length, 4096, count), length, 4096) / (length / 4096);
        expect(Math.abs(error / errors[i] - 1)).toBeLessThan(0.02);
      });
    }
  });

  it('ascend, and are the centroids of their cells, for every shape of rows', () => {
    for (const [length, columns] of [
      [1, 2],
      [1, 4096],
      [4, 5],
      [8, 9],
      [16, 17],
      [16, 18],
      [64, 65],
      [16, 28672],
      [256, 28672],
      [256, 257],
    ]) {
      for (const count of [2, 16, 64]) {
        const levels = gainLevels('lloyd', length, columns, count);
        const error = gainError(levels, length, columns);
        for (let i = 0; i < count; i++) {
          expect(levels[i]).toBeGreaterThan(i === 0 ? 0 : levels[i - 1]);
          expect(levels[i]).toBeLessThanOrEqual(1);
        }
        for (const policy of ['compander', 'quantile'] as const) {
          expect(gainError(gainLevels(policy, length, columns, count), length, columns)).toBeGreaterThan(error);
        }
        for (const at of [0, count >> 1, count - 1]) {
          const gap = at === 0 ? levels[1] - levels[0] : levels[at] - levels[at - 1];
          for (const change of [-0.01 * gap, 0.01 * gap]) {
            const moved = levels.map((level, i) => (i === at ? level + change : level));
            expect(gainError(moved, length, columns)).toBeGreaterThanOrEqual(error * (1 - 1e-7));
          }
        }
      }
    }
  });

  it('are all one where a group is a whole row', () => {
    for (const columns of [16, 10]) {
      for (const policy of ['lloyd', 'compander', 'quantile'] as const) {
        expect(gainLevels(policy, 16, columns, 4)).toEqual(new Float64Array(4).fill(1));
      }
      expect(gainMoments(16, columns)).toEqual({ mean: 1, square: 1 });
    }
    expect(gainError(Float64Array.of(0.5, 0.75), 16, 16)).toBe(0.0625);
  });

  it('refuse sizes that are none and levels that fall', () => {
    expect(() => gainLevels('lloyd', 0, 16, 2)).toThrow('no gain has 2 levels for groups of 0 in rows of 16');
    expect(() => gainLevels('lloyd', 4, 16, 0)).toThrow(RangeError);
    expect(() => gainError(Float64Array.of(0.5, 0.4), 4, 16)).toThrow('gain level 1 is below the one before');
  });
});

describe('levels from amplitudes', () => {
  it('are the best that any cut of the values gives', () => {
    const random = createRandom(8);
    for (let trial = 0; trial < 30; trial++) {
      const values = Float64Array.from({ length: 2 + random.integer(9) }, () =>
        trial % 2 === 0 ? random.uniform() : random.integer(4),
      );
      const sorted = [...values].sort((a, b) => a - b);
      const distinct = new Set(sorted).size;
      for (let count = 1; count <= 5; count++) {
        const levels = dataLevels(values, count);
        expect(levels.length).toBe(count);
        expect(squares(values, levels)).toBeCloseTo(bestByTrying(sorted, Math.min(count, distinct)), 12);
        for (let i = 1; i < count; i++) expect(levels[i]).toBeGreaterThanOrEqual(levels[i - 1]);
      }
    }
  });

  it('come near those of the law on amplitudes of that law', () => {
    const random = createRandom(9);
    const [length, columns] = [8, 64];
    const amplitudes = new Float32Array(2 * DATA_SAMPLE);
    for (let g = 0; g < amplitudes.length; g += columns / length) {
      const row = Float64Array.from({ length: columns }, () => random.normal());
      const norm = Math.hypot(...row);
      for (let k = 0; k < columns / length; k++) {
        amplitudes[g + k] = Math.hypot(...row.subarray(k * length, (k + 1) * length)) / norm;
      }
    }
    const fitted = dataLevels(amplitudes, 8);
    const law = gainLevels('lloyd', length, columns, 8);
    for (let i = 0; i < 8; i++) expect(Math.abs(fitted[i] / law[i] - 1)).toBeLessThan(0.03);
    expect(gainError(fitted, length, columns) / gainError(law, length, columns)).toBeLessThan(1.01);
    expect(dataLevels(amplitudes, 8)).toEqual(fitted);
  });

  it('repeat the greatest where values are few, and refuse none', () => {
    expect(dataLevels(Float32Array.of(2, 2, 2), 4)).toEqual(Float64Array.of(2, 2, 2, 2));
    expect(dataLevels(Float32Array.of(1, 2, 1), 4)).toEqual(Float64Array.of(1, 2, 2, 2));
    expect(() => dataLevels(new Float32Array(0), 2)).toThrow('levels of no amplitudes');
    expect(() => dataLevels(Float32Array.of(1, Number.NaN), 2)).toThrow('amplitude 1 is NaN');
  });
});
