import { describe, expect, it } from 'vitest';
import {
  addWindowMoments,
  createExactMoments,
  type ExactMoments,
  exactMomentMeasures,
  exactMomentsFromJson,
  exactMomentsToJson,
  mergeExactMoments,
} from '../../src/entropy/exact-moments.js';
import { sampleMeasures } from '../../src/entropy/layer-measures.js';
import { createRandom } from '../../src/random.js';

const WIDTH = 12;

/** Windows of hidden states with a large mean and one massive dimension, as residual streams have. */
function windows(count: number, seed = 3): Float32Array[] {
  const random = createRandom(seed);
  return Array.from({ length: count }, (_, w) =>
    Float32Array.from(
      { length: (1 + (w % 7)) * WIDTH },
      (_, i) => (i % WIDTH === 4 ? 900 : 1) * (random.uniform() - 0.3),
    ),
  );
}

function sumOf(parts: readonly Float32Array[]): ExactMoments {
  const moments = createExactMoments(WIDTH);
  for (const part of parts) addWindowMoments(moments, part);
  return moments;
}

describe('exact moments', () => {
  it('give the same bits in any order and any grouping', () => {
    const all = windows(1500);
    const whole = exactMomentsToJson(sumOf(all));
    expect(exactMomentsToJson(sumOf([...all].reverse()))).toEqual(whole);
    const united = createExactMoments(WIDTH);
    for (let part = 2; part >= 0; part--) {
      const shard = exactMomentsToJson(sumOf(all.filter((_, i) => i % 3 === part)));
      mergeExactMoments(united, exactMomentsFromJson(JSON.parse(JSON.stringify(shard)) as typeof shard));
    }
    expect(exactMomentsToJson(united)).toEqual(whole);
    expect(exactMomentMeasures(united, true)).toEqual(exactMomentMeasures(sumOf(all), true));
  });

  it.each([true, false])('have the spectrum of the states themselves, centred %s', (centred) => {
    const all = windows(60);
    const joined = new Float32Array(all.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of all) {
      joined.set(part, at);
      at += part.length;
    }
    const found = exactMomentMeasures(sumOf(all), centred);
    const expected = sampleMeasures(joined, WIDTH, centred);
    expect(found?.effectiveRank).toBeCloseTo(expected.effectiveRank, 9);
    expect(found?.participationRatio).toBeCloseTo(expected.participationRatio, 9);
    expect(found?.topShare).toBeCloseTo(expected.topShare, 10);
  });

  it('have no spectrum where nothing varies', () => {
    const moments = createExactMoments(3);
    expect(exactMomentMeasures(moments, true)).toBeUndefined();
    for (let i = 0; i < 9; i++) addWindowMoments(moments, Float32Array.of(0.1, 0.7, -3));
    expect(exactMomentMeasures(moments, true)).toBeUndefined();
    expect(exactMomentMeasures(moments, false)?.effectiveRank).toBeCloseTo(1, 9);
  });

  it('refuse states beyond their range and damaged parts', () => {
    const moments = createExactMoments(1);
    addWindowMoments(moments, Float32Array.of(1e9));
    expect(() => exactMomentsToJson(moments)).toThrow(/too large/);
    const part = exactMomentsToJson(createExactMoments(2));
    expect(() => exactMomentsFromJson({ ...part, whole: part.whole.slice(0, 8) })).toThrow(/bytes of moments/);
    expect(() => mergeExactMoments(createExactMoments(2), createExactMoments(3))).toThrow(/do not fit/);
  });
});
