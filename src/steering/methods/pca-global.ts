import { type ContrastMethod, checkPairs, orient } from './contrast.js';
import { centred, firstComponent } from './principal-component.js';

/** First principal component of all rows minus their overall mean (IBM `pca_center`). */
export const PCA_GLOBAL: ContrastMethod = {
  name: 'pca-global',
  aliases: [],
  summary: 'first component of all rows minus their overall mean (IBM pca_center)',
  direction(rows, options = {}) {
    checkPairs(rows);
    const found = firstComponent(
      centred(rows.data, rows.width),
      rows.width,
      'pca-global: rows minus their mean',
      options.threads,
    );
    return { ...found, vector: orient(found.vector, rows, options.sign) };
  },
};
