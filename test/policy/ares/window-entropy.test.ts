import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  accuracyByTercile,
  bucketOf,
  INITIAL_BUCKETS,
  roundHalfEven,
  updateBuckets,
} from '../../../src/policy/ares/difficulty.js';
import { forkPoints } from '../../../src/policy/ares/fork-points.js';
import { controlKl, initialKl, lowVarianceKl } from '../../../src/policy/ares/kl-controller.js';
import { lengthTargets } from '../../../src/policy/ares/length-target.js';
import { entropyScore, paperReward } from '../../../src/policy/ares/reward.js';
import { batchThreshold, trackedThreshold } from '../../../src/policy/ares/threshold.js';
import { TRIGGER_WORDS } from '../../../src/policy/ares/trigger-words.js';
import { normalisedToken, parseTriggerWords, triggerCounts } from '../../../src/policy/ares/triggers.js';
import {
  countAbove,
  responseThreshold,
  thresholdEntries,
  windowMeans,
  windowRegions,
} from '../../../src/policy/ares/window-entropy.js';

const entropies = fc.array(fc.double({ min: 0, max: 12, noNaN: true }), { minLength: 0, maxLength: 60 });

describe('windows', () => {
  it('are the means of their tokens at every width', () => {
    fc.assert(
      fc.property(entropies, fc.integer({ min: 1, max: 70 }), (values, width) => {
        const means = windowMeans(Float64Array.from(values), width);
        expect(means.length).toBe(Math.max(0, values.length - width + 1));
        means.forEach((mean, t) => {
          const sum = values.slice(t, t + width).reduce((a, b) => a + b, 0);
          expect(mean).toBeCloseTo(sum / width, 12);
        });
      }),
    );
  });

  it('do not drift behind a huge value', () => {
    const values = new Float64Array(1000).fill(0.1);
    values[3] = 1e15;
    expect(windowMeans(values, 4)[900]).toBe(0.1);
  });

  it('refuse a width that is no number of tokens', () => {
    for (const width of [0, -1, 2.5]) expect(() => windowMeans(new Float64Array(4), width)).toThrow(/whole number/);
  });

  it('list one entry a token: the window behind it, the running mean, its own entropy', () => {
    expect([...thresholdEntries(Float64Array.of(1, 2, 3, 4), 2)]).toEqual([2.5, 3.5, 3, 3]);
    expect([...thresholdEntries(Float64Array.of(7), 4)]).toEqual([7]);
    expect(responseThreshold(Float64Array.of(7), 4)).toBe(7);
    expect(responseThreshold(new Float64Array(0), 4)).toBeNaN();
  });

  it('above a threshold form regions', () => {
    const means = Float64Array.of(0, 2, 3, 1, 2);
    expect(windowRegions(means, 1)).toEqual([
      { from: 1, to: 2, peak: 3 },
      { from: 4, to: 4, peak: 2 },
    ]);
    expect(countAbove(means, 1)).toBe(3);
    expect(forkPoints(means, 1, 2, 9).map(({ position }) => position)).toEqual([1, 4]);
    // A region that begins within the last window has no fork of its own, and the budget ends the list.
    expect(forkPoints(means, 1, 4, 9).map(({ position }) => position)).toEqual([1]);
    expect(forkPoints(means, 1, 2, 1)).toHaveLength(1);
  });

  it('track the threshold from its first value', () => {
    expect(batchThreshold(Float64Array.of(3, Number.NaN, 1, 2))).toBe(2);
    expect(batchThreshold(Float64Array.of(3, 1, 1), 'mean')).toBeCloseTo(5 / 3, 15);
    expect(trackedThreshold(undefined, 2)).toBe(2);
    expect(trackedThreshold(2, 3)).toBeCloseTo(2.01, 15);
    expect(trackedThreshold(2, Number.NaN)).toBe(2);
  });
});

describe('triggers', () => {
  it('are words without the marks of tokenizers', () => {
    expect(['\u0120Wait', '\u2581\u2581but ', ' Hmm'].map(normalisedToken)).toEqual(['wait', 'but', 'hmm']);
    expect(parseTriggerWords('# ours\nWait\n\nwait\nhence\n')).toEqual(['wait', 'hence']);
    expect(() => parseTriggerWords('# nothing\n')).toThrow(/empty/);
    expect(new Set(TRIGGER_WORDS).size).toBe(TRIGGER_WORDS.length);
    for (const word of TRIGGER_WORDS) expect(normalisedToken(word)).toBe(word);
  });

  it('count where enough tokens follow', () => {
    const entropy = Float64Array.of(0, 2, 2, 0, 0, 5);
    const counts = triggerCounts(entropy, () => true, 2, 2);
    expect(counts).toEqual({ valid: 2, invalid: 2, softCost: 0.5, positions: Int32Array.of(0, 3) });
    expect(triggerCounts(entropy, () => true, 6, 0).valid).toBe(0);
  });
});

