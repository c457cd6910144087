import { openPromptCache, type PromptCache } from '../decoding/prompt-cache.js';
import type { SteeringPlan } from '../decoding/steering-plan.js';
import type { SamplingPlan } from '../decoding/types.js';
import { InputError } from '../errors.js';
import type { JobReference } from '../models/engine-host.js';
import type { LanguageModel } from '../models/language-model.js';
import { openModelTokenizer } from '../models/model-tokenizer.js';
import type { Tokenizer } from '../tokenizers/tokenizer.js';
import { banditLuck, checkBandit, drawIndex, type GaussianBandit } from './bandit.js';
import { encodeForcedChoice, exactActionEntropy, type ForcedChoice } from './forced-choice.js';
import {
  type AgentPrompt,
  type AgentStep,
  actionNames,
  actionPatternOf,
  encodePrompt,
  forcedCompletion,
  forcedReply,
  promptText,
} from './prompts.js';
import { type SampledActions, sampleActions } from './sampled-choice.js';

/** How completions of an agent are drawn. */
export interface AgentSampling {
  readonly samples: number;
  readonly plan: SamplingPlan;
  /** Regular expression with one group; the prompt's own when absent. */
  readonly pattern?: string;
  readonly maxNewTokens: number;
}

/** Which runs are played, and how the agent is asked. Structured-cloneable. */
export interface BanditArguments {
  readonly bandit: GaussianBandit;
  readonly prompt: AgentPrompt;
  /** Numbers of the runs: a run's luck depends on its number and the seed alone. */
  readonly runs: readonly number[];
  readonly seed: number;
  /** Measures the exact entropy of the forced choice. Without `sampling` the action is drawn from it. */
  readonly exact: boolean;
  /** Draws completions; the action is then that of one valid completion, all alike probable. */
  readonly sampling?: AgentSampling;
  /** Temperature of the forced choice (default 1). */
  readonly temperature?: number;
  readonly steering?: SteeringPlan;
}

/** The exact choice at a step; see `ActionDistribution`. */
export interface LoggedChoice {
  readonly probabilities: readonly number[];
  readonly entropyNats: number;
  readonly mass: number;
}

/** The completions at a step; see `SampledActions`. */
export type LoggedCompletions = Pick<SampledActions, 'counts' | 'completions' | 'actions' | 'tokenEntropyNats'>;

/** One step of a run. Plain values, so that JSON keeps it to the last bit. */
export interface BanditStep {
  readonly step: number;
  readonly prompt: string;
  readonly rendered: boolean;
  readonly promptTokens: number;
  readonly exact?: LoggedChoice;
  readonly sampled?: LoggedCompletions;
  /** What was carried out; absent where no completion parsed, which ends the run. */
  readonly pull?: AgentStep;
}

/** A run that was played. */
export interface BanditRun {
  readonly run: number;
  readonly steps: readonly BanditStep[];
}

/** What a job of runs tells while it works: a step was made, or a run is complete. */
export type BanditProgress = { readonly steps: number } | { readonly complete: BanditRun };

/** Everything that one run needs. */
interface Player {
  readonly model: LanguageModel;
  readonly tokenizer: Tokenizer;
  readonly args: BanditArguments;
  readonly choice: ForcedChoice;
}

/**
 * Plays runs of an agent on a Gaussian bandit, in the engine's thread. Every step reads the prompt anew from the history;
 * steering acts while a reply is formed and leaves no trace in later prompts (specification of steering, section 1.3).
 * @throws InputError for a bandit or prompts that cannot be, and where a prompt with its reply outgrows the model
 */
export async function playBandit(
  model: LanguageModel,
  args: BanditArguments,
  progress: (value: unknown) => void,
): Promise<BanditRun[]> {
  checkBandit(args.bandit);
  const tokenizer = openModelTokenizer(model.info.path);
  const reply = forcedReply(args.prompt);
  const player: Player = {
    model,
    tokenizer,
    args,
    choice: encodeForcedChoice(tokenizer, reply.thought, reply.actions),
  };
  const runs: BanditRun[] = [];
  for (const run of args.runs) {
    const complete = await playRun(player, run, () => progress({ steps: 1 } satisfies BanditProgress));
    runs.push(complete);
    progress({ complete } satisfies BanditProgress);
  }
  return runs;
}

