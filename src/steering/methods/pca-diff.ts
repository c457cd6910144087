import { type ContrastMethod, checkPairs, orient, pairDifferences } from './contrast.js';
import { centred, firstComponent } from './principal-component.js';

/**
 * First principal component of the differences after their mean is taken off (repeng's default). What is taken off is the
 * mean difference, so the result can be nearly orthogonal to it.
 */
export const PCA_DIFF: ContrastMethod = {
  name: 'pca-diff',
  aliases: ['pca-difference'],
  summary: 'first component of the centred differences (repeng pca_diff); loses the mean difference',
  direction(rows, options = {}) {
    checkPairs(rows);
    const differences = centred(pairDifferences(rows), rows.width);
    const found = firstComponent(differences, rows.width, 'pca-diff: differences minus their mean', options.threads);
    return { ...found, vector: orient(found.vector, rows, options.sign) };
  },
};
