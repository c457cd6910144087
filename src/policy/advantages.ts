import { InputError } from '../errors.js';

/** `grpo` divides by the standard deviation of the group, `no-std` does not. */
export type AdvantageVariant = 'grpo' | 'no-std';

export interface GroupAdvantageOptions {
  /** Default `grpo`. */
  readonly variant?: AdvantageVariant;
  /** Added to the standard deviation. Default 1e-6. */
  readonly eps?: number;
}

interface GroupSums {
  /** [groups]: members with a reward, their mean, sum of squared deviations, least and largest reward. */
  readonly members: Int32Array;
  readonly mean: Float64Array;
  readonly squares: Float64Array;
  readonly least: Float64Array;
  readonly largest: Float64Array;
}

function groupSums(reward: Float64Array, group: Int32Array, groups: number): GroupSums {
  const members = new Int32Array(groups);
  const mean = new Float64Array(groups);
  const squares = new Float64Array(groups);
  const least = new Float64Array(groups).fill(Number.POSITIVE_INFINITY);
  const largest = new Float64Array(groups).fill(Number.NEGATIVE_INFINITY);
  for (let r = 0; r < reward.length; r++) {
    const g = group[r];
    if (!(g >= 0 && g < groups)) throw new InputError(`record ${r} is in group ${g} of ${groups}`);
    const value = reward[r];
    if (Number.isNaN(value)) continue;
    if (!Number.isFinite(value)) throw new InputError(`the reward of record ${r} is ${value}; rewards must be finite`);
    members[g]++;
    mean[g] += value;
    if (value < least[g]) least[g] = value;
    if (value > largest[g]) largest[g] = value;
  }
  for (let g = 0; g < groups; g++) if (members[g] > 0) mean[g] /= members[g];
  for (let r = 0; r < reward.length; r++) {
    if (!Number.isNaN(reward[r])) squares[group[r]] += (reward[r] - mean[group[r]]) ** 2;
  }
  return { members, mean, squares, least, largest };
}

/**
 * Group-relative advantages (GRPO, spec 0.3): (r - mean) / (s + eps), s the sample standard deviation of the group, or
 * r - mean under `no-std`. A group of one has mean 0 and s 1. A group of equal rewards gets 0 exactly, whatever rounding makes
 * of its mean. Records of unknown reward (NaN) get NaN and do not count in their group.
 * @param reward [records].
 * @param group [records], numbers below `groups`.
 * @returns [records].
 * @throws InputError for lengths that differ, a group out of range, or an infinite reward.
 */
export function groupAdvantages(
  reward: Float64Array,
  group: Int32Array,
  groups: number,
  { variant = 'grpo', eps = 1e-6 }: GroupAdvantageOptions = {},
): Float64Array {
  if (reward.length !== group.length)
    throw new InputError(`${reward.length} rewards for ${group.length} group numbers`);
  const { members, mean, squares, least, largest } = groupSums(reward, group, groups);
  return reward.map((value, r) => {
    const g = group[r];
    if (Number.isNaN(value)) return value;
    const single = members[g] === 1;
    if (!single && least[g] === largest[g]) return 0;
    const centred = single ? value : value - mean[g];
    if (variant === 'no-std') return centred;
    return centred / ((single ? 1 : Math.sqrt(squares[g] / (members[g] - 1))) + eps);
  });
}

/** Groups, and those whose every advantage is exactly 0: they move nothing. */
export interface ZeroAdvantageGroups {
  readonly groups: number;
  readonly zero: number;
  /** zero / groups; NaN without groups. */
  readonly fraction: number;
}

/**
 * How many of the groups among `records` (all when absent) have advantages of 0 alone. Records without an advantage (NaN) are
 * left out.
 */
export function zeroAdvantageGroups(
  advantage: Float64Array,
  group: Int32Array,
  records?: Int32Array,
): ZeroAdvantageGroups {
  const moves = new Map<number, boolean>();
  const count = records?.length ?? advantage.length;
  for (let i = 0; i < count; i++) {
    const r = records === undefined ? i : records[i];
    const value = advantage[r];
    if (Number.isNaN(value)) continue;
    moves.set(group[r], value !== 0 || moves.get(group[r]) === true);
  }
  let zero = 0;
  for (const moving of moves.values()) if (!moving) zero++;
  return { groups: moves.size, zero, fraction: zero / moves.size };
}
