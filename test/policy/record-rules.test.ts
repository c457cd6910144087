import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createBoundedHeap } from '../../src/policy/bounded-heap.js';
import {
  branchId,
  branchPrefix,
  criticalTokens,
  drawPosition,
  isBranchId,
  isCriticalText,
  randomTokens,
  regenerationGroupSize,
  rewardsByOrigin,
} from '../../src/policy/cure.js';
import { empgSteps, scoreNorms } from '../../src/policy/empg.js';
import { hardnessWeights, signedRewards } from '../../src/policy/hardness-weights.js';
import { filterThinking, pearRecord, phaseMeans } from '../../src/policy/pear.js';
import { emptySamples, recentRound } from '../../src/policy/recent-samples.js';
import { targetedEntropy } from '../../src/policy/targeted-entropy.js';
import { createRandom } from '../../src/random.js';

const nan = Number.NaN;

describe('PEAR', () => {
  it('leaves the marker out of both phases and never reads what is masked out', () => {
    const entropy = Float64Array.of(1, nan, 3, 9, 9, 2, nan);
    const mask = Uint8Array.of(1, 0, 1, 1, 1, 1, 0);
    const means = phaseMeans(entropy, mask, { from: 0, to: 7, markerStart: 3, markerEnd: 4 });
    expect(means).toEqual({ think: 2, answer: 2, thinkTokens: 2, answerTokens: 1 });
  });

  it('takes everything for thinking without a marker, and an empty phase for 0', () => {
    const entropy = Float64Array.of(0, 4, 2);
    const none = { from: 1, to: 3, markerStart: -1, markerEnd: -1 };
    expect(phaseMeans(entropy, undefined, none)).toMatchObject({ think: 3, answer: 0, answerTokens: 0 });
    const last = { from: 1, to: 3, markerStart: 0, markerEnd: 1 };
    expect(phaseMeans(entropy, undefined, last)).toMatchObject({ think: 0, answer: 0, thinkTokens: 0 });
  });

  it('can reward a correct answer less than a wrong one, unless a floor holds it', () => {
    const entropy = Float64Array.of(3, 3, 0);
    const span = { from: 0, to: 3, markerStart: 2, markerEnd: 2 };
    expect(pearRecord(entropy, undefined, span, true)).toMatchObject({ penalty: 3, reward: -2, belowWrong: true });
    expect(pearRecord(entropy, undefined, span, true, { floor: 0.1 })).toMatchObject({
      reward: 0.1,
      belowWrong: false,
    });
    expect(pearRecord(entropy, undefined, span, false, { formatScore: 0.2 })).toMatchObject({
      reward: 0.2,
      belowWrong: false,
    });
  });

  it('keeps shares of whole tokens, those of lowest entropy', () => {
    const kept = filterThinking(Float64Array.of(1, 2, 3, 4, 5));
    expect(kept.map((one) => one.kept)).toEqual([5, 4, 3, 2, 1]);
    expect(kept.map((one) => one.meanEntropy)).toEqual([3, 2.5, 2, 1.5, 1]);
    expect(filterThinking(new Float64Array(0))[0]).toMatchObject({ kept: 0, meanEntropy: 0 });
  });
});

describe('EMPG', () => {
  it('has a mean scale of 1 and a final advantage of mean 0 over steps', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0, max: 8, noNaN: true }), { minLength: 1, maxLength: 20 }), (values) => {
        const offsets = Int32Array.of(0, values.length >> 1, values.length);
        const { scale, final, bonus } = empgSteps(Float64Array.from(values), offsets, Float64Array.of(0.5, -1));
        const mean = (of: Float64Array): number => of.reduce((a, b) => a + b, 0) / of.length;
        expect(mean(scale)).toBeCloseTo(1, 12);
        expect(mean(final)).toBeCloseTo(0, 12);
        expect(bonus[values.length - 1]).toBe(0);
      }),
    );
  });

  it('changes nothing at equal entropies, and refuses what is not a number', () => {
    const equal = empgSteps(Float64Array.of(2, 2), Int32Array.of(0, 2), Float64Array.of(1), { eps: 0 });
    expect([...equal.scale, ...equal.normalised]).toEqual([1, 1, 0, 0]);
    expect(() => empgSteps(new Float64Array(0), Int32Array.of(0), new Float64Array(0))).toThrow(/at least one step/);
    expect(() => empgSteps(Float64Array.of(nan), Int32Array.of(0, 1), Float64Array.of(1))).toThrow(/step 0 is NaN/);
    expect(() => empgSteps(Float64Array.of(1), Int32Array.of(0, 1), Float64Array.of(nan))).toThrow(/trajectory 0/);
  });

  it('has expected squared scores of 1 - exp(-H2)', () => {
    const { expectedSquaredNorm, renyi2 } = scoreNorms(Float64Array.of(0, 1, 2, 5, Number.NEGATIVE_INFINITY, 0), 3);
    expectedSquaredNorm.forEach((value, r) => {
      expect(value).toBeCloseTo(1 - Math.exp(-renyi2[r]), 14);
    });
  });
});

