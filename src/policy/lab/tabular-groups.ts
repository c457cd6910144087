import type { Random } from '../../random.js';
import type { PolicyRows } from './tabular-policy.js';
import type { LockKeys, SharedLock } from './tabular-task.js';

/** The responses to one prompt. */
export interface TabularGroup {
  /** Number of the prompt. */
  readonly context: number;
  /** Step that generated it. */
  readonly step: number;
  /** [responses, positions]. */
  readonly tokens: Int32Array;
  /** [responses], 1 where the response is the key. */
  readonly rewards: Float64Array;
  /** [responses, positions], of the policy that sampled; nats. */
  readonly logProb: Float64Array;
  /** Responses that are right, and all. */
  readonly correct: number;
  readonly size: number;
}

/** The first token whose cumulative probability exceeds a uniform number; the last one where rounding leaves a gap. */
function drawToken(probs: Float64Array, start: number, vocabulary: number, uniform: number): number {
  let cumulative = 0;
  for (let v = 0; v < vocabulary - 1; v++) {
    cumulative += probs[start + v];
    if (uniform < cumulative) return v;
  }
  return vocabulary - 1;
}

/** Responses of the policy to one prompt, and whether they are its key. */
function sampleGroup(
  { positions, vocabulary, responses }: SharedLock,
  { keys }: LockKeys,
  rows: PolicyRows,
  context: number,
  step: number,
  random: Random,
): TabularGroup {
  const tokens = new Int32Array(responses * positions);
  const logProb = new Float64Array(responses * positions);
  const rewards = new Float64Array(responses);
  let correct = 0;
  for (let r = 0; r < responses; r++) {
    let right = 1;
    for (let t = 0; t < positions; t++) {
      const row = context * positions + t;
      const token = drawToken(rows.probs, row * vocabulary, vocabulary, random.uniform());
      tokens[r * positions + t] = token;
      logProb[r * positions + t] = rows.logProbs[row * vocabulary + token];
      if (token !== keys[row]) right = 0;
    }
    rewards[r] = right;
    correct += right;
  }
  return { context, step, tokens, rewards, logProb, correct, size: responses };
}

/**
 * One round of generation: `batchPrompts` prompts without replacement, `responses` responses each.
 * @param rows what `evaluateRows` gave for the policy that samples
 */
export function sampleRound(
  lock: SharedLock,
  keys: LockKeys,
  rows: PolicyRows,
  step: number,
  random: Random,
): TabularGroup[] {
  const prompts = random.permutation(lock.prompts).subarray(0, lock.batchPrompts);
  return Array.from(prompts, (context) => sampleGroup(lock, keys, rows, context, step, random));
}
