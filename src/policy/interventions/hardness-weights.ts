import { InputError } from '../../errors.js';
import { AGGREGATIONS } from '../aggregation.js';
import { type HardnessWeights, signedRewards, hardnessWeights as weighGroups } from '../hardness-weights.js';
import type { RolloutIndex, RolloutStep } from '../rollouts/types.js';
import { advantageEffect, placesOf, type StepGroups, stepGroups } from './record-effects.js';
import { aggregationOf, choiceSetting, LOSS_PARAMETERS, numberSetting, surrogateOf } from './settings.js';
import type { Intervention, InterventionParameter, InterventionSettings } from './types.js';

/** The method sums the losses of tokens: long responses weigh as much as their tokens. */
const SUMMED: InterventionParameter = {
  kind: 'choice',
  initial: 'token-sum',
  choices: AGGREGATIONS,
  help: 'how the losses of tokens become one number',
};

export interface HardnessStep extends HardnessWeights {
  readonly groups: StepGroups;
  readonly mapping: string;
}

/** Rewards of +1 and -1 of a step, and the weights of its groups. */
export function hardnessStep(step: RolloutStep, index: RolloutIndex, settings: InterventionSettings): HardnessStep {
  const source = index.reward ?? index.correct;
  if (source === undefined)
    throw new InputError('hardness-weights needs rewards: --map reward=COLUMN or --map correct=COLUMN');
  const reward = Float64Array.from(step.records, (record) => source[record]);
  const unknown = reward.findIndex(Number.isNaN);
  if (unknown >= 0) throw new InputError(`hardness-weights: record ${step.records[unknown]} has no reward`);
  const { signed, mapping } = signedRewards(reward, choiceSetting(settings, 'rescale') === 'yes');
  const groups = stepGroups(step, index);
  const options = { alpha: numberSetting(settings, 'alpha'), bias: numberSetting(settings, 'bias') };
  return { ...weighGroups(signed, groups.group, groups.groups, options), groups, mapping };
}

/** Advantages weighted by how hard a prompt is for the policy; a sum over tokens. */
export const hardnessWeights: Intervention = {
  name: 'hardness-weights',
  title: 'Confucius3: policy-specific hardness weighting',
  reference: 'Confucius3-Math (2025, arXiv 2506.18330); spec 7.2',
  needs: ['reward'],
  parameters: {
    alpha: { kind: 'number', initial: -0.256, help: 'slope of the weight in the mean reward of the group' },
    bias: { kind: 'number', initial: 1.256, help: 'weight of a group of mean reward 0' },
    rescale: {
      kind: 'choice',
      initial: 'no',
      choices: ['no', 'yes'],
      help: 'map the range of other rewards than +1/-1 and 0/1 to [-1, 1]',
    },
    ...LOSS_PARAMETERS,
    aggregation: SUMMED,
  },
  prepare(step, settings, { index, plain }) {
    const places = placesOf(step);
    const { advantage, groups, excluded, hardness } = hardnessStep(step, index, settings);
    const loss = { surrogate: surrogateOf(settings), aggregation: aggregationOf(settings), plain };
    let [least, most] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    for (const value of hardness) {
      least = Math.min(least, value);
      most = Math.max(most, value);
    }
    return {
      effect: (block) => advantageEffect(block, places, advantage, loss),
      facts: {
        groups: groups.groups,
        groups_excluded: excluded,
        hardness_least: least,
        hardness_most: most,
      },
      warnings: [],
    };
  },
};
