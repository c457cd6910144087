import { emptySamples, type RecentRound, type RecentSamples, recentRound } from '../recent-samples.js';
import type { RolloutIndex, RolloutStep } from '../rollouts/types.js';
import { touchedBySurrogate } from './effects.js';
import {
  eachRecord,
  placeOf,
  placesOf,
  type StepGroups,
  stepCorrect,
  stepGroups,
  wholeSetting,
} from './record-effects.js';
import { aggregationOf, choiceSetting, LOSS_PARAMETERS, surrogateOf } from './settings.js';
import type { Intervention, InterventionSettings } from './types.js';

export interface RecentStep {
  readonly groups: StepGroups;
  readonly round: RecentRound<number>;
  /** [groups of the step]: trained on in this update, held back for a later one, or neither all right nor all wrong. */
  readonly fate: readonly ('used' | 'held' | 'dropped')[];
}

/** One step of a dump as a round of generation; groups are numbers of the index. */
export function recentStep(
  step: RolloutStep,
  index: RolloutIndex,
  settings: InterventionSettings,
  state: RecentSamples<number>,
): RecentStep {
  const groups = stepGroups(step, index);
  const correct = stepCorrect(step, index, 'recent-samples');
  const right = new Int32Array(groups.groups);
  const size = new Int32Array(groups.groups);
  for (let r = 0; r < correct.length; r++) {
    right[groups.group[r]] += correct[r];
    size[groups.group[r]]++;
  }
  const generated = groups.numbers.map((id, g) => ({ id, correct: right[g], size: size[g] }));
  const full = recentRound(state, generated, wholeSetting(settings, 'batch', 'recent-samples'));
  const keep = choiceSetting(settings, 'recovery') === 'yes';
  const round = keep ? full : { ...full, recovered: 0, next: { ...full.next, carried: [] } };
  const used = new Set((round.used ?? []).map(({ id }) => id));
  const held = new Set([...round.next.buffer, ...round.next.carried].map(({ id }) => id));
  const fate = groups.numbers.map((id) => (used.has(id) ? 'used' : held.has(id) ? 'held' : 'dropped'));
  return { groups, round, fate };
}

/** Groups that teach something wait until a batch is full; what is left over is used first in the next update. */
export const recentSamples: Intervention = {
  name: 'recent-samples',
  title: 'Confucius3: recent-sample recovery',
  reference: 'Confucius3-Math (2025, arXiv 2506.18330), Algorithm 1; spec 7.3',
  needs: ['correct', 'advantage'],
  parameters: {
    batch: { kind: 'number', initial: 256, least: 1, help: 'groups of an update' },
    recovery: {
      kind: 'choice',
      initial: 'yes',
      choices: ['yes', 'no'],
      help: 'keep what an update leaves over for the next one, or throw it away',
    },
    importance: {
      kind: 'choice',
      initial: 'no',
      choices: ['no', 'yes'],
      help: 'correct held groups by the ratio to the policy that sampled them',
    },
    ...LOSS_PARAMETERS,
  },
  prepare(step, settings, { index, carried, plain }) {
    const places = placesOf(step);
    const { groups, round, fate } = recentStep(step, index, settings, carried?.recentSamples ?? emptySamples());
    if (carried !== undefined) carried.recentSamples = round.next;
    const surrogate = surrogateOf(settings);
    const aggregation = aggregationOf(settings);
    const importance = choiceSetting(settings, 'importance') === 'yes';
    const count = (one: string): number => fate.filter((other) => other === one).length;
    const ages = (round.used ?? []).map((group) => round.next.round - 1 - group.round);
    return {
      effect(block) {
        const { mask, logProb, oldLogProb, advantage } = block;
        const multiplier = new Float64Array(mask.length);
        const touched = touchedBySurrogate(block, surrogate, plain);
        eachRecord(block, (record, from, to) => {
          const fateOf = fate[groups.group[placeOf(places, record)]];
          // Without importance correction a held group is trained on as if just sampled: this makes its ratio 1.
          const uncorrected = fateOf === 'held' && !importance && logProb !== undefined && oldLogProb !== undefined;
          for (let i = from; i < to; i++) {
            if (mask[i] === 0) continue;
            if (uncorrected) multiplier[i] = Math.exp(oldLogProb[i] - logProb[i]);
            else multiplier[i] = fateOf === 'dropped' ? 0 : 1;
            // Groups without spread have no advantage: leaving them out changes nothing.
            if (multiplier[i] !== 1 && advantage?.[i] !== 0) touched[i] = 1;
          }
        });
        return { surrogate, aggregation, multiplier, touched };
      },
      facts: {
        groups_generated: round.generated,
        groups_legitimate: round.legitimate,
        groups_used: round.used?.length ?? 0,
        groups_used_of_step: count('used'),
        groups_held: count('held'),
        groups_dropped: count('dropped'),
        buffered: round.buffered,
        recovered: round.recovered,
        age_mean_rounds: ages.length === 0 ? Number.NaN : ages.reduce((a, b) => a + b, 0) / ages.length,
      },
      warnings: [],
    };
  },
};
