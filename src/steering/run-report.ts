import { distinctN } from '../decoding/text-diversity.js';
import type { Cell } from '../report/csv.js';
import { escapeToken } from '../report/escape.js';
import { NO_TOKEN_MEAN, type TokenMean, tokenMean } from './ratio-mean.js';
import type { PromptRun } from './run-job.js';

/** Name of the JSON report of `steer run`, without its prefix. */
export const RUN_SCHEMA = 'steer-run';

/** Columns of `--out`: one row a continuation. */
export const RUN_COLUMNS = [
  'prompt',
  'prompt_id',
  'sample',
  'steered',
  'strength_factor',
  'action_entropy_nats',
  'tokens',
  'ended',
  'mean_entropy_nats',
  'mean_surprisal_nats',
  'unsteered_perplexity',
  'mean_kl_nats',
  'text',
] as const;

/** Columns of `--table`: one row a token. */
export const RUN_TOKEN_COLUMNS = [
  'prompt',
  'prompt_id',
  'sample',
  'position',
  'token_id',
  'token',
  'entropy_nats',
  'entropy_after_nats',
  'surprisal_nats',
  'unsteered_surprisal_nats',
  'kl_nats',
] as const;

/** What is steered at one block, and how strong that is. */
export type SteeredLayer = {
  readonly layer: number;
  readonly operator: string;
  readonly strength: number;
  readonly vector_norm: number;
  readonly residual_norm: number | null;
  /** |strength| |v| over the mean norm of the residual stream; null for operators without a multiplier. */
  readonly effective_strength: number | null;
};

/** A mean over tokens with its 95 % bootstrap interval over prompts. */

/** Body of the report. */
export interface RunBody {
  readonly prompts: number;
  readonly continuations: number;
  readonly tokens: number;
  readonly steered_prompts: number;
  readonly steering: readonly SteeredLayer[];
  /** Entropy of the prediction at temperature 1, with steering. */
  readonly mean_entropy_nats: TokenMean;
  readonly mean_surprisal_nats: TokenMean;
  /** Of the steered text under the model as it is; null where that was not measured. */
  readonly mean_unsteered_surprisal_nats: TokenMean | null;
  readonly unsteered_perplexity: number | null;
  readonly mean_kl_nats: TokenMean | null;
  readonly distinct_2: number;
  readonly target: {
    readonly target_nats: number;
    readonly reached_prompts: number;
    readonly mean_strength_factor: number;
    readonly mean_action_entropy_nats: number;
  } | null;
  readonly assumptions: readonly string[];
}

const sumOf = (values: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum;
};

const meanOf = (values: ArrayLike<number>): number => sumOf(values) / values.length;

/** One row a continuation. */
export function* runRows(
  prompts: readonly PromptRun[],
  ids: readonly string[],
  textOf: (tokens: Int32Array) => string,
): Generator<Cell[]> {
  for (const [p, { found, continuations }] of prompts.entries()) {
    for (const [sample, { generated, drift }] of continuations.entries()) {
      yield [
        p,
        ids[p],
        sample,
        generated.steered,
        found?.factor ?? null,
        found?.entropyNats ?? null,
        generated.tokens.length,
        generated.ended,
        meanOf(generated.entropyNats),
        meanOf(generated.surprisalNats),
        drift ? Math.exp(meanOf(drift.unsteeredSurprisalNats)) : null,
        drift ? meanOf(drift.klNats) : null,
        textOf(generated.tokens),
      ];
    }
  }
}

/** One row a token. */
export function* runTokenRows(
  prompts: readonly PromptRun[],
  ids: readonly string[],
  bytesOf: (token: number) => Uint8Array,
): Generator<Cell[]> {
  for (const [p, { continuations }] of prompts.entries()) {
    for (const [sample, { generated, drift }] of continuations.entries()) {
      for (const [i, token] of generated.tokens.entries()) {
        yield [
          p,
          ids[p],
          sample,
          i,
          token,
          escapeToken(bytesOf(token)),
          generated.entropyNats[i],
          generated.entropyAfterNats[i],
          generated.surprisalNats[i],
          drift?.unsteeredSurprisalNats[i] ?? null,
          drift?.klNats[i] ?? null,
        ];
      }
    }
  }
}

/** The report of a run. */
export function runBody(
  prompts: readonly PromptRun[],
  more: Pick<RunBody, 'steering' | 'assumptions'> & { readonly seed: number; readonly targetNats?: number },
): RunBody {
  const all = prompts.flatMap(({ continuations }) => continuations);
  const found = prompts.flatMap((prompt) => (prompt.found ? [prompt.found] : []));
  const grouped = prompts.map(({ continuations }) => continuations);
  const mean = (of: (text: PromptRun['continuations'][number]) => ArrayLike<number> | undefined): TokenMean | null =>
    tokenMean(grouped, more.seed, of);
  const unsteered = mean(({ drift }) => drift?.unsteeredSurprisalNats);
  return {
    prompts: prompts.length,
    continuations: all.length,
    tokens: all.reduce((sum, { generated }) => sum + generated.tokens.length, 0),
    steered_prompts: prompts.filter(({ continuations }) => continuations.some(({ generated }) => generated.steered))
      .length,
    steering: more.steering,
    mean_entropy_nats: mean(({ generated }) => generated.entropyNats) ?? NO_TOKEN_MEAN,
    mean_surprisal_nats: mean(({ generated }) => generated.surprisalNats) ?? NO_TOKEN_MEAN,
    mean_unsteered_surprisal_nats: unsteered,
    unsteered_perplexity: unsteered ? Math.exp(unsteered.mean) : null,
    mean_kl_nats: mean(({ drift }) => drift?.klNats),
    distinct_2: distinctN(
      all.map(({ generated }) => generated.tokens),
      2,
    ),
    target:
      more.targetNats === undefined
        ? null
        : {
            target_nats: more.targetNats,
            reached_prompts: found.filter(({ reached }) => reached).length,
            mean_strength_factor: meanOf(found.map(({ factor }) => factor)),
            mean_action_entropy_nats: meanOf(found.map(({ entropyNats }) => entropyNats)),
          },
    assumptions: more.assumptions,
  };
}