async function playRun(player: Player, run: number, onStep: () => void): Promise<BanditRun> {
  const { args, tokenizer } = player;
  const { bandit, prompt } = args;
  const luck = banditLuck(bandit, args.seed, run);
  const steps: BanditStep[] = [];
  const history: AgentStep[] = [];
  let cache: PromptCache | undefined;
  for (let step = 0; step < bandit.horizon; step++) {
    const text = promptText(prompt, history, tokenizer);
    const tokens = encodePrompt(tokenizer, text);
    checkLength(player, tokens.length, run, step);
    if (args.exact) cache = await readOn(player, cache, tokens);
    const exact = cache && (await readExactly(player, cache));
    const sampled = args.sampling && (await sampledChoice(player, args.sampling, tokens, run, step));
    const chosen = chooseAction(prompt, exact, sampled, luck.choice(step));
    const pull = chosen && { ...chosen, reward: luck.reward(step, chosen.action) };
    steps.push({
      step,
      prompt: text.text,
      rendered: text.rendered,
      promptTokens: tokens.length,
      ...(exact && { exact }),
      ...(sampled && { sampled }),
      ...(pull && { pull }),
    });
    onStep();
    if (!pull) break;
    history.push(pull);
  }
  return { run, steps };
}

/** The prompt in a cache; where there is one already, only what is new is read. */
async function readOn(
  { model, args, choice }: Player,
  cache: PromptCache | undefined,
  prompt: Int32Array,
): Promise<PromptCache> {
  if (!cache) return openPromptCache(model, prompt, prompt.length + choice.thought.length, args.steering);
  await cache.extend(prompt);
  return cache;
}

async function readExactly({ args, choice }: Player, cache: PromptCache): Promise<LoggedChoice> {
  const { thought, actions } = choice;
  const { probabilities, entropyNats, mass } = await exactActionEntropy(
    cache,
    thought,
    actions,
    args.steering,
    args.temperature,
  );
  return { probabilities: [...probabilities], entropyNats, mass };
}

async function sampledChoice(
  { model, tokenizer, args }: Player,
  sampling: AgentSampling,
  prompt: Int32Array,
  run: number,
  step: number,
): Promise<LoggedCompletions> {
  const { counts, completions, actions, tokenEntropyNats } = await sampleActions(model, tokenizer, prompt, {
    samples: sampling.samples,
    plan: sampling.plan,
    pattern: { source: sampling.pattern ?? actionPatternOf(args.prompt), actions: actionNames(args.prompt) },
    maxNewTokens: sampling.maxNewTokens,
    seed: args.seed,
    firstStream: (run * args.bandit.horizon + step) * sampling.samples,
    ...(args.steering && { steering: args.steering }),
  });
  return { counts, completions, actions, tokenEntropyNats };
}

/** The action that is carried out with the words that led to it; undefined where no completion parsed. */
function chooseAction(
  prompt: AgentPrompt,
  exact: LoggedChoice | undefined,
  sampled: LoggedCompletions | undefined,
  uniform: number,
): Omit<AgentStep, 'reward'> | undefined {
  if (sampled) {
    const valid = sampled.actions.flatMap((action, i) =>
      action === null ? [] : [{ action, completion: sampled.completions[i] }],
    );
    return valid[Math.floor(uniform * valid.length)];
  }
  if (!exact) throw new RangeError('neither the exact choice nor samples were asked for');
  const action = drawIndex(exact.probabilities, uniform);
  return { action, completion: forcedCompletion(prompt, action) };
}

function checkLength({ model, args, choice }: Player, prompt: number, run: number, step: number): void {
  const { maxPositions, path } = model.info;
  const forced = choice.thought.length + Math.max(...choice.actions.map(({ length }) => length));
  const reply = Math.max(args.exact ? forced : 0, args.sampling?.maxNewTokens ?? 0);
  if (maxPositions === null || prompt + reply <= maxPositions) return;
  throw new InputError(
    `run ${run}, step ${step}: the prompt of ${prompt} tokens and a reply of up to ${reply} do not fit the ` +
      `${maxPositions} positions of ${path}; use --prompt-style brief, --history, or a smaller --horizon`,
  );
}

/** {@link playBandit} for the engine's host. */
export const PLAY_BANDIT: JobReference<BanditArguments, BanditRun[]> = { module: import.meta.url, job: playBandit };
