import { InputError } from '../../errors.js';

/** Columns whose mean is one part of a score. */
export type ScoreGroup = readonly string[];

/** A score of several metrics: the mean over groups of the mean over a group of metrics scaled to their ranges (spec 9.3). */
export interface ScoreRecipe {
  readonly groups: readonly ScoreGroup[];
  /** Values that become 0 and 1, by metric; smallest and largest of the data where absent. */
  readonly ranges: ReadonlyMap<string, readonly [low: number, high: number]>;
}

/**
 * Score of each row.
 * @param metrics [rows] of every metric of the recipe
 * @throws InputError for a metric whose range is empty
 */
export function evaluationScore(
  metrics: ReadonlyMap<string, Float64Array>,
  { groups, ranges }: ScoreRecipe,
): Float64Array {
  let total: Float64Array | undefined;
  for (const group of groups) {
    for (const name of group) {
      const values = metrics.get(name) ?? new Float64Array(0);
      const [low, high] = ranges.get(name) ?? extent(values);
      if (!(high > low))
        throw new InputError(`metric "${name}" has the range ${low} to ${high}; give another with --score-ranges`);
      total ??= new Float64Array(values.length);
      for (let r = 0; r < values.length; r++) {
        total[r] += (values[r] - low) / (high - low) / (group.length * groups.length);
      }
    }
  }
  return total ?? new Float64Array(0);
}

function extent(values: Float64Array): [number, number] {
  return [values.reduce((a, b) => Math.min(a, b), Infinity), values.reduce((a, b) => Math.max(a, b), -Infinity)];
}
