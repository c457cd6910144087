import type { Random } from '../../random.js';
import type { Scorer } from './scorer.js';

/** Plain data. */
export type Plain = null | boolean | number | string | readonly Plain[] | { readonly [key: string]: Plain };

/** A way to propose formulas. One round is a batch of offers; its random numbers are keyed by its number. */
export interface Searcher {
  round(number: number, random: Random, scorer: Scorer): void;
  /** Everything that the next round depends on. */
  state(): Plain;
  restore(state: Plain): void;
}
