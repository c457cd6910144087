import { addMoment, emptyMoments, standardError } from '../decoding/row-comparison.js';
import { distinctN, meanEditDistance, ngramVendiScore, repetition, selfBleu } from '../decoding/text-diversity.js';
import { NO_TOKEN_MEAN, type TokenMean, tokenMean } from './ratio-mean.js';

/** One continuation. Arrays have one entry a token. */
export interface WrittenText {
  readonly tokens: Int32Array;
  /** Whether its last token ended it; that one is no part of the text. */
  readonly stopped: boolean;
  readonly surprisalNats: Float64Array;
  readonly entropyNats: Float64Array;
  readonly entropyAfterNats?: Float64Array;
  readonly keptMass?: Float64Array;
  readonly keptCount?: Int32Array;
  readonly unsteeredSurprisalNats?: Float64Array;
}

/** A mean over prompts (or continuations) with its standard error. */
type UnitMean = { readonly mean: number; readonly se: number };

/** Means over the continuations that have a token at a step. */
export interface StepMeans {
  readonly step: number;
  readonly sequences: number;
  readonly mean_entropy_nats: number;
  readonly mean_entropy_nats_se: number;
  readonly mean_entropy_after_nats: number | null;
  readonly mean_entropy_after_nats_se: number | null;
  readonly mean_kept_count: number | null;
  readonly mean_surprisal_nats: number;
  readonly mean_surprisal_nats_se: number;
}

/** What one way of decoding wrote. */
export interface TextFigures {
  readonly generations: number;
  readonly tokens: number;
  /** Share of continuations that ended by a token of end. */
  readonly ended_share: number;
  /** Under the model's own distribution: temperature 1, nothing cut. */
  readonly mean_surprisal_nats: TokenMean;
  readonly perplexity: number;
  /** Without steering; null where nothing was steered. */
  readonly mean_unsteered_surprisal_nats: TokenMean | null;
  readonly mean_entropy_nats: TokenMean;
  readonly mean_entropy_after_nats: TokenMean | null;
  readonly mean_kept_mass: TokenMean | null;
  readonly mean_kept_count: TokenMean | null;
  readonly distinct_1: number;
  readonly distinct_2: number;
  readonly distinct_3: number;
  readonly repetition_4: UnitMean;
  /** `prompts`: over the samples of each prompt, averaged over prompts; `all`: over all continuations at once. */
  readonly compared_within: 'prompts' | 'all';
  readonly self_bleu_4: UnitMean;
  readonly vendi_score: UnitMean;
  readonly edit_distance_tokens: UnitMean;
  readonly edit_distance_share: UnitMean;
  readonly by_step: readonly StepMeans[];
}

function unitMean(values: Iterable<number>): UnitMean {
  const moments = emptyMoments();
  for (const value of values) if (!Number.isNaN(value)) addMoment(moments, value);
  return { mean: moments.count === 0 ? Number.NaN : moments.mean, se: standardError(moments) };
}

/** Figures of the continuations of all prompts, [prompt][sample]. */
export function textFigures(prompts: readonly (readonly WrittenText[])[], seed: number): TextFigures {
  const all = prompts.flat();
  const plain = (text: WrittenText): Int32Array => (text.stopped ? text.tokens.subarray(0, -1) : text.tokens);
  const texts = all.map(plain);
  const within = prompts.every((samples) => samples.length > 1);
  const groups = within ? prompts.map((samples) => samples.map(plain)) : [texts];
  const mean = (of: (text: WrittenText) => ArrayLike<number> | undefined): TokenMean | null =>
    tokenMean(prompts, seed, of);
  const surprisal = mean((text) => text.surprisalNats) ?? NO_TOKEN_MEAN;
  const edits = groups.map(meanEditDistance);
  return {
    generations: all.length,
    tokens: all.reduce((sum, { tokens }) => sum + tokens.length, 0),
    ended_share: all.filter(({ stopped }) => stopped).length / all.length,
    mean_surprisal_nats: surprisal,
    perplexity: Math.exp(surprisal.mean),
    mean_unsteered_surprisal_nats: mean((text) => text.unsteeredSurprisalNats),
    mean_entropy_nats: mean((text) => text.entropyNats) ?? NO_TOKEN_MEAN,
    mean_entropy_after_nats: mean((text) => text.entropyAfterNats),
    mean_kept_mass: mean((text) => text.keptMass),
    mean_kept_count: mean((text) => text.keptCount),
    distinct_1: distinctN(texts, 1),
    distinct_2: distinctN(texts, 2),
    distinct_3: distinctN(texts, 3),
    repetition_4: unitMean(texts.map((tokens) => repetition(tokens, 4))),
    compared_within: within ? 'prompts' : 'all',
    self_bleu_4: unitMean(groups.map(selfBleu)),
    vendi_score: unitMean(groups.map((group) => ngramVendiScore(group))),
    edit_distance_tokens: unitMean(edits.map(({ tokens }) => tokens)),
    edit_distance_share: unitMean(edits.map(({ share }) => share)),
    by_step: stepMeans(all),
  };
}

function stepMeans(all: readonly WrittenText[]): StepMeans[] {
  const longest = all.reduce((most, { tokens }) => Math.max(most, tokens.length), 0);
  return Array.from({ length: longest }, (_, step) => {
    const there = all.filter(({ tokens }) => tokens.length > step);
    const at = (of: (text: WrittenText) => ArrayLike<number> | undefined): UnitMean =>
      unitMean(there.map((text) => of(text)?.[step] ?? Number.NaN));
    const before = at((text) => text.entropyNats);
    const cut = there[0]?.entropyAfterNats !== undefined;
    const after = at((text) => text.entropyAfterNats);
    const surprisal = at((text) => text.surprisalNats);
    return {
      step,
      sequences: there.length,
      mean_entropy_nats: before.mean,
      mean_entropy_nats_se: before.se,
      mean_entropy_after_nats: cut ? after.mean : null,
      mean_entropy_after_nats_se: cut ? after.se : null,
      mean_kept_count: cut ? at((text) => text.keptCount).mean : null,
      mean_surprisal_nats: surprisal.mean,
      mean_surprisal_nats_se: surprisal.se,
    };
  });
}
