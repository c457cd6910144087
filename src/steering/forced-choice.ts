import type { SteeringPlan } from '../decoding/steering-plan.js';
import { InputError } from '../errors.js';
import type { Tokenizer } from '../tokenizers/tokenizer.js';
import { distributionEntropy } from './action-entropy.js';
import { checkActions } from './action-pattern.js';

/** What stands between a prompt and the choice, and the strings that are compared. Structured-cloneable. */
export interface ForcedChoice {
  /** The fixed thought; may be empty. */
  readonly thought: Int32Array;
  /** Tokens of each action's string after the thought. */
  readonly actions: readonly Int32Array[];
}

/** The choice that a model makes when it may only say one of the actions. */
export interface ActionDistribution {
  /** Summed log-probability of each action's string after prompt and thought, nats. */
  readonly logProbabilities: Float64Array;
  /** Softmax of them. */
  readonly probabilities: Float64Array;
  /** Of `probabilities`. */
  readonly entropyNats: number;
  /** Probability that the model, free to say anything after the thought, says one of the strings. */
  readonly mass: number;
}

/** What the choice is scored by: {@link PromptCache} of src/decoding. */
export interface ContinuationScorer {
  /** ln p of every token of each continuation, given the prompt and the tokens before it, at `temperature` (default 1). */
  logProbabilities(
    continuations: readonly Int32Array[],
    steering?: SteeringPlan,
    temperature?: number,
  ): Promise<Float64Array[]>;
}

/**
 * Tokens of a thought and of the actions that follow it. A tokenizer may join the end of the thought with the beginning of
 * an action: what all of them share is the thought.
 * @param thought text after the prompt, such as `Thought: ...\nAction: I choose`
 * @param actions texts that follow, such as ` Button 1.`
 * @throws InputError for fewer than two actions, and where one action's tokens begin another's
 */
export function encodeForcedChoice(tokenizer: Tokenizer, thought: string, actions: readonly string[]): ForcedChoice {
  checkActions(actions);
  const encode = (text: string): Int32Array => tokenizer.encode(text, { addSpecialTokens: false });
  const before = encode(thought);
  const whole = actions.map((action) => encode(`${thought}${action}`));
  let shared = before.length;
  for (const tokens of whole) {
    let same = 0;
    while (same < shared && same < tokens.length && tokens[same] === before[same]) same++;
    shared = same;
  }
  const rest = whole.map((tokens) => tokens.slice(shared));
  rest.forEach((own, i) => {
    const longer = rest.findIndex((other, j) => j !== i && own.every((token, k) => other[k] === token));
    if (longer >= 0) {
      throw new InputError(
        `the action ${JSON.stringify(actions[i])} is the beginning of ${JSON.stringify(actions[longer])}: their ` +
          'probabilities cannot be compared; end every action alike, for instance with a full stop',
      );
    }
  });
  return { thought: before.slice(0, shared), actions: rest };
}

/**
 * The exact choice between actions: softmax over the summed log-probabilities of each action's string after the prompt and
 * a fixed thought (specification of steering, section 1.5). Nothing is sampled.
 * @param cache the prompt, as it was read
 * @param thought tokens between prompt and action
 * @param actions tokens of each action, none the beginning of another
 * @param steering acts as while a reply is generated: thought and action are read with it
 * @param temperature divides the logits of every token of the actions, as sampling would (default 1)
 */
export async function exactActionEntropy(
  cache: ContinuationScorer,
  thought: Int32Array,
  actions: readonly Int32Array[],
  steering?: SteeringPlan,
  temperature = 1,
): Promise<ActionDistribution> {
  const continuations = actions.map((action) => {
    const tokens = new Int32Array(thought.length + action.length);
    tokens.set(thought);
    tokens.set(action, thought.length);
    return tokens;
  });
  const logs = await cache.logProbabilities(continuations, steering, temperature);
  const sums = Float64Array.from(logs, (own) => own.subarray(thought.length).reduce((sum, log) => sum + log, 0));
  return choiceOf(sums);
}

/** The distribution over actions whose strings have these summed log-probabilities, nats. */
export function choiceOf(logProbabilities: Float64Array): ActionDistribution {
  const highest = logProbabilities.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const weights = logProbabilities.map((log) => Math.exp(log - highest));
  const total = weights.reduce((a, b) => a + b, 0);
  const probabilities = weights.map((weight) => weight / total);
  return {
    logProbabilities,
    probabilities,
    entropyNats: distributionEntropy(probabilities),
    mass: Math.exp(highest) * total,
  };
}
