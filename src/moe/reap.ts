import { InputError } from '../errors.js';
import type { ExpertStatistics, LayerStatistics } from './types.js';

/**
 * Scores by which experts are kept, [E] each (REAP, 2025, and the baselines of the same pass). p is the router's
 * probability of an expert, `norm` the Euclidean norm of its output E_e(x), the tokens those routed to it.
 */
export interface ExpertScores {
  /** Tokens routed to the expert. */
  readonly frequency: Float64Array;
  /** Mean over its tokens of p * norm; 0 for an expert without tokens. */
  readonly reap: Float64Array;
  /** Expert activation norm: sum and mean of norm. */
  readonly eanSum: Float64Array;
  readonly eanMean: Float64Array;
  /** Sum of p * norm. */
  readonly weightedEanSum: Float64Array;
  /** Sum of p. */
  readonly weightedFrequency: Float64Array;
}

/** The outputs of a layer's experts. @throws InputError when they were not watched, saying how they are */
export function watchedOutputs({ routing, outputs }: LayerStatistics): ExpertStatistics {
  if (outputs) return outputs;
  throw new InputError(
    `layer ${routing.layer}: the statistics are of the router alone: calibrate with --outputs routed or all`,
  );
}

/**
 * Scores of a layer's experts.
 * @param options.renormalize p divided by its sum over the chosen experts, the authors' later recommendation. Default true
 * @throws InputError when the outputs of experts were not watched
 */
export function expertScores(layer: LayerStatistics, options: { readonly renormalize?: boolean } = {}): ExpertScores {
  const { renormalize = true } = options;
  const { counts, gateMass } = layer.routing;
  const outputs = watchedOutputs(layer);
  const weightedEanSum = renormalize ? outputs.renormalizedNormSum : outputs.weightedNormSum;
  const mean = (sums: Float64Array): Float64Array => sums.map((sum, e) => (counts[e] > 0 ? sum / counts[e] : 0));
  return {
    frequency: counts,
    reap: mean(weightedEanSum),
    eanSum: outputs.outputNormSum,
    eanMean: mean(outputs.outputNormSum),
    weightedEanSum,
    weightedFrequency: renormalize ? gateMass : outputs.weightSum,
  };
}

/** Experts from the lowest score to the highest, ties by index: the order in which they are pruned, [E]. */
export function pruneOrder(scores: ArrayLike<number>): Int32Array {
  return Int32Array.from({ length: scores.length }, (_, e) => e).sort((a, b) => scores[a] - scores[b] || a - b);
}

export interface SuperExpertOptions {
  /** Largest magnitude of an output (default), or the largest entry with its sign, as in the released code. */
  readonly by?: 'magnitude' | 'signed';
  /** Default 0.995. */
  readonly quantile?: number;
  /** Share of the layers, from the first, that may have some. Default 0.75. */
  readonly layers?: number;
}

/**
 * Super experts, which pruning must keep: those whose largest output exceeds both the quantile over all layers and experts
 * (linear between order statistics) and a tenth of the largest, in the first layers alone.
 *
 * @param layers all layers with experts, in order
 * @returns by layer: indices of its super experts, ascending
 * @throws InputError when the outputs of experts were not watched
 */
export function superExperts(layers: readonly LayerStatistics[], options: SuperExpertOptions = {}): Int32Array[] {
  const { by = 'magnitude', quantile = 0.995, layers: share = 0.75 } = options;
  // An expert that no token reached has shown nothing: 0.
  const largest = layers.map((layer) => {
    const { largestMagnitude, largestOutput } = watchedOutputs(layer);
    return (by === 'magnitude' ? largestMagnitude : largestOutput).map((value) => Math.max(0, value));
  });
  const sorted = Float64Array.from(largest.flatMap((values) => [...values])).sort();
  if (sorted.length === 0) return [];
  const place = quantile * (sorted.length - 1);
  const below = Math.floor(place);
  const above = sorted[Math.min(below + 1, sorted.length - 1)];
  const threshold = Math.max(sorted[below] + (place - below) * (above - sorted[below]), sorted[sorted.length - 1] / 10);
  const allowed = Math.floor(share * layers.length);
  return largest.map((values, l) =>
    Int32Array.from(l < allowed ? [...values.keys()].filter((e) => values[e] > threshold) : []),
  );
}
