import { InputError } from '../../errors.js';
import { meanRow, norm } from '../vector-measures.js';
import { type ContrastMethod, checkPairs, pairDifferences } from './contrast.js';

/** Mean of positive minus negative, not normalised (contrastive activation addition, Rimsky et al. 2024). */
export const MEAN_DIFFERENCE: ContrastMethod = {
  name: 'mean-difference',
  aliases: ['mean', 'mean-diff', 'caa'],
  summary: 'mean of positive minus negative, not normalised',
  direction(rows) {
    checkPairs(rows);
    const vector = meanRow(pairDifferences(rows), rows.width);
    if (norm(vector) === 0)
      throw new InputError('mean-difference: the two sides have the same mean, so there is no direction');
    return { vector, explainedVarianceRatio: null };
  },
};
