import { quantileOfSorted } from '../linalg/quantile-sketch.js';

/** Steps of the upper and the lower entropy quartile. */
export interface EntropyQuartiles {
  /** Highest entropy first. */
  readonly upper: readonly number[];
  /** Lowest entropy first. */
  readonly lower: readonly number[];
}

/** Steps at or above the upper, and at or below the lower quartile; undefined where the quartiles are equal. */
export function entropyQuartiles(entropy: Float64Array, steps: readonly number[]): EntropyQuartiles | undefined {
  const sorted = Float64Array.from(steps, (step) => entropy[step]).sort();
  const [low, high] = [quantileOfSorted(sorted, 0.25), quantileOfSorted(sorted, 0.75)];
  if (!(low < high)) return undefined;
  return {
    upper: steps.filter((step) => entropy[step] >= high).sort((a, b) => entropy[b] - entropy[a] || a - b),
    lower: steps.filter((step) => entropy[step] <= low).sort((a, b) => entropy[a] - entropy[b] || a - b),
  };
}
