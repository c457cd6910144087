import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { positionBin, positionBinRange } from '../../src/entropy/binning.js';
import { addExact, type ExactSum, mergeExact, totalOf } from '../../src/entropy/exact-sum.js';
import { bootstrapDocuments } from '../../src/linalg/bootstrap.js';
import {
  addToSketch,
  createQuantileSketch,
  mergeSketch,
  QUANTILE_RELATIVE_ERROR,
  quantileOfSorted,
  quantilesOf,
  sketchFromJson,
  sketchToJson,
} from '../../src/linalg/quantile-sketch.js';
import { createRandom } from '../../src/random.js';

describe('exact sums', () => {
  it('keep what cancels', () => {
    const sum: ExactSum = [];
    for (const value of [1e100, 1, -1e100, 1e-30, 2 ** 53, 1, -(2 ** 53)]) addExact(sum, value);
    expect(totalOf(sum)).toBe(2);
    for (const value of [-1, -1]) addExact(sum, value);
    expect(totalOf(sum)).toBe(1e-30);
  });

  it('round half-way totals by what lies below', () => {
    const sum: ExactSum = [];
    for (const value of [1, 2 ** -53, 2 ** -106]) addExact(sum, value);
    expect(totalOf(sum)).toBe(1 + 2 ** -52);
  });

  it('give the same bits in any order and grouping', () => {
    const value = fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e200, max: 1e200 });
    fc.assert(
      fc.property(fc.array(value, { maxLength: 60 }), fc.nat(), (values, pick) => {
        const forward: ExactSum = [];
        for (const x of values) addExact(forward, x);
        const cut = values.length === 0 ? 0 : pick % values.length;
        const left: ExactSum = [];
        const right: ExactSum = [];
        for (const x of values.slice(cut).reverse()) addExact(left, x);
        for (const x of values.slice(0, cut)) addExact(right, x);
        mergeExact(left, right);
        expect(totalOf(left)).toBe(totalOf(forward));
      }),
    );
  });
});

describe('quantile sketch', () => {
  const random = createRandom(5);
  const values = Array.from({ length: 3000 }, () => Math.exp(2 * random.normal()) * (random.uniform() < 0.2 ? -1 : 1));

  it('is exact while few: linear interpolation at f (n - 1)', () => {
    const sketch = createQuantileSketch();
    for (const value of [4, 1, 3, 2]) addToSketch(sketch, value);
    expect(quantilesOf(sketch, [0, 0.5, 0.9, 1])).toEqual([1, 2.5, expect.closeTo(3.7, 12), 4]);
  });

  it('stays within its stated error beyond', () => {
    const sketch = createQuantileSketch(100);
    for (const value of values) addToSketch(sketch, value);
    const sorted = Float64Array.from(values).sort();
    expect(sketch.exact).toBeNull();
    for (let f = 0; f <= 1; f += 0.01) {
      const position = f * (sorted.length - 1);
      const [low, high] = [sorted[Math.floor(position)], sorted[Math.ceil(position)]];
      const [got] = quantilesOf(sketch, [f]);
      const error = QUANTILE_RELATIVE_ERROR * 1.0001;
      expect(got).toBeGreaterThanOrEqual(low - error * Math.abs(low));
      expect(got).toBeLessThanOrEqual(high + error * Math.abs(high));
    }
  });

  it('merges to the state of one pass, through JSON, exact or not', () => {
    for (const limit of [100, 10_000]) {
      const whole = createQuantileSketch(limit);
      for (const value of values) addToSketch(whole, value);
      addToSketch(whole, Number.POSITIVE_INFINITY);
      const parts = [0, 1, 2].map((shard) => {
        const part = createQuantileSketch(limit);
        values.forEach((value, i) => {
          if (i % 3 === shard) addToSketch(part, value);
        });
        if (shard === 1) addToSketch(part, Number.POSITIVE_INFINITY);
        return sketchFromJson(JSON.parse(JSON.stringify(sketchToJson(part))));
      });
      const merged = createQuantileSketch(limit);
      for (const part of parts.reverse()) mergeSketch(merged, part);
      const fractions = [0, 0.001, 0.1, 0.5, 0.77, 0.9999, 1];
      expect(quantilesOf(merged, fractions)).toEqual(quantilesOf(whole, fractions));
    }
  });

  it('ranks infinite values and refuses NaN', () => {
    const sketch = createQuantileSketch(2);
    for (const value of [1, 2, 3, Number.POSITIVE_INFINITY]) addToSketch(sketch, value);
    expect(quantilesOf(sketch, [1])).toEqual([Number.POSITIVE_INFINITY]);
    expect(quantilesOf(sketch, [0.5])[0]).toBeCloseTo(2.5, 2);
    expect(() => addToSketch(sketch, Number.NaN)).toThrow(RangeError);
    expect(quantilesOf(createQuantileSketch(), [0.5])[0]).toBeNaN();
  });

  it('interpolates without turning infinite ends into NaN', () => {
    expect(quantileOfSorted([1, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY], 0.75)).toBe(
      Number.POSITIVE_INFINITY,
    );
    expect(quantileOfSorted([], 0.5)).toBeNaN();
  });
});

describe('position bins', () => {
  it('tile the positions without gap or overlap', () => {
    let next = 0;
    for (let bin = 0; next < 300_000; bin++) {
      const { first, last } = positionBinRange(bin);
      expect(first).toBe(next);
      expect([positionBin(first), positionBin(last)]).toEqual([bin, bin]);
      next = last + 1;
    }
  });
});

describe('document bootstrap', () => {
  it('covers the mean as often as it says', () => {
    // Documents of independent values: the percentile interval of the mean covers it in about 95 % of the trials.
    const random = createRandom(11);
    let covered = 0;
    const trials = 200;
    for (let trial = 0; trial < trials; trial++) {
      const sums = new Float64Array(80);
      for (let d = 0; d < 40; d++) {
        sums[2 * d] = 3 + random.normal();
        sums[2 * d + 1] = 1;
      }
      const { intervals } = bootstrapDocuments(sums, 2, [(t) => t[0] / t[1]], { seed: trial, resamples: 300 });
      if (intervals !== undefined && intervals[0].low <= 3 && intervals[0].high >= 3) covered++;
    }
    expect(covered / trials).toBeGreaterThan(0.88);
    expect(covered / trials).toBeLessThan(0.99);
  });

  it('gives the standard error of a mean, the same for the same seed', () => {
    const random = createRandom(2);
    const sums = new Float64Array(2000);
    for (let d = 0; d < 1000; d++) {
      sums[2 * d] = random.normal();
      sums[2 * d + 1] = 1;
    }
    const run = () => bootstrapDocuments(sums, 2, [(t) => t[0] / t[1]], { seed: 7 });
    expect(run()).toEqual(run());
    expect(run().intervals?.[0].se).toBeCloseTo(1 / Math.sqrt(1000), 2);
  });

  it('has no interval for one document, and draws blocks of many', () => {
    expect(bootstrapDocuments(Float64Array.of(1), 1, [(t) => t[0]], { seed: 1 }).intervals).toBeUndefined();
    const many = new Float64Array(1000).fill(1);
    const drawn = bootstrapDocuments(many, 1, [(t) => t[0]], { seed: 1, maximumBlocks: 100, resamples: 20 });
    expect(drawn.units).toBe(100);
    expect(drawn.intervals?.[0]).toMatchObject({ low: 1000, high: 1000 });
  });
});