describe('CURE', () => {
  it('ranks as a stable sort does, whatever is masked out', () => {
    const positions = fc.array(fc.record({ h: fc.integer({ min: 0, max: 5 }), ok: fc.boolean(), on: fc.boolean() }));
    fc.assert(
      fc.property(positions, fc.integer({ min: 1, max: 6 }), (tokens, k) => {
        const entropy = Float64Array.from(tokens, ({ h, on }) => (on ? h : nan));
        const mask = Uint8Array.from(tokens, ({ on }) => (on ? 1 : 0));
        const span = { from: 0, to: tokens.length, entropy, mask, eligible: (i: number) => tokens[i].ok };
        const order = Array.from(tokens.keys()).filter((i) => i > 0 && tokens[i].ok && tokens[i].on);
        order.sort((a, b) => tokens[b].h - tokens[a].h || a - b);
        expect([...criticalTokens(span, k)]).toEqual(order.slice(0, k));
        const random = [...randomTokens(span, k, createRandom(1))];
        expect(random).toHaveLength(Math.min(k, order.length));
        for (const t of random) expect(order).toContain(t);
      }),
    );
  });

  it('draws uniformly and falls back to the beginning', () => {
    const critical = Int32Array.of(9, 4, 6);
    const random = createRandom(5);
    const counts = new Map<number, number>();
    for (let i = 0; i < 3000; i++) {
      const position = drawPosition(critical, random);
      counts.set(position, (counts.get(position) ?? 0) + 1);
    }
    for (const t of critical) expect(Math.abs((counts.get(t) ?? 0) - 1000)).toBeLessThan(110);
    expect(drawPosition(critical, { drawn: 1 })).toBe(4);
    expect(() => drawPosition(critical, { drawn: 3 })).toThrow(/draw 3 of 3/);
    expect(drawPosition(new Int32Array(0), random)).toBe(0);
  });

  it('cuts prefixes on the right and says so', () => {
    expect(branchPrefix([1, 2], [3, 4, 5], 2, 9)).toEqual({ prefix: Int32Array.of(1, 2, 3, 4), truncated: false });
    expect(branchPrefix([1, 2], [3, 4, 5], 2, 3)).toEqual({ prefix: Int32Array.of(1, 2, 3), truncated: true });
    expect(regenerationGroupSize(4, 3)).toBe(16);
  });

  it('knows texts of one character and ids of branches', () => {
    expect([' a', '\n', '\u{1f600}', 'so', ' )', '12'].map(isCriticalText)).toEqual([
      false,
      false,
      false,
      true,
      false,
      true,
    ]);
    expect([branchId('a', 2), 'a', 'branch-1'].map(isBranchId)).toEqual([true, false, false]);
    const { originals, branches } = rewardsByOrigin(Float64Array.of(1, nan, 0), (r) => r === 2);
    expect([originals, branches]).toEqual([
      { records: 1, meanReward: 1 },
      { records: 1, meanReward: 0 },
    ]);
  });

  it('has a heap that can be emptied', () => {
    const heap = createBoundedHeap(2);
    for (const [score, position] of [
      [1, 0],
      [3, 1],
      [3, 2],
      [2, 3],
    ])
      heap.offer(score, position);
    expect([...heap.ranked()]).toEqual([1, 2]);
    heap.clear();
    expect(heap.ranked()).toHaveLength(0);
  });
});

describe('Confucius3', () => {
  it('holds entropy from both sides and not at the target', () => {
    const mask = Uint8Array.of(1, 0, 1);
    const term = (mean: number) =>
      targetedEntropy(Float64Array.of(mean, nan, mean), mask, { target: 0.5, coefficient: 0.1 });
    expect(term(0.75)).toEqual({ meanEntropy: 0.75, loss: 0.025, gradient: 0.05 });
    expect(term(0.25).gradient).toBe(-0.05);
    expect(term(0.5)).toMatchObject({ loss: 0, gradient: 0 });
    expect(() => targetedEntropy(Float64Array.of(nan), Uint8Array.of(0))).toThrow(/no valid tokens/);
  });

  it('maps rewards to signs, others only when told', () => {
    expect(signedRewards(Float64Array.of(0, 1), false)).toEqual({ signed: Float64Array.of(-1, 1), mapping: '2r-1' });
    expect(signedRewards(Float64Array.of(-1, 1), false).mapping).toBe('none');
    expect(() => signedRewards(Float64Array.of(0, 0.3), false)).toThrow(/a reward of 0.3.*rescale=yes/);
    expect(() => signedRewards(Float64Array.of(-1, 0, 1), false)).toThrow(/-1, 0 and 1/);
    expect([...signedRewards(Float64Array.of(0, 5, 10), true).signed]).toEqual([-1, 0, 1]);
    expect(() => signedRewards(Float64Array.of(3, 3), true)).toThrow(/every reward is 3/);
  });

  it('weighs groups from 1 (all right) to 1.512 (all wrong), which are left out', () => {
    const { hardness, advantage, excluded } = hardnessWeights(
      Float64Array.of(1, 1, -1, -1),
      Int32Array.of(0, 0, 1, 1),
      2,
    );
    expect(hardness[0]).toBeCloseTo(1, 15);
    expect(hardness[1]).toBeCloseTo(1.512, 15);
    expect([excluded, ...advantage]).toEqual([2, 0, 0, 0, 0]);
  });

  it('uses what was left over first, one update late', () => {
    const groups = (...ids: number[]) => ids.map((id) => ({ id, correct: 1, size: 2 }));
    const first = recentRound(emptySamples<number>(), groups(1, 2, 3), 2);
    const second = recentRound(first.next, groups(4), 2);
    expect(first.used?.map(({ id }) => id)).toEqual([1, 2]);
    expect(second.used).toEqual([
      { id: 3, round: 0 },
      { id: 4, round: 1 },
    ]);
    expect(() => recentRound(second.next, [], 0)).toThrow(/batch of 0/);
  });
});
