import { type ContrastMethod, checkPairs, orient, pairDifferences } from './contrast.js';
import { firstComponent } from './principal-component.js';

/** First right singular vector of plus and minus the differences, nothing taken off (steering-vectors). */
export const PCA_UNCENTRED: ContrastMethod = {
  name: 'pca-uncentred',
  aliases: ['pca-uncentered'],
  summary: 'first singular vector of the differences as they are (steering-vectors)',
  direction(rows, options = {}) {
    checkPairs(rows);
    const found = firstComponent(pairDifferences(rows), rows.width, 'pca-uncentred: differences', options.threads);
    return { ...found, vector: orient(found.vector, rows, options.sign) };
  },
};
