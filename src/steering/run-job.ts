import { type Generated, generate } from '../decoding/generation.js';
import { openPromptCache } from '../decoding/prompt-cache.js';
import { planOfPrompt, type SteeringPlan } from '../decoding/steering-plan.js';
import type { SamplingPlan } from '../decoding/types.js';
import { InputError } from '../errors.js';
import type { LanguageModel } from '../models/language-model.js';
import { openModelTokenizer } from '../models/model-tokenizer.js';
import { type ForcedChoice, readChoice } from './forced-choice.js';
import { meanResidualNorms } from './residual-norms.js';
import { type TextDrift, textDrift } from './steered-text.js';
import { type StrengthPoint, strengthForEntropy } from './target-strength.js';

/** What is generated, and how it is steered. Structured-cloneable. */
export interface RunArguments {
  readonly prompts: readonly Int32Array[];
  readonly samples: number;
  readonly maxNewTokens: number;
  readonly stopIds: readonly number[];
  /** A continuation ends behind the first of these. */
  readonly stopTexts: readonly string[];
  readonly plan: SamplingPlan;
  readonly seed: number;
  readonly steering?: SteeringPlan;
  /** Multiply all strengths, prompt by prompt, so that the exact entropy of the choice reaches this, nats. */
  readonly target?: { readonly choice: ForcedChoice; readonly entropyNats: number };
  /** Measure what steering does to the text, by two more passes over it. */
  readonly guards: boolean;
}

/** The strength that was found for a prompt. */
export interface FoundStrength {
  /** What the strengths of the plan were multiplied by. */
  readonly factor: number;
  readonly entropyNats: number;
  readonly reached: boolean;
}

/** One prompt's continuations. */
export interface PromptRun {
  readonly found?: FoundStrength;
  readonly continuations: readonly { readonly generated: Generated; readonly drift?: TextDrift }[];
}

export interface RunResult {
  readonly prompts: readonly PromptRun[];
  /** Mean norm of the residual stream at the prompts' last tokens, [layers]. */
  readonly residualNorms: Float64Array;
}

/** Prompts whose norms are averaged. */
const NORM_PROMPTS = 32;
/** Factors that are tried on each side until one holds the target. */
const FACTORS = [1, 2, 4, 8, 16];

/** Generates with steering, beside the engine. */
export async function runSteered(
  model: LanguageModel,
  args: RunArguments,
  progress: (value: unknown) => void,
): Promise<RunResult> {
  const { engine } = model;
  if (!engine) throw new InputError(`${model.info.path}: steering needs a model directory or a .gguf file`);
  const { steering, target } = args;
  const tokenizer = openModelTokenizer(model.info.path);
  const finished = (tokens: readonly number[]): boolean => {
    if (args.stopTexts.length === 0) return false;
    const text = tokenizer.decode(tokens);
    return args.stopTexts.some((stop) => text.includes(stop));
  };
  const prompts: PromptRun[] = [];
  for (const [index, prompt] of args.prompts.entries()) {
    const own = steering && planOfPrompt(steering, index);
    const found = own && target && (await findStrength(model, prompt, own, target));
    const plan = own && scaled(own, found?.factor ?? 1);
    const [made] = await generate(model, {
      prompts: [prompt],
      samples: args.samples,
      maxNewTokens: args.maxNewTokens,
      stopIds: args.stopIds,
      finished,
      plan: args.plan,
      seed: args.seed,
      keys: (_, sample) => index * args.samples + sample,
      ...(plan && { steering: plan }),
    });
    const continuations = [];
    for (const generated of made) {
      const drift =
        args.guards && plan && generated.steered
          ? await textDrift(engine, { prompt, continuation: generated.tokens }, plan, 0)
          : undefined;
      continuations.push({ generated, ...(drift && { drift }) });
      progress(generated.tokens.length);
    }
    prompts.push({ ...(found && { found }), continuations });
  }
  const residualNorms = await meanResidualNorms(model, args.prompts.slice(0, NORM_PROMPTS));
  return { prompts, residualNorms };
}

const scaled = (plan: SteeringPlan, factor: number): SteeringPlan =>
  factor === 1 ? plan : { ...plan, terms: plan.terms.map((term) => ({ ...term, scale: factor * term.scale })) };

/**
 * The factor on all strengths at which the exact entropy of the choice reaches the target, of either sign; where none
 * does, the one that came nearest.
 */
async function findStrength(
  model: LanguageModel,
  prompt: Int32Array,
  plan: SteeringPlan,
  { choice, entropyNats: wanted }: NonNullable<RunArguments['target']>,
): Promise<FoundStrength> {
  const reply = choice.thought.length + Math.max(...choice.actions.map(({ length }) => length));
  const cache = await openPromptCache(model, prompt, prompt.length + reply, plan);
  const points: StrengthPoint[] = [];
  const evaluate = async (factor: number): Promise<number> => {
    const { entropyNats } = await readChoice(cache, choice, scaled(plan, factor));
    points.push({ strength: factor, entropyNats });
    return entropyNats;
  };
  const unsteered = (await evaluate(0)) - wanted;
  for (const factor of FACTORS) {
    const crossed = [await evaluate(factor), await evaluate(-factor)].some(
      (found) => (found - wanted) * unsteered <= 0,
    );
    if (crossed) break;
  }
  const { found } = await strengthForEntropy(wanted, points, evaluate);
  const off = ({ entropyNats }: StrengthPoint): number => Math.abs(entropyNats - wanted);
  const nearest = found ?? points.reduce((best, point) => (off(point) < off(best) ? point : best));
  return { factor: nearest.strength, entropyNats: nearest.entropyNats, reached: found !== null };
}

export const RUN_STEERED = { module: import.meta.url, job: runSteered };
