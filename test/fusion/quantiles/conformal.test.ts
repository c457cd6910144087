import { describe, expect, it } from 'vitest';
import { conformalOffsets, conformalRank } from '../../../src/fusion/quantiles/conformal.js';
import { calibrate, conformalised } from '../../../src/fusion/quantiles/pipeline.js';
import { createRandom } from '../../../src/random.js';

const SORT = { nonCrossing: 'sort', sort: 'hard' } as const;

describe('conformal intervals', () => {
  it('take the rank that floating point nearly spoils', () => {
    expect(conformalRank(0.9, 9)).toBe(9);
    // 0.7 * 10 is 7.000000000000001 nowhere, but (1 - 0.3) * 10 is 7.
    expect(conformalRank(1 - 0.3, 9)).toBe(7);
    expect(conformalRank(1 - 0.1, 29)).toBe(27);
    expect(conformalRank(0.95, 18)).toBe(19);
  });

  it('cover with probability at least 1 - alpha and at most 1 / (n + 1) more', () => {
    const random = createRandom(1);
    const [n, trials, alpha] = [19, 4000, 0.2];
    for (const asymmetric of [false, true]) {
      let covered = 0;
      for (let trial = 0; trial < trials; trial++) {
        const draw = (): number => random.normal() ** 3;
        const outcomes = Float64Array.from({ length: n }, draw);
        const [lower, upper] = [new Float64Array(n).fill(-0.3), new Float64Array(n).fill(0.2)];
        const offsets = conformalOffsets(lower, upper, outcomes, alpha, asymmetric);
        const y = draw();
        if (y >= -0.3 - offsets.lower && y <= 0.2 + offsets.upper) covered++;
      }
      const noise = 3.5 * Math.sqrt((alpha * (1 - alpha)) / trials);
      expect(covered / trials).toBeGreaterThan(1 - alpha - noise);
      expect(covered / trials).toBeLessThan(1 - alpha + (asymmetric ? 2 : 1) / (n + 1) + noise);
    }
  });

  it('are infinite when the rank exceeds the rows, and rows without outcome do not count', () => {
    const outcomes = Float64Array.of(0, 1, 2, Number.NaN);
    const ends = new Float64Array(4);
    expect(conformalOffsets(ends, ends, outcomes, 0.25, false)).toEqual({ rows: 3, rank: 3, lower: 2, upper: 2 });
    expect(conformalOffsets(ends, ends, outcomes, 0.2, false).upper).toBe(Number.POSITIVE_INFINITY);
    const levels = [0.1, 0.25, 0.5, 0.75, 0.9];
    const flat = Float64Array.from({ length: 20 }, () => 0);
    const done = conformalised(flat, 5, calibrate(flat, outcomes, levels, 'symmetric'), {
      ...SORT,
      nonCrossing: 'isotonic',
    });
    expect(Array.from(done.subarray(0, 5))).toEqual([Number.NEGATIVE_INFINITY, -1, 0, 1, Number.POSITIVE_INFINITY]);
  });

  it('nest again after corrections of different size', () => {
    const levels = [0.1, 0.25, 0.75, 0.9];
    const quantiles = Float64Array.from({ length: 40 }, (_, at) => [-4, -0.1, 0.1, 4][at % 4]);
    const outcomes = Float64Array.from({ length: 10 }, (_, i) => i / 2 - 2);
    const calibration = calibrate(quantiles, outcomes, levels, 'symmetric');
    expect(calibration.intervals[0].offsets.upper).toBeLessThan(0);
    expect(calibration.intervals[1].offsets.upper).toBeGreaterThan(0);
    const done = conformalised(quantiles, 4, calibration, SORT);
    for (let j = 1; j < 4; j++) expect(done[j]).toBeGreaterThanOrEqual(done[j - 1]);
  });
});
