import { checkLosses } from '../checked-losses.js';
import { diagonalMatrix } from '../group-matrix.js';
import type { MixingMethod } from '../types.js';
import { evidenceOf } from './evidence.js';
import { createMean, createWeights } from './weights.js';

/** Score of a group that has not been seen yet. */
const FIRST_SCORE = 1e-6;

/**
 * DoReMi (Xie et al. 2023): the matrix is diagonal, the excess of each loss over that of a reference model, clipped at 0;
 * p_j ~ p_j exp(mu e_j), then mixed with the uniform mixture. A difference of exactly 0 (a group without rows in the batch)
 * takes the group's score of before. The result is the mean of the proportions over all updates.
 */
export const doremi: MixingMethod = {
  name: 'doremi',
  summary: 'excess loss over a reference model, exponentiated gradient, mean over the updates',
  law: 'linear-dynamic',
  evidence: 'excess',
  parameters: () => ({ mu: 0.01, smoothing: 1e-3, floor: 0 }),
  create(start) {
    const { groups, parameters } = start;
    const { mu, smoothing } = parameters;
    const k = groups.length;
    const weights = createWeights(start);
    const mean = createMean(k);
    const scores = start.scores?.slice() ?? new Float64Array(k).fill(FIRST_SCORE);
    return {
      get proportions() {
        return weights.proportions;
      },
      update(evidence) {
        const { losses, reference } = evidenceOf(evidence, 'excess');
        checkLosses(losses, groups, 'losses');
        checkLosses(reference, groups, 'losses of the reference');
        for (let j = 0; j < k; j++) {
          const difference = losses[j] - reference[j];
          if (difference !== 0) scores[j] = Math.max(0, difference);
        }
        const matrix = diagonalMatrix(scores);
        const exponent = scores.map((score) => mu * score);
        const moved = weights.multiply(exponent);
        const proportions = weights.replace(moved.map((share) => (1 - smoothing) * share + smoothing / k));
        mean.add(proportions);
        return { matrix, used: matrix, exponent, proportions, condition: null, signalToNoise: null };
      },
      result: () => mean.value() ?? weights.proportions,
    };
  },
};