describe('buckets', () => {
  it('are by thirds, the edges easier', () => {
    expect([1, 2 / 3, 4 / 6, 0.5, 1 / 3, 2 / 6, 0.33, 0].map(bucketOf)).toEqual([
      'easy',
      'easy',
      'easy',
      'medium',
      'medium',
      'medium',
      'hard',
      'hard',
    ]);
  });

  it('round halves to even and leave alpha to the residual', () => {
    expect([0.5, 1.5, 2.5, 2.4].map(roundHalfEven)).toEqual([0, 2, 2, 2]);
    const { target, mean, state } = updateBuckets(
      INITIAL_BUCKETS,
      ['easy', 'easy', 'hard'],
      Float64Array.of(3, 4, 2.25),
    );
    expect(mean).toEqual({ easy: 3.5, hard: 2.25 });
    expect(target).toEqual({ easy: 4, hard: 2 });
    expect(state.alpha.easy).toBeCloseTo(0.5 - 0.025, 15);
    expect(state.alpha.hard).toBeCloseTo(0.5 - 0.0125, 15);
    expect(state.alpha.medium).toBe(0.5);
    const next = updateBuckets(state, ['easy'], Float64Array.of(13.5), 0.9);
    expect(next.state.target.easy).toBeCloseTo(4.5, 12);
    expect(next.target.hard).toBe(2);
  });

  it('have accuracy in three bins of counts, the last closed', () => {
    const bins = accuracyByTercile(Float64Array.of(0, 1, 5, 9, 10), Float64Array.of(1, 0, 1, Number.NaN, 0));
    expect(bins).toEqual([
      { low: 0, high: 3, records: 2, accuracy: 0.5 },
      { low: 3, high: 6, records: 1, accuracy: 1 },
      { low: 6, high: 10, records: 2, accuracy: 0 },
    ]);
    expect(accuracyByTercile(Float64Array.of(2, 2), Float64Array.of(1, 0)).map((bin) => bin.records)).toEqual([
      0, 0, 2,
    ]);
    expect(accuracyByTercile(Float64Array.of(2), Float64Array.of(1))[0].accuracy).toBeNaN();
  });
});

describe('rewards', () => {
  it('of the code pay a wrong answer that explores nothing', () => {
    const wrong = { correct: false, count: 0, target: 8, alpha: 1 } as const;
    expect(entropyScore({ ...wrong, bucket: 'easy' })).toBeCloseTo(0.3, 15);
    expect(entropyScore({ ...wrong, bucket: 'medium' })).toBeCloseTo(0.4, 15);
    expect(entropyScore({ ...wrong, bucket: 'hard' })).toBeCloseTo(0.6, 15);
  });

  it('of the paper skip empty buckets and survive constant counts', () => {
    const batch = {
      bucket: ['easy', 'easy', 'medium'] as const,
      count: Float64Array.of(3, 3, 9),
      accuracy: Float64Array.of(1, 0, 0),
      target: { easy: 2, hard: 5 },
    };
    const { lambda, reward } = paperReward(batch);
    expect(lambda).toEqual({ easy: 1 / 1e-8, medium: 0, hard: 0 });
    expect([...reward]).toEqual([1, -1e8, 0]);
  });
});

describe('KL', () => {
  it('weights move at calls that the interval divides, outside of the dead zone', () => {
    let state = controlKl(initialKl(), 0.0101, 100);
    expect(state.beta).toBe(1);
    state = controlKl(state, 1, 101);
    expect(state.beta).toBe(1);
    expect(controlKl(state, 1, 200).beta).toBeGreaterThan(1);
  });

  it('has the gradient of its estimate, and none where a bound holds', () => {
    const step = 1e-6;
    const { gradient } = lowVarianceKl(-1, -0.4);
    const slope = (lowVarianceKl(-1 + step, -0.4).value - lowVarianceKl(-1 - step, -0.4).value) / (2 * step);
    expect(gradient).toBeCloseTo(slope, 7);
    expect(lowVarianceKl(-50, 0)).toEqual({ value: 10, gradient: 0 });
    expect(lowVarianceKl(0, -50).gradient).toBe(0);
  });
});

it('length targets fall in the pass rate and keep the nearest of each eighth', () => {
  const { longest, shortest, target, kept } = lengthTargets({
    passRate: Float64Array.of(0, 0, 0.5, 0.5, 0.5, 1),
    length: [100, 200, 90, 95, 60, 40],
    perBin: 1,
  });
  expect([longest, shortest]).toEqual([150, 40]);
  expect(target[2]).toBe(95);
  expect([...kept]).toEqual([1, 0, 0, 1, 0, 1]);
  expect(() => lengthTargets({ passRate: Float64Array.of(0.5), length: [3], perBin: 1 })).toThrow(/pass rate 0/);
});
