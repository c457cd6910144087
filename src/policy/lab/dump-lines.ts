import { rolloutLine } from '../rollouts/rollout-line.js';
import type { TopTokens } from '../rollouts/types.js';
import type { LabRollout } from './types.js';

/** The `top` likeliest tokens of every position. */
function cutTop({ k, ids, logProbs }: TopTokens, top: number): TopTokens {
  if (top >= k) return { k, ids, logProbs };
  const kept = (_: number, i: number): boolean => i % k < top;
  return {
    k: top,
    ids: ids.filter(kept),
    logProbs: logProbs.filter(kept),
  };
}

/**
 * One response as a line of a rollout dump (spec 0.1).
 * @param top likeliest tokens of every position; 0: none
 * @param written lines before it
 */
export function dumpLine({ topTokens, ...rollout }: LabRollout, top: number, written: number): string {
  const kept = topTokens === undefined || top === 0 ? undefined : cutTop(topTokens, top);
  return rolloutLine({ ...rollout, ...(kept && { topTokens: kept }) }, written);
}
