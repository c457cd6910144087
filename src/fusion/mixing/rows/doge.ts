import { checkLosses } from '../checked-losses.js';
import type { MixingMethod } from '../types.js';
import { evidenceOf } from './evidence.js';
import { createMean, createWeights } from './weights.js';

/** Keeps the scores finite where all gradients vanish. */
const LEAST_NORM = 1e-6;

/**
 * Scores of DoGE: lr <g_j, g_val> / (mean_j |g_j| + 1e-6), clipped to [0, clip lr].
 * @param inner <g_j, g_val> of every group
 * @param norms |g_j|; 0 for groups that the batch does not hold
 */
export function dogeScores(
  inner: Float64Array,
  norms: Float64Array,
  settings: { readonly learningRate: number; readonly clip: number },
): Float64Array {
  const { learningRate, clip } = settings;
  const scale = norms.reduce((sum, norm) => sum + norm, 0) / norms.length + LEAST_NORM;
  return inner.map((product) => Math.min(clip * learningRate, Math.max(0, (learningRate * product) / scale)));
}

/**
 * DoGE (Fan, Pagliardini, Jaggi 2024): what a step on group j does to the validation loss, by the inner product of their
 * gradients; p_j ~ p_j exp(s_j / mu). Only the column sums of its matrix are known. The result is the mean over all updates.
 */
export const doge: MixingMethod = {
  name: 'doge',
  summary:
    'inner products of the gradients of groups and validation text, exponentiated gradient, mean over the updates',
  law: 'linear-dynamic',
  evidence: 'alignments',
  parameters: () => ({ mu: 0.01, clip: 5, floor: 0 }),
  create(start) {
    const { groups, parameters } = start;
    const { mu, clip } = parameters;
    const weights = createWeights(start);
    const mean = createMean(groups.length);
    return {
      get proportions() {
        return weights.proportions;
      },
      update(evidence) {
        const { inner, norms, learningRate } = evidenceOf(evidence, 'alignments');
        checkLosses(inner, groups, 'inner products');
        checkLosses(norms, groups, 'norms of the gradients');
        const exponent = dogeScores(inner, norms, { learningRate, clip }).map((score) => score / mu);
        const proportions = weights.multiply(exponent);
        mean.add(proportions);
        return { matrix: null, used: null, exponent, proportions, condition: null, signalToNoise: null };
      },
      result: () => mean.value() ?? weights.proportions,
    };
  },
};
