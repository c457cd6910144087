import { InputError } from '../errors.js';

/** Policy-specific hardness weighting (spec 7.2): D = alpha mu + bias. */
export interface HardnessSettings {
  /** Default -0.256. */
  readonly alpha?: number;
  /** Default 1.256. */
  readonly bias?: number;
}

export interface HardnessWeights {
  /** [groups]: mean reward in [-1, 1] and weight D; NaN for a group without known rewards. */
  readonly mean: Float64Array;
  readonly hardness: Float64Array;
  /** [records]: (R - mu) D; 0 in groups that are all right or all wrong; NaN where the reward is not known. */
  readonly advantage: Float64Array;
  /** Groups that are all right or all wrong: they are left out of training. */
  readonly excluded: number;
}

/**
 * Rewards as +1 and -1, which the constants of the method are for: {0, 1} are mapped by 2 r - 1. Other values are an error, or
 * are mapped from their range to [-1, 1] under `rescale`.
 * @throws InputError for other values without `rescale`, or where all known rewards are one value under it.
 */
export function signedRewards(reward: Float64Array, rescale: boolean): { signed: Float64Array; mapping: string } {
  const known = reward.filter((value) => !Number.isNaN(value));
  if (known.every((value) => value === 1 || value === -1)) return { signed: reward.slice(), mapping: 'none' };
  if (known.every((value) => value === 0 || value === 1))
    return { signed: reward.map((value) => 2 * value - 1), mapping: '2r-1' };
  const odd = known.find((value) => value !== 0 && value !== 1 && value !== -1) ?? -1;
  if (!rescale) {
    throw new InputError(
      `hardness weights are for rewards of +1/-1 or 0/1, and ${odd === -1 ? 'there are -1, 0 and 1' : `there is a reward of ${odd}`}; ` +
        'the setting rescale=yes maps the range of the rewards to [-1, 1]',
    );
  }
  let least = Number.POSITIVE_INFINITY;
  let most = Number.NEGATIVE_INFINITY;
  for (const value of known) {
    least = Math.min(least, value);
    most = Math.max(most, value);
  }
  if (!(Number.isFinite(least) && Number.isFinite(most)))
    throw new InputError(`hardness weights: rewards lie between ${least} and ${most}; they must be finite`);
  if (least === most)
    throw new InputError(`hardness weights: every reward is ${least}, which no scale takes to [-1, 1]`);
  const signed = reward.map((value) => (2 * (value - least)) / (most - least) - 1);
  return { signed, mapping: `[${least}, ${most}] to [-1, 1]` };
}

/**
 * Advantages (R - mu) D without division by the deviation and without normalisation by length: losses are summed over tokens.
 * @param signed [records], rewards in [-1, 1]; NaN where they are not known.
 * @param group [records], numbers below `groups`.
 */
export function hardnessWeights(
  signed: Float64Array,
  group: Int32Array,
  groups: number,
  { alpha = -0.256, bias = 1.256 }: HardnessSettings = {},
): HardnessWeights {
  const sum = new Float64Array(groups);
  const members = new Int32Array(groups);
  const least = new Float64Array(groups).fill(Number.POSITIVE_INFINITY);
  const most = new Float64Array(groups).fill(Number.NEGATIVE_INFINITY);
  for (let r = 0; r < signed.length; r++) {
    if (Number.isNaN(signed[r])) continue;
    const g = group[r];
    sum[g] += signed[r];
    members[g]++;
    least[g] = Math.min(least[g], signed[r]);
    most[g] = Math.max(most[g], signed[r]);
  }
  const mean = sum.map((total, g) => total / members[g]);
  const hardness = mean.map((mu) => alpha * mu + bias);
  let excluded = 0;
  for (let g = 0; g < groups; g++) if (members[g] > 0 && least[g] === most[g]) excluded++;
  const advantage = signed.map((value, r) => {
    const g = group[r];
    if (Number.isNaN(value)) return value;
    return least[g] === most[g] ? 0 : (value - mean[g]) * hardness[g];
  });
  return { mean, hardness, advantage, excluded };
}
