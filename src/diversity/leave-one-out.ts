import { createRandom } from '../random.js';
import type { KernelSource } from './kernel-source.js';
import { type ScoreOptions, type SpectralMeasure, scoresOf } from './measures.js';

/** What single items add to a score. */
export interface LeaveOneOut {
  /** Items, ascending. */
  readonly items: Int32Array;
  /** `[items, measures]`: the score of all less the score without the item. */
  readonly gains: Float64Array;
}

/**
 * `VS(all) - VS(all without i)` of a random sample of items, each by a decomposition of its own. Negative for an item
 * that resembles many others.
 */
export async function leaveOneOut(
  source: KernelSource,
  whole: Float64Array,
  measures: readonly SpectralMeasure[],
  options: {
    readonly count: number;
    readonly seed: number;
    readonly scores: ScoreOptions;
    readonly onStep?: () => void;
  },
): Promise<LeaveOneOut> {
  const n = source.items;
  const count = n < 2 ? 0 : Math.min(options.count, n);
  const items = createRandom(options.seed).fork(0x6c6f6f).permutation(n).slice(0, count).sort();
  const gains = new Float64Array(count * measures.length);
  for (let i = 0; i < count; i++) {
    const scores = scoresOf(await source.eigenvaluesWithout(items[i]), n - 1, measures, options.scores);
    measures.forEach((_, k) => {
      gains[i * measures.length + k] = whole[k] - scores[k];
    });
    options.onStep?.();
  }
  return { items, gains };
}
