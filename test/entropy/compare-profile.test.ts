import { describe, expect, it } from 'vitest';
import type { TokenComparison } from '../../src/entropy/compare.js';
import { compareLogits } from '../../src/entropy/compare.js';
import {
  addToProfile,
  type ComparisonProfile,
  createProfile,
  mergeProfiles,
  profileFromJson,
  profileToJson,
  summarizeProfile,
} from '../../src/entropy/compare-profile.js';
import { createRandom } from '../../src/random.js';

const VOCABULARY = 20;
const ROWS = 200;
const random = createRandom(3);
const logits = (): Float64Array => Float64Array.from({ length: ROWS * VOCABULARY }, () => 3 * random.normal());
const base = logits();
const candidate = logits();
// One row agrees exactly, one has no overlap at all.
candidate.set(base.subarray(0, VOCABULARY));
base.fill(Number.NEGATIVE_INFINITY, VOCABULARY, 2 * VOCABULARY - 1);
candidate[2 * VOCABULARY - 1] = Number.NEGATIVE_INFINITY;
const targets = Int32Array.from({ length: ROWS }, (_, i) => i % VOCABULARY);
const comparison: TokenComparison = compareLogits(base, candidate, VOCABULARY, targets);

function profileOf(rows: readonly number[]): ComparisonProfile {
  const profile = createProfile(5);
  for (const i of rows) {
    const row = { document: i % 7, position: i, contextLength: i };
    addToProfile(profile, comparison, i, row, () => ({
      id: String(i % 7),
      tokenId: targets[i],
      token: '',
      context: '',
      baseTop: '',
      candidateTop: '',
      baseSurprisalNats: comparison.baseSurprisalNats[i],
      candidateSurprisalNats: comparison.candidateSurprisalNats[i],
    }));
  }
  return profile;
}

const all = Array.from({ length: ROWS }, (_, i) => i);

describe('where a comparison differs', () => {
  it('counts every token once, agreement and no overlap apart', () => {
    const { kl_histogram: kl, entropy_change: change } = summarizeProfile(profileOf(all));
    expect(kl.negligible).toBe(1);
    expect(kl.infinite).toBe(1);
    expect(kl.counts.reduce((sum, [, count]) => sum + count, 0)).toBe(ROWS - 2);
    expect(change.counts.reduce((sum, [, , count]) => sum + count, 0)).toBe(ROWS);
    for (const [bin, count] of kl.counts) {
      const inside = [...comparison.klNats].filter(
        (value) => value >= 10 ** (bin / 8) && value < 10 ** ((bin + 1) / 8),
      ).length;
      expect(inside).toBe(count);
    }
  });

  it('lists the most divergent first', () => {
    const { most_divergent: worst } = summarizeProfile(profileOf(all));
    const expected = [...comparison.klNats].sort((a, b) => b - a).slice(0, 5);
    expect(worst.map((token) => token.kl_nats)).toEqual(expected);
    expect(worst[0].kl_nats).toBe(Number.POSITIVE_INFINITY);
  });

  it('is the same from parts that went through JSON, in any order', () => {
    const parts = [0, 1, 2].map((part) => profileOf(all.filter((i) => i % 3 === part)));
    const read = (part: ComparisonProfile): ComparisonProfile =>
      profileFromJson(JSON.parse(JSON.stringify(profileToJson(part))));
    const whole = summarizeProfile(profileOf(all));
    for (const order of [
      [0, 1, 2],
      [2, 0, 1],
    ]) {
      expect(summarizeProfile(mergeProfiles(order.map((i) => read(parts[i]))))).toEqual(whole);
    }
  });
});
