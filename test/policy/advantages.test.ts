import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { groupAdvantages, zeroAdvantageGroups } from '../../src/policy/advantages.js';

describe('groupAdvantages', () => {
  it('is the standardised reward of a group', () => {
    const advantage = groupAdvantages(Float64Array.of(1, 0, 0, 1), Int32Array.of(0, 0, 0, 0), 1);
    const s = Math.sqrt(1 / 3);
    expect([...advantage]).toEqual([0.5, -0.5, -0.5, 0.5].map((centred) => expect.closeTo(centred / (s + 1e-6), 14)));
  });

  it('gives exactly 0 where all rewards of a group are equal, whatever rounding does to the mean', () => {
    const reward = new Float64Array(7).fill(0.1);
    expect([...groupAdvantages(reward, new Int32Array(7), 1)]).toEqual(new Array(7).fill(0));
    expect([...groupAdvantages(reward, new Int32Array(7), 1, { variant: 'no-std' })]).toEqual(new Array(7).fill(0));
  });

  it('keeps the reward of a group of one', () => {
    const [grpo] = groupAdvantages(Float64Array.of(0.7), Int32Array.of(0), 1);
    const [plain] = groupAdvantages(Float64Array.of(0.7), Int32Array.of(0), 1, { variant: 'no-std' });
    expect(grpo).toBe(0.7 / (1 + 1e-6));
    expect(plain).toBe(0.7);
  });

  it('leaves out records of unknown reward', () => {
    const advantage = groupAdvantages(Float64Array.of(1, Number.NaN, 0), new Int32Array(3), 1, { variant: 'no-std' });
    expect([...advantage]).toEqual([0.5, Number.NaN, -0.5]);
  });

  it('refuses what cannot be', () => {
    expect(() => groupAdvantages(Float64Array.of(1), Int32Array.of(0, 0), 1)).toThrow(InputError);
    expect(() => groupAdvantages(Float64Array.of(1), Int32Array.of(1), 1)).toThrow(InputError);
    expect(() => groupAdvantages(Float64Array.of(Number.POSITIVE_INFINITY), Int32Array.of(0), 1)).toThrow('record 0');
  });
});

describe('zeroAdvantageGroups', () => {
  it('counts groups that move nothing', () => {
    const group = Int32Array.of(0, 0, 1, 1, 2);
    const advantage = groupAdvantages(Float64Array.of(1, 1, 0, 1, 0), group, 3);
    expect(zeroAdvantageGroups(advantage, group)).toEqual({ groups: 3, zero: 2, fraction: 2 / 3 });
    expect(zeroAdvantageGroups(advantage, group, Int32Array.of(2, 3)).fraction).toBe(0);
  });
});
