import type { InterventionSettings } from '../interventions/types.js';
import { emptySamples, recentRound } from '../recent-samples.js';

/** What a source must know of a group. */
export interface SourcedGroup {
  /** Responses that are right, and all. */
  readonly correct: number;
  readonly size: number;
}

/** Which of the groups that a round generated are trained on, and when. */
export interface BatchSource<G> {
  /** Takes the groups of a round and gives those of the update; none where the round only fills a buffer. */
  next(generated: readonly G[]): readonly G[];
}

/**
 * Recent-sample recovery (spec 7.3): groups that are neither all right nor all wrong wait until a batch of them is full; what is
 * left over is used first in the next update, or is thrown away under `recovery=no`.
 */
function recentSamples<G extends SourcedGroup>(settings: InterventionSettings): BatchSource<G> {
  const batch = Number(settings.batch);
  const keep = settings.recovery !== 'no';
  let state = emptySamples<G>();
  return {
    next(generated) {
      const groups = generated.map((group) => ({ id: group, correct: group.correct, size: group.size }));
      const round = recentRound(state, groups, batch);
      state = keep ? round.next : { ...round.next, carried: [] };
      return (round.used ?? []).map(({ id }) => id);
    },
  };
}

/** How an intervention wants its batches made; every group of a round is trained on at once when it does not say. */
export function createBatchSource<G extends SourcedGroup>(
  intervention: string,
  settings: InterventionSettings,
): BatchSource<G> {
  return intervention === 'recent-samples' ? recentSamples<G>(settings) : { next: (generated) => generated };
}
