import type { DecodeResult } from '../decoding/decode-job.js';
import type { PathsOfPrompt } from '../decoding/path-generation.js';
import type { PathNucleusSettings } from '../decoding/path-nucleus.js';
import {
  addMoment,
  emptyMoments,
  type Moments,
  type RowComparison,
  type RowFigures,
  standardError,
} from '../decoding/row-comparison.js';
import { formatSamplingPlan } from '../decoding/sampler-text.js';
import { meanEditDistance } from '../decoding/text-diversity.js';
import { TOP_H_RULES } from '../decoding/types.js';
import { quantilesOf } from '../linalg/quantile-sketch.js';
import { type TextFigures, textFigures, type WrittenText } from './decode-text.js';

/** Name of the JSON report of `steer decode`, without its prefix. */
export const DECODE_SCHEMA = 'steer-decode';

/** Columns of `--out`: one row a sampler. */
export const DECODE_COLUMNS = [
  'sampler',
  'plan',
  'generations',
  'tokens',
  'ended_share',
  'mean_surprisal_nats',
  'mean_surprisal_nats_se',
  'perplexity',
  'distinct_1',
  'distinct_2',
  'distinct_3',
  'repetition_4',
  'self_bleu_4',
  'vendi_score',
  'edit_distance_share',
  'rows',
  'mean_entropy_tempered_nats',
  'mean_entropy_after_nats',
  'mean_kept_mass',
  'mean_kept_count',
  'median_kept_count',
  'mean_divergence_nats',
  'bound_held_share',
  'mean_optimality_ratio',
] as const;

/** Columns of `--table`: one row a token that was drawn. */
export const DECODE_STEP_COLUMNS = [
  'sampler',
  'prompt',
  'id',
  'sample',
  'step',
  'token_id',
  'token',
  'surprisal_nats',
  'running_perplexity',
  'entropy_nats',
  'entropy_tempered_nats',
  'entropy_after_nats',
  'entropy_ratio',
  'kept_mass',
  'kept_count',
  'divergence_nats',
  'top_h_bound_nats',
  'exact_mass',
  'optimality_ratio',
  'unsteered_surprisal_nats',
] as const;

/** A mean over rows that are taken as independent. */
type RowMean = { readonly mean: number; readonly se: number };

const rowMean = (moments: Moments): RowMean => ({
  mean: moments.count === 0 ? Number.NaN : moments.mean,
  se: standardError(moments),
});

const QUANTILES = [0.05, 0.25, 0.5, 0.75, 0.95];

/** What one sampler or rule keeps of all rows. */
export interface KeptFigures {
  readonly mean_entropy_tempered_nats: RowMean;
  readonly mean_entropy_after_nats: RowMean;
  readonly mean_entropy_ratio: RowMean;
  readonly mean_kept_mass: RowMean;
  readonly mean_kept_count: RowMean;
  /** At 5, 25, 50, 75 and 95 %. */
  readonly kept_count_quantiles: readonly number[];
  readonly mean_divergence_nats: RowMean;
  readonly mean_perplexity_after: RowMean;
  /** Share of rows with H(q) <= alpha H(p); null without such a bound. */
  readonly bound_held_share: number | null;
}

function keptFigures(figures: RowFigures): KeptFigures {
  return {
    mean_entropy_tempered_nats: rowMean(figures.temperedEntropyNats),
    mean_entropy_after_nats: rowMean(figures.entropyAfterNats),
    mean_entropy_ratio: rowMean(figures.entropyRatio),
    mean_kept_mass: rowMean(figures.keptMass),
    mean_kept_count: rowMean(figures.keptCount),
    kept_count_quantiles: quantilesOf(figures.keptCounts, QUANTILES),
    mean_divergence_nats: rowMean(figures.divergenceNats),
    mean_perplexity_after: rowMean(figures.perplexity),
    bound_held_share: figures.bounded === 0 ? null : figures.held / figures.bounded,
  };
}

export interface ExactBody {
  readonly candidates: number;
  readonly rows: number;
  readonly mean_ratio: RowMean;
  readonly least_ratio: number;
  /** Share of the searched rows where the greedy prefix is the optimum. */
  readonly optimal_share: number;
  /** Rows whose greedy set is larger than the candidates. */
  readonly rows_beyond_candidates: number;
}

export interface SamplerBody {
  readonly name: string;
  /** Every parameter written out. */
  readonly plan: string;
  readonly text: TextFigures | null;
  readonly kept: KeptFigures | null;
  readonly exact: ExactBody | null;
}

export interface RuleBody {
  readonly alpha: number;
  readonly temperature: number;
  readonly rules: readonly ({ readonly rule: string } & KeptFigures)[];
  /** Mean Jaccard index of the kept sets, in the order of `rules`. */
  readonly jaccard: readonly (readonly number[])[];
}

export interface PathBody {
  readonly settings: Readonly<Record<string, number | string>>;
  readonly text: TextFigures;
  readonly mean_candidates: RowMean;
  readonly mean_joint_entropy_nats: RowMean;
  readonly mean_effective_paths: RowMean;
  readonly mean_nucleus_candidates: RowMean;
  /** Over pairs of final paths of a prompt, mean over prompts. */
  readonly mean_path_edit_distance_tokens: RowMean;
  readonly finished_share: number;
  readonly answers: readonly { readonly prompt: number; readonly answer: string; readonly weight: number }[] | null;
}

/** Body of the report. */
export interface DecodeBody {
  readonly source: 'model' | 'logits';
  readonly prompts: number | null;
  readonly samples: number | null;
  readonly vocabulary_size: number;
  /** Rows of logits that every sampler was run on; null where that was not done. */
  readonly rows: number | null;
  readonly mean_entropy_nats: RowMean | null;
  readonly samplers: readonly SamplerBody[];
  /** Mean Jaccard index of the kept sets of two samplers on the same rows, in the order of `samplers`. */
  readonly jaccard: readonly (readonly number[])[] | null;
  readonly top_h_rules: readonly RuleBody[];
  readonly path_nucleus: PathBody | null;
  readonly assumptions: readonly string[];
  readonly warnings: readonly string[];
}

