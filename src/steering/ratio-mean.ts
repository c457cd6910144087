import { type BootstrapInterval, type BootstrapOptions, bootstrapDocuments } from '../linalg/bootstrap.js';

/** A mean with its bootstrap interval; that one undefined for a single unit. */
export interface RatioMean {
  readonly mean: number;
  readonly interval: BootstrapInterval | undefined;
}

/**
 * Sum of values over their count, both over all units (prompts, runs), and the interval for which units are drawn anew.
 * @param sums [units, 2]: of each unit the sum of its values and their count
 * @returns undefined when there is no value
 */
export function ratioMean(sums: Float64Array, options: BootstrapOptions): RatioMean | undefined {
  const ratio = ([total, count]: Float64Array): number => total / count;
  const totals = Float64Array.of(0, 0);
  for (let i = 0; i < sums.length; i++) totals[i % 2] += sums[i];
  if (totals[1] === 0) return undefined;
  const { intervals } = bootstrapDocuments(sums, 2, [ratio], options);
  return { mean: ratio(totals), interval: intervals?.[0] };
}

/** A mean over tokens with its 95 % bootstrap interval over prompts; not a number where one prompt cannot give it. */
export type TokenMean = { readonly mean: number; readonly se: number; readonly low: number; readonly high: number };

/** What a mean over no tokens is. */
export const NO_TOKEN_MEAN: TokenMean = { mean: Number.NaN, se: Number.NaN, low: Number.NaN, high: Number.NaN };

/**
 * Mean over all tokens of what `of` gives of a continuation; prompts are drawn anew for the interval.
 * @param prompts [prompt][continuation]
 * @param of values by token; undefined for a continuation that does not have them
 * @returns null without any token
 */
export function tokenMean<T>(
  prompts: readonly (readonly T[])[],
  seed: number,
  of: (continuation: T) => ArrayLike<number> | undefined,
): TokenMean | null {
  const sums = new Float64Array(2 * prompts.length);
  prompts.forEach((continuations, p) => {
    for (const continuation of continuations) {
      const values = of(continuation) ?? [];
      for (let i = 0; i < values.length; i++) sums[2 * p] += values[i];
      sums[2 * p + 1] += values.length;
    }
  });
  const found = ratioMean(sums, { seed });
  return found ? { ...NO_TOKEN_MEAN, mean: found.mean, ...found.interval } : null;
}
