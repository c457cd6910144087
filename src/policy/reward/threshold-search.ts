import {
  type CachedSimplexOptions,
  type CachedSimplexResult,
  cachedSimplexSearch,
  type SimplexPass,
} from '../../linalg/cached-simplex.js';
import { createRandom } from '../../random.js';
import type { DataBox, ScoredRuns, Surface } from './types.js';

/** Where the score of a point of thresholds comes from. */
export const OBJECTIVES = ['fit', 'nearest', 'table'] as const;
export type Objective = (typeof OBJECTIVES)[number];

export interface ThresholdSearchOptions extends CachedSimplexOptions {
  readonly objective: Objective;
  /** Range of every threshold, in which the first simplex is drawn: from the initial to the largest reward. */
  readonly range: DataBox;
  readonly seed: number;
}

/** A search that has ended, or that waits for the score of a point that the table does not have. */
export interface ThresholdSearch {
  readonly passes: readonly SimplexPass[];
  /** Thresholds [n] and scores in the order in which they were asked for. */
  readonly evaluated: readonly { readonly thresholds: Float64Array; readonly score: number }[];
  readonly final: readonly Float64Array[];
  readonly nearAnswers: number;
  readonly converged: boolean;
  readonly best?: { readonly thresholds: Float64Array; readonly score: number };
  /** The point whose score the table lacks. */
  readonly next?: Float64Array;
}

/** n + 1 points drawn uniformly in the ranges, in the order of the names. */
export function drawSimplex({ low, high }: DataBox, seed: number): Float64Array[] {
  const random = createRandom(seed).fork(0x51);
  return Array.from({ length: low.length + 1 }, () =>
    low.map((value, i) => value + (high[i] - value) * random.uniform()),
  );
}

/** Score of the run whose rewards are nearest, coordinates over the ranges. */
export function nearestScore({ rewards, score, rows, names }: ScoredRuns, { low, high }: DataBox): Surface {
  const n = names.length;
  return {
    predict(x) {
      let [best, least] = [0, Number.POSITIVE_INFINITY];
      for (let r = 0; r < rows; r++) {
        let sum = 0;
        for (let i = 0; i < n; i++) sum += ((rewards[r * n + i] - x[i]) / (high[i] - low[i] || 1)) ** 2;
        if (sum < least) [best, least] = [r, sum];
      }
      return score[best];
    },
  };
}

/** Score of a table at a point; undefined where no row is within the tolerance in every coordinate. */
export function tableScore(
  { rewards, score, rows, names }: ScoredRuns,
  tolerance: ArrayLike<number>,
): (x: Float64Array) => number | undefined {
  const n = names.length;
  return (x) => {
    for (let r = 0; r < rows; r++) {
      let near = true;
      for (let i = 0; i < n && near; i++) near = Math.abs(rewards[r * n + i] - x[i]) <= tolerance[i];
      if (near) return score[r];
    }
    return undefined;
  };
}

/**
 * Search of the thresholds with the highest score (spec 9.3): the simplex of {@link cachedSimplexSearch} on minus the score. Ends
 * early where the score of a point is not known, and says which it is.
 */
export function searchThresholds(
  scoreOf: (thresholds: Float64Array) => number | undefined,
  simplex: readonly Float64Array[],
  options: CachedSimplexOptions,
): ThresholdSearch {
  const search = cachedSimplexSearch(simplex, options);
  const asked: { thresholds: Float64Array; score: number }[] = [];
  let step = search.next();
  while (!step.done) {
    const score = scoreOf(step.value);
    if (score === undefined) return waiting(step.value, asked);
    asked.push({ thresholds: step.value, score });
    step = search.next(-score);
  }
  const { passes, final, nearAnswers, converged, best }: CachedSimplexResult = step.value;
  return {
    passes,
    evaluated: asked,
    final,
    nearAnswers,
    converged,
    best: { thresholds: best.x, score: -best.value },
  };
}

function waiting(next: Float64Array, evaluated: ThresholdSearch['evaluated']): ThresholdSearch {
  const best = evaluated.reduce<ThresholdSearch['best']>(
    (most, point) => (most === undefined || point.score > most.score ? point : most),
    undefined,
  );
  return {
    ...{ passes: [], evaluated, final: [], nearAnswers: 0, converged: false, next },
    ...(best && { best }),
  };
}