function matrixOf(sums: Float64Array, rows: number): number[][] {
  const n = Math.sqrt(sums.length);
  return Array.from({ length: n }, (_, a) => Array.from(sums.subarray(a * n, (a + 1) * n), (sum) => sum / rows));
}

/** The part of the body that rows alone decide, and with `decoded` the text of every sampler. */
export function samplerBodies(
  names: readonly { readonly name: string; readonly plan: Parameters<typeof formatSamplingPlan>[0] }[],
  comparison: RowComparison | undefined,
  texts: readonly TextFigures[] | undefined,
): SamplerBody[] {
  return names.map(({ name, plan }, s) => {
    const exact = comparison?.exact[s];
    return {
      name,
      plan: formatSamplingPlan(plan),
      text: texts?.[s] ?? null,
      kept: comparison ? keptFigures(comparison.plans[s]) : null,
      exact: exact
        ? {
            candidates: comparison?.settings.exactCandidates ?? 0,
            rows: exact.ratio.count,
            mean_ratio: rowMean(exact.ratio),
            least_ratio: exact.ratio.count === 0 ? Number.NaN : exact.least,
            optimal_share: exact.optimal / exact.ratio.count,
            rows_beyond_candidates: exact.beyond,
          }
        : null,
    };
  });
}

/** What rows say beside the samplers: their overlap, and the rules of top-H. */
export function comparisonBody(
  comparison: RowComparison | undefined,
): Pick<DecodeBody, 'rows' | 'mean_entropy_nats' | 'jaccard' | 'top_h_rules'> {
  if (!comparison) return { rows: null, mean_entropy_nats: null, jaccard: null, top_h_rules: [] };
  return {
    rows: comparison.rows,
    mean_entropy_nats: rowMean(comparison.entropyNats),
    jaccard: comparison.plans.length > 1 ? matrixOf(comparison.overlap, comparison.rows) : null,
    top_h_rules: comparison.rules.map(({ alpha, figures, overlap }) => ({
      alpha,
      temperature: comparison.settings.temperature,
      rules: TOP_H_RULES.map((rule, r) => ({ rule, ...keptFigures(figures[r]) })),
      jaccard: matrixOf(overlap, comparison.rows),
    })),
  };
}

/** Text of a sampler's continuations, by prompt. */
export function writtenText(decoded: DecodeResult['decoded'][number]): WrittenText[][] {
  return decoded.map((samples) =>
    samples.map((sequence) => ({
      tokens: sequence.tokens,
      stopped: sequence.ended === 'stop',
      surprisalNats: sequence.surprisalNats,
      entropyNats: sequence.entropyNats,
      entropyAfterNats: sequence.entropyAfterNats,
      keptMass: sequence.keptMass,
      keptCount: sequence.keptCount,
      ...(sequence.unsteeredSurprisalNats && { unsteeredSurprisalNats: sequence.unsteeredSurprisalNats }),
    })),
  );
}

/** The report of path nucleus. `answerOf` reads an answer from the tokens of a path, where answers are wanted. */
export function pathBody(
  settings: PathNucleusSettings,
  prompts: readonly PathsOfPrompt[],
  seed: number,
  answerOf?: (tokens: readonly number[]) => string | undefined,
): PathBody {
  const written = prompts.map(({ paths }) =>
    paths.map(({ tokens, finished, surprisalNats, entropyNats }) => ({
      tokens: Int32Array.from(tokens),
      stopped: finished,
      surprisalNats,
      entropyNats,
    })),
  );
  const steps = prompts.flatMap((prompt) => prompt.steps);
  const over = (values: readonly number[]): RowMean => {
    const moments = emptyMoments();
    for (const value of values) if (!Number.isNaN(value)) addMoment(moments, value);
    return rowMean(moments);
  };
  const all = prompts.flatMap(({ paths }) => paths);
  return {
    settings: {
      k: settings.width,
      top_p_token: settings.tokenMass,
      top_p_path: settings.pathMass,
      select: settings.select,
      length_penalty: settings.lengthPenalty,
      temperature: settings.temperature,
    },
    text: textFigures(written, seed),
    mean_candidates: over(steps.map((step) => step.candidates)),
    mean_joint_entropy_nats: over(steps.map((step) => step.jointEntropyNats)),
    mean_effective_paths: over(steps.map((step) => step.effectivePaths)),
    mean_nucleus_candidates: over(steps.map((step) => step.nucleusCandidates)),
    mean_path_edit_distance_tokens: over(
      written.map((paths) => meanEditDistance(paths.map(({ tokens }) => tokens)).tokens),
    ),
    finished_share: all.filter(({ finished }) => finished).length / all.length,
    answers: answerOf ? prompts.map(({ paths }, prompt) => ({ prompt, ...vote(paths, answerOf) })) : null,
  };
}

/** The answer with the largest weight of paths that give one; an empty one where none does. */
function vote(
  paths: PathsOfPrompt['paths'],
  answerOf: (tokens: readonly number[]) => string | undefined,
): { answer: string; weight: number } {
  const weights = new Map<string, number>();
  for (const { tokens, weight } of paths) {
    const answer = answerOf(tokens);
    if (answer !== undefined) weights.set(answer, (weights.get(answer) ?? 0) + weight);
  }
  let best = { answer: '', weight: 0 };
  for (const [answer, weight] of weights) if (weight > best.weight) best = { answer, weight };
  return best;
}
