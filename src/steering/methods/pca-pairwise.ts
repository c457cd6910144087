import { type ContrastMethod, checkPairs, orient, pairDifferences } from './contrast.js';
import { firstComponent } from './principal-component.js';

/**
 * First principal component of rows minus the midpoint of their pair (repeng `pca_center`, IBM `pca_pairwise`). The rows
 * are then plus and minus half a difference, so half of the differences decompose alike.
 */
export const PCA_PAIRWISE: ContrastMethod = {
  name: 'pca-pairwise',
  aliases: ['pca', 'pca-center'],
  summary: 'first component of rows minus the midpoint of their pair (repeng pca_center, IBM pca_pairwise)',
  direction(rows, options = {}) {
    checkPairs(rows);
    const halves = pairDifferences(rows).map((value) => value / 2);
    const found = firstComponent(
      halves,
      rows.width,
      'pca-pairwise: rows minus the midpoint of their pair',
      options.threads,
    );
    return { ...found, vector: orient(found.vector, rows, options.sign) };
  },
};
