import type { SteeringPlan } from '../decoding/steering-plan.js';
import type { SamplingPlan } from '../decoding/types.js';
import type { LanguageModel } from '../models/language-model.js';
import type { Tokenizer } from '../tokenizers/tokenizer.js';
import { fullPassScorer } from './continuation-scorer.js';
import { type ActionDistribution, exactActionEntropy, type ForcedChoice } from './forced-choice.js';
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

/** What was measured of one prompt in one cell. */
export interface PromptEvaluation {
  readonly exact?: ActionDistribution;
  readonly sampled?: SampledActions;
}

/**
 * Evaluates cells on prompts, in the engine's thread. Prompts are the outer loop: each is read once, and every cell runs
 * only what its steering changes. Cells use the same random numbers, so that their differences are due to the cell.
 * @param progress called after each prompt and cell
 * @returns [cell][prompt]
 * @throws InputError for a model whose layers cannot be reached, or a prompt that does not fit
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
    const cache = request.choice && fullPassScorer(model, prompt);
    for (const [c, cell] of cells.entries()) {
      const steering = cell.steering && planOfPrompt(cell.steering, index);
      const exact =
        request.choice &&
        cache &&
        (await exactActionEntropy(cache, request.choice.thought, request.choice.actions, steering, cell.temperature));
      const sampled =
        request.sampling &&
        (await sampleActions(model, tokenizer, prompt, {
          ...request.sampling,
          plan: withTemperature(request.sampling.plan, cell.temperature),
          firstStream: index * request.sampling.samples,
          ...(steering && { steering }),
        }));
      results[c].push({ ...(exact && { exact }), ...(sampled && { sampled }) });
      progress(++done);
    }
  }
  return results;
}

/** {@link evaluateCells} for one cell. @returns one a prompt */
export async function evaluatePrompts(
  model: LanguageModel,
  tokenizer: Tokenizer,
  request: EvaluationRequest,
  cell: EvaluationCell,
  progress?: (done: number) => void,
): Promise<PromptEvaluation[]> {
  return (await evaluateCells(model, tokenizer, request, [cell], progress))[0];
}

/** The plan for one prompt alone: its own mask comes first. */
function planOfPrompt(plan: SteeringPlan, prompt: number): SteeringPlan {
  const { positions } = plan;
  if (positions.kind !== 'mask') return plan;
  return { ...plan, positions: { kind: 'mask', masks: [positions.masks[prompt] ?? new Uint8Array(0)] } };
}

/** The plan at another temperature: steps of temperature give way to one, which comes first. */
function withTemperature(plan: SamplingPlan, temperature: number | undefined): SamplingPlan {
  if (temperature === undefined) return plan;
  const others = plan.steps.filter(({ kind }) => kind !== 'temperature' && kind !== 'dynamic-temperature');
  return { ...plan, steps: [{ kind: 'temperature', temperature }, ...others] };
}
