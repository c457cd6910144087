import { logSoftmax } from '../decoding/log-softmax.js';
import type { PromptCache } from '../decoding/prompt-cache.js';
import type { SteeringPlan } from '../decoding/steering-plan.js';
import type { Floats } from '../models/layer-runner.js';

/** What a model says of continuations of a prompt. */
export interface ContinuationScores {
  /** ln p of every token of each continuation, given the prompt and the tokens before it. */
  readonly logs: readonly Float64Array[];
  /** Log-softmax of the first token after the prompt [vocabulary]. */
  readonly first: Float64Array;
}

/**
 * Scores continuations of a prompt in one pass, every row at the given temperature. Beginnings that they share run once.
 * @param temperature divides all logits (default 1)
 */
export async function scoreContinuations(
  cache: PromptCache,
  continuations: readonly Int32Array[],
  steering?: SteeringPlan,
  temperature = 1,
): Promise<ContinuationScores> {
  const contexts: Int32Array[] = [new Int32Array(0)];
  const places = new Map([['', 0]]);
  const rows = continuations.map((tokens) =>
    Array.from(tokens, (_, i) => {
      const context = tokens.subarray(0, i);
      const key = context.join();
      const found = places.get(key);
      if (found !== undefined) return found;
      places.set(key, contexts.length);
      return contexts.push(context) - 1;
    }),
  );
  const logits = await cache.logits(contexts, steering);
  const vocabulary = logits.length / contexts.length;
  const normalizers = new Map<number, number>();
  const rowOf = (row: number): Floats => logits.subarray(row * vocabulary, (row + 1) * vocabulary);
  const normalizerOf = (row: number): number => {
    const found = normalizers.get(row);
    if (found !== undefined) return found;
    const made = logSumExp(rowOf(row), temperature);
    normalizers.set(row, made);
    return made;
  };
  const first = Float64Array.from(rowOf(0), (logit) => logit / temperature);
  return {
    logs: continuations.map((tokens, c) =>
      Float64Array.from(tokens, (token, i) => rowOf(rows[c][i])[token] / temperature - normalizerOf(rows[c][i])),
    ),
    first: logSoftmax(first),
  };
}

/** ln Σ exp(logit / temperature). */
function logSumExp(logits: Floats, temperature: number): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) if (logits[i] > largest) largest = logits[i];
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp((logits[i] - largest) / temperature);
  return largest / temperature + Math.log(sum);
}
