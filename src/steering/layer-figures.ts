import { randomVector, shuffledVector } from './controls.js';
import { type ActivationNorms, scaleVector, type VectorScale } from './scaling.js';
import { cosine, norm } from './vector-measures.js';

/** What is said of the vector of one layer. Figures that a method or kind of data does not have are NaN. */
export interface LayerFigures {
  readonly layer: number;
  /** Length as stored, and as the method gave it. */
  readonly vector_norm: number;
  readonly method_norm: number;
  /** Mean of |z|, and of |z - zbar| (zbar the mean of the run, or of the pair). */
  readonly mean_activation_norm: number;
  readonly mean_centred_norm: number;
  /** |v| over mean |z|, and times the multiplier: the effective strength. */
  readonly norm_ratio: number;
  readonly effective_strength: number;
  /** Probability that a held-out positive (a step of the upper entropy quartile) projects higher than a negative. */
  readonly separation_auc: number;
  readonly separation_auc_se: number;
  /** Share of held-out pairs whose positive projects higher. */
  readonly pair_accuracy: number;
  readonly pair_accuracy_se: number;
  /** Correlation of <z - zbar, v> with the entropy over the steps that v was learnt from, and its square. */
  readonly correlation: number;
  readonly explained_entropy_share: number;
  /** The same with the vector of all runs but the step's own. */
  readonly held_out_correlation: number;
  readonly held_out_correlation_se: number;
  readonly held_out_correlation_low: number;
  readonly held_out_correlation_high: number;
  /** Held-out correlations where entropies are permuted inside their runs: mean, deviation, and how rare the own one is. */
  readonly permuted_correlation_mean: number;
  readonly permuted_correlation_sd: number;
  readonly permutation_p: number;
  /** Share of variance that the method's component explains. */
  readonly explained_variance_ratio: number;
  /** Cosine with the mean difference (of pairs, or of the outer entropy quartiles). */
  readonly cosine_mean_difference: number;
  /** Cosines with the controls of equal norm, and what chance gives. */
  readonly cosine_random: number;
  readonly cosine_random_expected_sd: number;
  readonly cosine_shuffled: number;
  readonly cosine_shuffled_expected: number;
  readonly cosine_shuffled_expected_sd: number;
}

/** The vector of one layer and what is known of it. */
export interface LayerVector {
  readonly layer: number;
  /** `[width]`, scaled. */
  readonly vector: Float64Array;
  readonly figures: LayerFigures;
  /** Of each row: <z - zbar, v>, and with the vector that has not seen the row (its scale as the method gives it). */
  readonly projections: Float64Array;
  readonly heldOutProjections: Float64Array;
}

/**
 * Cosines with the controls and their values by chance: a uniform direction has mean 0 and deviation 1/sqrt(d); a random
 * order of the entries has mean (sum v)^2 / (d |v|^2) and deviation sum (v - vbar)^2 / (|v|^2 sqrt(d - 1)).
 */
export function controlFigures(
  vector: Float64Array,
  seed: number,
): Pick<
  LayerFigures,
  | 'cosine_random'
  | 'cosine_random_expected_sd'
  | 'cosine_shuffled'
  | 'cosine_shuffled_expected'
  | 'cosine_shuffled_expected_sd'
> {
  const width = vector.length;
  const squared = norm(vector) ** 2;
  const average = vector.reduce((sum, value) => sum + value, 0) / width;
  const spread = vector.reduce((sum, value) => sum + (value - average) ** 2, 0);
  return {
    cosine_random: cosine(vector, randomVector(vector, seed)),
    cosine_random_expected_sd: 1 / Math.sqrt(width),
    cosine_shuffled: cosine(vector, shuffledVector(vector, seed)),
    cosine_shuffled_expected: (width * average ** 2) / squared,
    cosine_shuffled_expected_sd: spread / (squared * Math.sqrt(Math.max(1, width - 1))),
  };
}

/** What all vectors of a run share. */
export interface VectorSettings {
  readonly scale: VectorScale;
  /** Strength that `effective_strength` is stated for. */
  readonly multiplier: number;
  readonly seed: number;
}

/** Scales the method's vector; the norms are those of the activations. */
export function scaled(
  vector: Float64Array,
  norms: ActivationNorms,
  { scale, multiplier, seed }: VectorSettings,
): {
  readonly vector: Float64Array;
  readonly figures: Pick<
    LayerFigures,
    'vector_norm' | 'method_norm' | 'mean_activation_norm' | 'norm_ratio' | 'effective_strength'
  > &
    ReturnType<typeof controlFigures>;
} {
  const result = scaleVector(vector, scale, norms);
  const length = norm(result);
  const ratio = length / norms.meanNorm;
  return {
    vector: result,
    figures: {
      vector_norm: length,
      method_norm: norm(vector),
      mean_activation_norm: norms.meanNorm,
      norm_ratio: ratio,
      effective_strength: multiplier * ratio,
      ...controlFigures(result, seed),
    },
  };
}
