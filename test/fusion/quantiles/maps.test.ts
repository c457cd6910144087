import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  adaptiveMargins,
  crossingPenalty,
  levelMargins,
  marginTable,
} from '../../../src/fusion/quantiles/crossing-penalty.js';
import { centralIntervals, sortLevels } from '../../../src/fusion/quantiles/levels.js';
import { linearPool } from '../../../src/fusion/quantiles/linear-pool.js';
import {
  largestGap,
  NON_CROSSINGS,
  type NonCrossing,
  withoutCrossing,
} from '../../../src/fusion/quantiles/non-crossing.js';
import { meanOf, pinball, pinballByLevel } from '../../../src/fusion/quantiles/pinball.js';
import { levelWeights, pitOf, scoreQuantiles, weightedIntervalScore } from '../../../src/fusion/quantiles/scores.js';
import { softSortRows } from '../../../src/fusion/quantiles/soft-sort.js';
import { aggregate, softmaxColumns } from '../../../src/fusion/quantiles/weight-forms.js';

const value = fc.double({ min: -50, max: 50, noNaN: true });
const rowOf = (m: number) => fc.array(value, { minLength: m, maxLength: m }).map((row) => Float64Array.from(row));
const lossOf = (row: ArrayLike<number>, y: number, levels: ArrayLike<number>): number =>
  Array.from(levels).reduce((sum, level, j) => sum + pinball(level, y - row[j]), 0);
const SYMMETRIC = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95];

