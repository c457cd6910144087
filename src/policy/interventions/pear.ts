import { InputError } from '../../errors.js';
import { meanOf } from '../compensated-sum.js';
import { type PearRecord, type PearSettings, pearRecord } from '../pear.js';
import type { RolloutIndex, RolloutStep, TokenBlock } from '../rollouts/types.js';
import {
  ADVANTAGE_PARAMETER,
  advantageEffect,
  advantageVariantOf,
  ENTROPY_PARAMETER,
  eachRecord,
  entropiesOf,
  placesOf,
  type StepGroups,
  stepAdvantages,
  stepCorrect,
  stepGroups,
} from './record-effects.js';
import { aggregationOf, choiceSetting, LOSS_PARAMETERS, numberSetting, surrogateOf } from './settings.js';
import type { Intervention, InterventionSettings } from './types.js';

/** Below every penalty: entropies are at most the logarithm of a vocabulary. */
const NO_FLOOR = -1e9;

/** PEAR on a whole step: everything in the order of its records. */
export interface PearStep {
  readonly records: readonly PearRecord[];
  readonly correct: Uint8Array;
  readonly groups: StepGroups;
  readonly reward: Float64Array;
  /** Advantages of the rewards with the penalty and without it. */
  readonly advantage: Float64Array;
  readonly before: Float64Array;
  /** Correct answers whose advantage is negative with the penalty and was not without. */
  readonly flips: number;
  readonly withoutMarker: number;
}

export function pearSettingsOf(settings: InterventionSettings): PearSettings {
  return {
    alpha: numberSetting(settings, 'alpha'),
    baseScore: numberSetting(settings, 'base-score'),
    formatScore: numberSetting(settings, 'format-score'),
    floor: numberSetting(settings, 'floor'),
  };
}

/** Range and marker of a record in a block. */
export function phaseSpanOf(index: RolloutIndex, record: number, from: number, to: number) {
  const markerEnd = index.thinkEnd?.[record] ?? -1;
  return { from, to, markerEnd, markerStart: index.thinkMarkerStart?.[record] ?? markerEnd };
}

/**
 * Phase means, rewards and advantages of a step.
 * @param use is shown every record of a block, for what else is to be read from its tokens
 */
export function pearStep(
  step: RolloutStep,
  index: RolloutIndex,
  settings: InterventionSettings,
  use?: (record: number, result: PearRecord, block: TokenBlock, from: number, to: number) => void,
): PearStep {
  if (index.thinkEnd === undefined) {
    throw new InputError(
      'pear needs the end of thinking: --think-marker gives its text or ids, or --map think_end=COLUMN its position',
    );
  }
  const { thinkEnd } = index;
  const options = pearSettingsOf(settings);
  const which = choiceSetting(settings, 'entropy');
  const correct = stepCorrect(step, index, 'pear');
  const places = placesOf(step);
  const records: PearRecord[] = new Array(step.records.length);
  for (const block of step.blocks()) {
    const entropy = entropiesOf(block, which, 'pear');
    eachRecord(block, (record, from, to) => {
      const place = places.get(record) ?? 0;
      const span = phaseSpanOf(index, record, from, to);
      records[place] = pearRecord(entropy, block.mask, span, correct[place] === 1, options);
      use?.(record, records[place], block, from, to);
    });
  }
  const groups = stepGroups(step, index);
  const variant = advantageVariantOf(settings);
  const reward = Float64Array.from(records, (one) => one.reward);
  const plain = Float64Array.from(correct, (one) =>
    one === 1 ? (options.baseScore ?? 1) : (options.formatScore ?? 0),
  );
  const advantage = stepAdvantages(reward, groups, variant);
  const before = stepAdvantages(plain, groups, variant);
  let flips = 0;
  for (let r = 0; r < records.length; r++) if (correct[r] === 1 && advantage[r] < 0 && before[r] >= 0) flips++;
  let withoutMarker = 0;
  for (const record of step.records) if (thinkEnd[record] < 0) withoutMarker++;
  return { records, correct, groups, reward, advantage, before, flips, withoutMarker };
}

/** Rewards by phase entropy: correct answers are worth less where thinking is more uncertain than answering. */
export const pear: Intervention = {
  name: 'pear',
  title: 'PEAR: phase-entropy-aware reward',
  reference: 'PEAR: Phase Entropy Aware Reward for Efficient Reasoning (2025, arXiv 2510.08026); spec 3',
  needs: ['correct', 'thinkEnd'],
  parameters: {
    alpha: { kind: 'number', initial: 1, help: "weight of the answer's entropy in the penalty" },
    'base-score': {
      kind: 'number',
      initial: 1,
      least: 0,
      most: 1,
      help: 'score of a correct answer before the penalty',
    },
    'format-score': { kind: 'number', initial: 0, least: 0, most: 1, help: 'reward of a wrong answer' },
    floor: { kind: 'number', initial: NO_FLOOR, help: `least reward of a correct answer (${NO_FLOOR}: none)` },
    entropy: ENTROPY_PARAMETER,
    advantage: ADVANTAGE_PARAMETER,
    ...LOSS_PARAMETERS,
  },
  prepare(step, settings, { index, plain }) {
    const places = placesOf(step);
    const { records, reward, advantage, flips, withoutMarker } = pearStep(step, index, settings);
    const loss = { surrogate: surrogateOf(settings), aggregation: aggregationOf(settings), plain };
    const below = records.filter((one) => one.belowWrong).length;
    return {
      effect: (block) => advantageEffect(block, places, advantage, loss, reward),
      facts: {
        h_think_nats: meanOf(records.map((one) => one.think)),
        h_answer_nats: meanOf(records.map((one) => one.answer)),
        penalty_nats: meanOf(records.map((one) => one.penalty)),
        reward_mean: meanOf(reward),
        correct_below_wrong: below,
        advantage_sign_flips: flips,
        records_without_marker: withoutMarker,
      },
      warnings:
        below > 0
          ? ['correct answers are rewarded less than wrong ones (correct_below_wrong); the setting floor=0 holds them']
          : [],
    };
  },
};
