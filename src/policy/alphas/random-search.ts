import { randomFormula, type SearchSpace } from './search-space.js';
import type { Searcher } from './searcher.js';

const ROUND = 64;

/** Random valid formulas, each independent of all others. */
export function createRandomSearch(space: SearchSpace): Searcher {
  return {
    round(_number, random, scorer) {
      for (let i = 0; i < ROUND && !scorer.done; i++) {
        scorer.offer(randomFormula(random, space));
        scorer.mark(null);
      }
    },
    state: () => null,
    restore: () => undefined,
  };
}