describe('maps that end crossings', () => {
  it('sort and isotonic never raise the pinball loss of a sample, nor its weighted interval score', () => {
    const levels = fc.array(fc.double({ min: 0.001, max: 0.999, noNaN: true }), { minLength: 2, maxLength: 9 });
    fc.assert(
      fc.property(levels, fc.infiniteStream(value), value, (given, values, y) => {
        const taus = given.sort((a, b) => a - b);
        const row = Float64Array.from(taus, () => values.next().value as number);
        for (const map of ['sort', 'isotonic'] as const) {
          const mended = withoutCrossing(row, row.length, map);
          expect(lossOf(mended, y, taus)).toBeLessThanOrEqual(lossOf(row, y, taus) + 1e-10);
        }
      }),
      { numRuns: 500 },
    );
    fc.assert(
      fc.property(rowOf(7), value, (row, y) => {
        for (const map of ['sort', 'isotonic'] as const) {
          const mended = withoutCrossing(row, 7, map);
          const before = weightedIntervalScore(row, y, SYMMETRIC);
          expect(weightedIntervalScore(mended, y, SYMMETRIC)).toBeLessThanOrEqual(before + 1e-10);
        }
      }),
    );
  });

  it('every map gives rows that do not cross, and leaves such rows alone', () => {
    fc.assert(
      fc.property(rowOf(6), (row) => {
        for (const map of NON_CROSSINGS.filter((name) => name !== 'none')) {
          const mended = withoutCrossing(row, 6, map);
          for (let j = 1; j < 6; j++) expect(mended[j]).toBeGreaterThanOrEqual(mended[j - 1] - 1e-12);
          const again = withoutCrossing(mended, 6, map);
          for (let j = 0; j < 6; j++) expect(again[j]).toBeCloseTo(mended[j], 10);
        }
      }),
    );
  });

  it('isotonic is the nearest increasing row: no worse than any other one', () => {
    fc.assert(
      fc.property(rowOf(5), rowOf(5), (row, other) => {
        const distance = (to: ArrayLike<number>): number => row.reduce((sum, x, j) => sum + (x - to[j]) ** 2, 0);
        const fit = withoutCrossing(row, 5, 'isotonic');
        expect(distance(fit)).toBeLessThanOrEqual(distance(other.slice().sort()) * (1 + 1e-12) + 1e-9);
      }),
    );
  });

  it('maps what is there of a row with missing cells', () => {
    const mended = withoutCrossing(Float64Array.of(3, Number.NaN, 1, 2), 4, 'sort');
    expect(Array.from(mended)).toEqual([1, Number.NaN, 2, 3]);
    expect(() => withoutCrossing(Float64Array.of(3, Number.NaN), 2, 'sort', 'soft-library')).toThrow('need hard');
  });

  it('the library soft sort is the hard sort up to gaps of 1, the published one up to 1 / epsilon', () => {
    const close = Float64Array.of(0.9, -0.1, 0, 1.9);
    const wide = Float64Array.of(9, 0, 19, 2);
    expect(largestGap(wide, 4)).toBe(10);
    for (const variant of ['library', 'published'] as const) {
      softSortRows(close, 4, 0.1, variant).forEach((x, j) => {
        expect(x).toBeCloseTo([-0.1, 0, 0.9, 1.9][j], 12);
      });
    }
    softSortRows(wide, 4, 0.1, 'published').forEach((x, j) => {
      expect(x).toBeCloseTo([0, 2, 9, 19][j], 12);
    });
    const shrunk = softSortRows(wide, 4, 0.1, 'library');
    for (let j = 1; j < 4; j++) expect(shrunk[j] - shrunk[j - 1]).toBeLessThanOrEqual(1 + 1e-12);
    expect(meanOf(shrunk)).toBeCloseTo(7.5, 12);
  });

  it('the golden maps and scores hold on the quantiles with noise, which no adapter can know', () => {
    const { inputs, expected } = JSON.parse(readFileSync('fixtures/golden/quantile-aggregation/crossing.json', 'utf8'));
    const crossing = Float64Array.from(expected.crossing_prediction.data);
    const m = inputs.tau.length;
    const levels = Float64Array.from(inputs.tau as number[]);
    const y = Float64Array.from(inputs.y.data);
    const maps: readonly (readonly [string, NonCrossing])[] = [
      ['sorted', 'sort'],
      ['isotonic', 'isotonic'],
      ['cummax', 'cummax'],
      ['minmax_sweep_from_median', 'sweep'],
      ['mean_of_cummin_cummax', 'mean-cummin-cummax'],
    ];
    for (const [name, map] of maps) {
      withoutCrossing(crossing, m, map).forEach((q, at) => {
        expect(q).toBeCloseTo(expected[name].data[at], 10);
      });
    }
    for (const [name, map] of Object.entries({ raw: 'none', sorted: 'sort', isotonic: 'isotonic' } as const)) {
      const scores = scoreQuantiles(withoutCrossing(crossing, m, map), y, levels);
      const wanted = expected[`metrics_${name}`];
      expect(scores.meanPinball).toBeCloseTo(wanted.mean_pinball, 10);
      expect(scores.wis).toBeCloseTo(wanted.wis, 10);
      expect(scores.crossingPairs).toBeCloseTo(wanted.crossing_rate, 12);
      expect(scores.rmsCalibrationError).toBeCloseTo(wanted.rms_calibration_error, 12);
      expect(scores.meanCoverageError).toBeCloseTo(wanted.mean_coverage_error, 12);
      scores.intervals.forEach(({ score, coverage }, at) => {
        expect(score).toBeCloseTo(wanted.interval_scores[at], 10);
        expect(coverage).toBeCloseTo(wanted.interval_coverage[at], 12);
      });
    }
    const single = marginTable({ kind: 'single', margin: 0.01 }, m);
    expect(crossingPenalty(crossing, m, single) / y.length).toBeCloseTo(expected['crossing_penalty_margin_0.01'], 10);
    const margins = adaptiveMargins(Float64Array.from(inputs.base.data), y, inputs.base.shape[1], levels);
    const table = marginTable({ kind: 'levels', margins, scale: 0.1 }, m);
    const penalty = crossingPenalty(crossing, m, table) / y.length;
    expect(penalty).toBeCloseTo(expected['crossing_penalty_adaptive_scale_0.1'], 10);
    const smooth = meanOf(pinballByLevel(crossing, y, levels, 0.05));
    expect(smooth).toBeCloseTo(expected['huber_pinball_alpha_0.05'], 10);
    expect(levelMargins([0.1, 0.5])[1]).toBe(0.005);
  });
});

