import { openPromptCache, type PromptCache } from '../decoding/prompt-cache.js';
import { planOfPrompt, type SteeringPlan } from '../decoding/steering-plan.js';
import { distinctN } from '../decoding/text-diversity.js';
import type { SamplingPlan } from '../decoding/types.js';
import type { LanguageModel } from '../models/language-model.js';
import type { Tokenizer } from '../tokenizers/tokenizer.js';
import { checkParsed } from './action-pattern.js';
import { scoreContinuations } from './continuation-scores.js';
import { type ActionDistribution, choiceOf, type ForcedChoice, readChoice } from './forced-choice.js';
import { type ActionSampling, type SampledActions, sampleActions } from './sampled-choice.js';

/** One cell of a sweep: what is done to the model, and at which temperature it answers. */
export interface EvaluationCell {
  readonly steering?: SteeringPlan;
  /** Temperature of the choice: 1 when absent. In sampling it takes the place of the plan's own. */
  readonly temperature?: number;
}

/** What is measured of every prompt. Structured-cloneable. */
export interface EvaluationRequest {
  readonly prompts: readonly Int32Array[];
  /** Measures the exact entropy. */
  readonly choice?: ForcedChoice;
  /** Counts the actions of sampled completions. The stream of a completion is fixed by its prompt and its number alone. */
  readonly sampling?: Omit<ActionSampling, 'steering' | 'firstStream'>;
}

/** What a cell does to text, beside the choice; NaN where it was not measured. */
export interface TextGuards {
  /** Mean -ln p of the fixed thought's tokens in the cell, nats. */
  readonly thoughtNats: number;
  /** KL divergence of the first token of the reply, the cell from the model as it is, nats. */
  readonly firstTokenKlNats: number;
  /** Mean -ln p of the sampled replies' tokens under the model as it is, nats. */
  readonly replyNats: number;
  /** Different pairs of neighbouring tokens over all pairs, over the sampled replies. */
  readonly distinct2: number;
}

/** What was measured of one prompt in one cell. */
export interface PromptEvaluation {
  readonly exact?: ActionDistribution;
  readonly sampled?: SampledActions;
  readonly guards: TextGuards;
}

/**
 * Evaluates cells on prompts, in the engine's thread. Prompts are the outer loop: each is read once, and every cell runs
 * only what its steering changes. Cells use the same random numbers, so that their differences are due to the cell.
 * @param progress called after each prompt and cell
 * @returns [cell][prompt]
 * @throws InputError for a model whose layers cannot be reached, a prompt that does not fit, and a pattern that matches no
 *   completion of any prompt in any cell, the model as it is among them
 */
export async function evaluateCells(
  model: LanguageModel,
  tokenizer: Tokenizer,
  request: EvaluationRequest,
  cells: readonly EvaluationCell[],
  progress: (done: number) => void = () => undefined,
): Promise<PromptEvaluation[][]> {
  const results: PromptEvaluation[][] = cells.map(() => []);
  let done = 0;
  for (const [index, prompt] of request.prompts.entries()) {
    const positions = cells.find(({ steering }) => steering)?.steering?.positions;
    const cache = await openPromptCache(model, prompt, prompt.length + replyLength(request), positions, index);
    const { first } = await scoreContinuations(cache, []);
    for (const [c, cell] of cells.entries()) {
      const { steering, temperature } = cell;
      const choice = request.choice && (await readChoice(cache, request.choice, steering, temperature));
      const sampled =
        request.sampling &&
        (await sampleActions(model, tokenizer, prompt, {
          ...request.sampling,
          plan: withTemperature(request.sampling.plan, temperature),
          firstStream: index * request.sampling.samples,
          ...(steering && { steering: planOfPrompt(steering, index) }),
        }));
      results[c].push({
        ...(choice && { exact: choiceOf(choice.logProbabilities) }),
        ...(sampled && { sampled }),
        guards: {
          thoughtNats: choice?.thoughtNats ?? Number.NaN,
          firstTokenKlNats: choice ? divergence(choice.first, first) : Number.NaN,
          replyNats: sampled ? await meanSurprisal(cache, sampled.replies) : Number.NaN,
          distinct2: sampled ? distinctN(sampled.replies, 2) : Number.NaN,
        },
      });
      progress(++done);
    }
  }
  // Strong steering alone may well leave nothing that parses; the model as it is should.
  const plain = cells.some(({ steering, temperature = 1 }) => steering === undefined && temperature === 1);
  if (request.sampling && plain) {
    const names = request.prompts.map((_, index) => `prompt ${index}`);
    const unparsed = names.filter((_, index) => results.every((cell) => cell[index].sampled?.valid === 0));
    checkParsed(request.sampling.pattern, unparsed, names.length);
  }
  return results;
}

/** Tokens that stand after a prompt at most. */
function replyLength({ choice, sampling }: EvaluationRequest): number {
  const forced = choice ? choice.thought.length + Math.max(...choice.actions.map(({ length }) => length)) : 0;
  return Math.max(forced, sampling?.maxNewTokens ?? 0);
}

/** KL(p || q) of two log-distributions, nats. */
function divergence(p: Float64Array, q: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < p.length; i++) {
    if (p[i] > Number.NEGATIVE_INFINITY) sum += Math.exp(p[i]) * (p[i] - q[i]);
  }
  return Math.max(0, sum);
}

/** Mean -ln p over the tokens of replies, without steering. */
async function meanSurprisal(cache: PromptCache, replies: readonly Int32Array[]): Promise<number> {
  const logs = await cache.logProbabilities(replies);
  let sum = 0;
  let tokens = 0;
  for (const own of logs) {
    sum -= own.reduce((a, b) => a + b, 0);
    tokens += own.length;
  }
  return sum / tokens;
}

/** The plan at another temperature: steps of temperature give way to one, which comes first. */
function withTemperature(plan: SamplingPlan, temperature: number | undefined): SamplingPlan {
  if (temperature === undefined) return plan;
  const others = plan.steps.filter(({ kind }) => kind !== 'temperature' && kind !== 'dynamic-temperature');
  return { ...plan, steps: [{ kind: 'temperature', temperature }, ...others] };
}
