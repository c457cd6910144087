import type { LabRollout } from './types.js';

/** The `top` likeliest tokens of every position as pairs (id, log-probability); undefined where there are none. */
function topPairs({ topTokens }: LabRollout, top: number): [number, number][][] | undefined {
  if (topTokens === undefined || top === 0) return undefined;
  const { k, ids, logProbs } = topTokens;
  const kept = Math.min(k, top);
  return Array.from({ length: ids.length / k }, (_, t) => {
    const pairs: [number, number][] = [];
    // Places behind the last token hold -1.
    for (let j = t * k; j < t * k + kept && ids[j] >= 0; j++) pairs.push([ids[j], logProbs[j]]);
    return pairs;
  });
}

/** One response as a line of a rollout dump (spec 0.1), under the names that readers look for first. */
export function dumpLine(rollout: LabRollout, top: number): string {
  const { advantage, mask, stepSpans, topTokens: _top, ...fields } = rollout;
  const spans =
    stepSpans && Array.from({ length: stepSpans.length / 2 }, (_, s) => [stepSpans[2 * s], stepSpans[2 * s + 1]]);
  return `${JSON.stringify({
    step: fields.step,
    prompt_id: fields.promptId,
    response_id: fields.responseId,
    tokens: Array.from(fields.tokens),
    token_text: fields.tokenText,
    logprob: Array.from(fields.logProb),
    old_logprob: Array.from(fields.oldLogProb),
    entropy: Array.from(fields.entropy),
    topk: topPairs(rollout, top),
    mask: mask && Array.from(mask),
    advantage: typeof advantage === 'number' ? advantage : Array.from(advantage),
    reward: fields.reward,
    correct: fields.correct,
    difficulty: fields.difficulty,
    think_end: fields.thinkEnd,
    step_spans: spans,
  })}\n`;
}
