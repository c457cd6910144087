import type { PromptCache } from '../decoding/prompt-cache.js';
import type { SteeringPlan } from '../decoding/steering-plan.js';
import { InputError } from '../errors.js';
import type { Tokenizer } from '../tokenizers/tokenizer.js';
import { distributionEntropy } from './action-entropy.js';
import { checkActions } from './action-pattern.js';
import { scoreContinuations } from './continuation-scores.js';

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

/** A forced choice, and what was seen on the way to it. */
export interface ReadChoice extends ActionDistribution {
  /** Mean -ln p of the thought's tokens, nats; NaN without a thought. */
  readonly thoughtNats: number;
  /** Log-softmax of the first token after the prompt [vocabulary]. */
  readonly first: Float64Array;
}

/**
 * The exact choice between actions: softmax over the summed log-probabilities of each action's string after the prompt and
 * a fixed thought (specification of steering, section 1.5). Nothing is sampled.
 * @param cache the prompt
 * @param choice tokens between prompt and action, and of each action
 * @param steering acts as while a reply is generated: thought and action are read with it
 * @param temperature divides the logits of every token, as sampling would (default 1)
 */
export async function readChoice(
  cache: PromptCache,
  { thought, actions }: ForcedChoice,
  steering?: SteeringPlan,
  temperature = 1,
): Promise<ReadChoice> {
  const continuations = actions.map((action) => {
    const tokens = new Int32Array(thought.length + action.length);
    tokens.set(thought);
    tokens.set(action, thought.length);
    return tokens;
  });
  const { logs, first } = await scoreContinuations(cache, continuations, steering, temperature);
  const sumOf = (values: Float64Array): number => values.reduce((sum, log) => sum + log, 0);
  return {
    ...choiceOf(Float64Array.from(logs, (own) => sumOf(own.subarray(thought.length)))),
    thoughtNats: -sumOf(logs[0].subarray(0, thought.length)) / thought.length,
    first,
  };
}

/** {@link readChoice} of a prompt that is already open, without what was seen on the way. */
export async function exactActionEntropy(
  cache: PromptCache,
  thought: Int32Array,
  actions: readonly Int32Array[],
  steering?: SteeringPlan,
  temperature = 1,
): Promise<ActionDistribution> {
  const { logProbabilities, probabilities, entropyNats, mass } = await readChoice(
    cache,
    { thought, actions },
    steering,
    temperature,
  );
  return { logProbabilities, probabilities, entropyNats, mass };
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
