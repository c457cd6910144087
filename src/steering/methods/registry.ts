import { didYouMean, InputError } from '../../errors.js';
import type { ContrastMethod } from './contrast.js';
import { LAT } from './lat.js';
import { LOGISTIC } from './logistic.js';
import { MEAN_DIFFERENCE } from './mean-difference.js';
import { PCA_DIFF } from './pca-diff.js';
import { PCA_GLOBAL } from './pca-global.js';
import { PCA_PAIRWISE } from './pca-pairwise.js';
import { PCA_UNCENTRED } from './pca-uncentred.js';

/** Methods on contrast pairs. */
export const CONTRAST_METHODS: readonly ContrastMethod[] = [
  MEAN_DIFFERENCE,
  PCA_PAIRWISE,
  PCA_DIFF,
  PCA_GLOBAL,
  PCA_UNCENTRED,
  LOGISTIC,
  LAT,
];

/** The method that learns from entropies instead of pairs. */
export const EAST = 'east';

export const METHOD_NAMES: readonly string[] = [EAST, ...CONTRAST_METHODS.map(({ name }) => name)];

/**
 * The method of a name or alias, underscores as hyphens; `east` for the entropic one.
 * @throws InputError with the nearest name
 */
export function findMethod(text: string): ContrastMethod | typeof EAST {
  const name = text.trim().toLowerCase().replaceAll('_', '-');
  if (name === EAST) return EAST;
  const found = CONTRAST_METHODS.find((method) => method.name === name || method.aliases.includes(name));
  if (found) return found;
  const known = [...METHOD_NAMES, ...CONTRAST_METHODS.flatMap(({ aliases }) => aliases)];
  throw new InputError(`--method ${text}: no such method${didYouMean(name, known)} known: ${METHOD_NAMES.join(', ')}`);
}
