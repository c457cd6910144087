import { grpo } from '../interventions/grpo.js';
import { recentSamples } from '../interventions/recent-samples.js';
import type { Intervention, InterventionSettings } from '../interventions/types.js';
import { emptySamples, recentRound } from '../recent-samples.js';

/** What a source must know of a group. */
export interface SourcedGroup {
  /** Responses that are right, and all. */
  readonly correct: number;
  readonly size: number;
}

/** Which of the groups that a round generated are trained on, when, and by which loss. */
export interface BatchSource<G> {
  /** Takes the groups of a round and gives those of the update; none where the round only fills a buffer. */
  next(generated: readonly G[]): readonly G[];
  /** The intervention that forms the loss of an update, with its settings. */
  readonly loss: { readonly intervention: Intervention; readonly settings: InterventionSettings };
  /** Whether groups keep the log-probabilities of the policy that sampled them, however long they wait. */
  readonly importance: boolean;
}

/**
 * Recent-sample recovery (spec 7.3) where groups are generated: those that are neither all right nor all wrong wait until a
 * batch of them is full; what is left over is used first in the next update, or is thrown away under `recovery=no`. Its
 * updates are plain ones: what the method does to a loss offline stands for the batches that it would have made.
 */
function recoveringSource<G extends SourcedGroup>(settings: InterventionSettings): BatchSource<G> {
  const batch = Number(settings.batch);
  const keep = settings.recovery === 'yes';
  let state = emptySamples<G>();
  return {
    next(generated) {
      const groups = generated.map((group) => ({ id: group, correct: group.correct, size: group.size }));
      const round = recentRound(state, groups, batch);
      state = keep ? round.next : { ...round.next, carried: [] };
      return (round.used ?? []).map(({ id }) => id);
    },
    loss: {
      intervention: grpo,
      settings: Object.fromEntries(Object.keys(grpo.parameters).map((name) => [name, settings[name]])),
    },
    importance: settings.importance === 'yes',
  };
}

/**
 * How an intervention wants its batches made: every group of a round is trained on at once, but for one that fills batches.
 * @param settings complete
 */
export function createBatchSource<G extends SourcedGroup>(
  intervention: Intervention,
  settings: InterventionSettings,
): BatchSource<G> {
  if (intervention === recentSamples) return recoveringSource<G>(settings);
  return { next: (generated) => generated, loss: { intervention, settings }, importance: false };
}