describe('scores', () => {
  it('the weighted interval score is twice the mean pinball loss on symmetric levels', () => {
    fc.assert(
      fc.property(rowOf(7), value, (row, y) => {
        expect(weightedIntervalScore(row, y, SYMMETRIC)).toBeCloseTo((2 * lossOf(row, y, SYMMETRIC)) / 7, 9);
      }),
    );
    expect(weightedIntervalScore([0, 1], 0, [0.1, 0.5])).toBeNaN();
    expect(centralIntervals([0.2, 0.5, 0.6, 0.8, 0.95]).intervals.map(({ lower, upper }) => [lower, upper])).toEqual([
      [0, 3],
    ]);
  });

  it('the approximate CRPS of a normal forecast nears the closed form', () => {
    const m = 199;
    const levels = Float64Array.from({ length: m }, (_, j) => (j + 1) / (m + 1));
    // Logistic law, scale 1: CRPS at y = 0 is 2 ln 2 - 1.
    const row = levels.map((level) => Math.log(level / (1 - level)));
    const scores = scoreQuantiles(row, [0], levels);
    expect(scores.crps).toBeCloseTo(2 * Math.log(2) - 1, 2);
    expect(levelWeights(levels).reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(1, 12);
  });

  it('leaves rows without outcome or with missing quantiles out', () => {
    const scores = scoreQuantiles(Float64Array.of(0, 1, 0, Number.NaN, 0, 1), [0.5, 0.5, Number.NaN], [0.25, 0.75]);
    expect(scores.rows).toBe(1);
    expect(scores.intervals[0]).toEqual({ miscoverage: 0.5, score: 1, coverage: 1, width: 1 });
  });

  it('the probability integral transform is linear between quantiles and even in the tails and on ties', () => {
    const levels = [0.25, 0.5, 0.75];
    expect(pitOf([0, 2, 4], 1, levels, 0.9)).toBeCloseTo(0.375, 12);
    expect(pitOf([0, 2, 4], -1, levels, 0.5)).toBeCloseTo(0.125, 12);
    expect(pitOf([0, 2, 4], 9, levels, 0.5)).toBeCloseTo(0.875, 12);
    expect(pitOf([0, 2, 2], 2, levels, 0.5)).toBeCloseTo(0.625, 12);
  });
});

describe('linear pool', () => {
  it('of one model, and of equal models, is the model', () => {
    const levels = [0.1, 0.4, 0.5, 0.9];
    const row = [0, 1, 1.5, 7];
    const pooled = linearPool([...row, ...row, 9, 9, 9, 9], 0, [0.5, 0.5, 0], levels);
    pooled.forEach((q, j) => {
      expect(q).toBeCloseTo(row[j], 12);
    });
  });

  it('inverts the mean of the distribution functions', () => {
    const m = 19;
    const levels = Array.from({ length: m }, (_, j) => (j + 1) / 20);
    // Uniform laws on [0, 1] and [2, 3]: the mixture is flat between.
    const values = [...levels, ...levels.map((level) => 2 + level)];
    const pooled = linearPool(values, 0, [0.5, 0.5], levels);
    levels.forEach((level, j) => {
      if (level !== 0.5) expect(pooled[j]).toBeCloseTo(level < 0.5 ? 2 * level : 2 + 2 * (level - 0.5), 10);
    });
    expect(pooled[9]).toBeGreaterThanOrEqual(1 - 1e-9);
    expect(pooled[9]).toBeLessThanOrEqual(2 + 1e-9);
  });

  it('takes models that forecast one number, and leaves out those with missing cells', () => {
    const levels = [0.25, 0.5, 0.75];
    expect(Array.from(linearPool([1, 1, 1, 5, 5, 5], 0, [0.5, 0.5], levels))).toEqual([1, 1, 5]);
    expect(Array.from(linearPool([1, 1, 1, 5, Number.NaN, 5], 0, [0.5, 0.5], levels))).toEqual([1, 1, 1]);
    expect(linearPool([Number.NaN], 0, [1], [0.5])[0]).toBeNaN();
  });
});

describe('weights and levels', () => {
  it('renormalises over the models that are there', () => {
    const values = Float64Array.of(1, Number.NaN, 3, Number.NaN, Number.NaN, Number.NaN);
    const forecasts = { values, rows: 2, models: 3, levels: 1 };
    const result = aggregate(forecasts, 'coarse', [0.2, 0.5, 0.3]);
    expect(result[0]).toBeCloseTo((0.2 * 1 + 0.3 * 3) / 0.5, 12);
    expect(result[1]).toBeNaN();
    expect(aggregate(forecasts, 'coarse', [0, 1, 0])[0]).toBe(2);
    expect(softmaxColumns([1000, 1000], 2, 1)[0]).toBe(0.5);
  });

  it('sorts levels, joins equal ones, refuses 0 and 1', () => {
    const sorted = sortLevels([0.9, 0.1, 0.3, 0.1 + 0.2], 'here');
    expect(Array.from(sorted.levels)).toEqual([0.1, 0.3, 0.9]);
    expect(Array.from(sorted.places)).toEqual([2, 0, 1, 1]);
    expect([sorted.wasSorted, sorted.duplicates]).toEqual([false, 1]);
    expect(() => sortLevels([0, 0.5], 'here')).toThrow('here: quantile level 0; levels must lie strictly between');
    expect(() => sortLevels([1], 'here')).toThrow('strictly between 0 and 1');
  });
});
