import { generate } from '../decoding/generation.js';
import type { SteeringPlan } from '../decoding/steering-plan.js';
import type { SamplingPlan } from '../decoding/types.js';
import type { LanguageModel } from '../models/language-model.js';
import type { Tokenizer } from '../tokenizers/tokenizer.js';
import { type CountEntropy, countEntropy } from './action-entropy.js';
import { type ActionPattern, createActionReader } from './action-pattern.js';

/** How completions of a prompt are drawn. Structured-cloneable. */
export interface ActionSampling {
  /** Completions a prompt, M. */
  readonly samples: number;
  readonly plan: SamplingPlan;
  readonly pattern: ActionPattern;
  readonly maxNewTokens: number;
  /** A completion ends with one of these; the model's own when absent. */
  readonly stop?: readonly number[];
  readonly seed: number;
  /** Stream of the first completion's random numbers; the others follow. Default 0. */
  readonly firstStream?: number;
  readonly steering?: SteeringPlan;
}

/** What a prompt's completions chose. */
export interface SampledActions extends CountEntropy {
  /** Completions by action [A]. */
  readonly counts: readonly number[];
  /** Parsed completions over all. */
  readonly validShare: number;
  /** Text of each completion, without special tokens. */
  readonly completions: readonly string[];
  /** Action of each completion, null where it does not parse. */
  readonly actions: readonly (number | null)[];
  /** Mean entropy of the model's next-token distribution over the generated tokens, nats. */
  readonly tokenEntropyNats: number;
  readonly tokens: number;
  /** Tokens of each completion. */
  readonly replies: readonly Int32Array[];
}

/**
 * Draws completions of a prompt and counts the actions in them. A completion ends where its action is certain, with a stop
 * token, or at the limit.
 * @throws InputError for a pattern or a plan that cannot be used
 */
export async function sampleActions(
  model: LanguageModel,
  tokenizer: Tokenizer,
  prompt: Int32Array,
  sampling: ActionSampling,
): Promise<SampledActions> {
  const reader = createActionReader(sampling.pattern);
  const { firstStream = 0, steering } = sampling;
  const textOf = (tokens: ArrayLike<number>): string => tokenizer.decode(tokens, { skipSpecialTokens: true });
  const [generated] = await generate(model, {
    prompts: [prompt],
    samples: sampling.samples,
    maxNewTokens: sampling.maxNewTokens,
    stopIds: sampling.stop ?? model.info.eosIds,
    finished: (tokens) => reader.settled(textOf(tokens)),
    plan: sampling.plan,
    seed: sampling.seed,
    keys: (_prompt, sample) => firstStream + sample,
    ...(steering && { steering }),
  });
  const completions = generated.map(({ tokens }) => textOf(tokens));
  const actions = completions.map((completion) => reader.read(completion));
  const counts = sampling.pattern.actions.map((_, a) => actions.filter((action) => action === a).length);
  const entropies = generated.flatMap(({ entropyNats }) => [...entropyNats]);
  const count = countEntropy(counts);
  return {
    ...count,
    counts,
    validShare: count.valid / sampling.samples,
    completions,
    actions,
    tokenEntropyNats: entropies.reduce((sum, entropy) => sum + entropy, 0) / entropies.length,
    tokens: entropies.length,
    replies: generated.map(({ tokens }) => tokens),
  };
}
