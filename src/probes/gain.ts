import { createRandom } from '../random.js';

/** A figure with its percentile bootstrap interval of 95 %. */
export interface Interval {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** The `share` quantile of sorted values, between neighbours linearly. */
export function quantileOf(sorted: Float64Array, share: number): number {
  const at = share * (sorted.length - 1);
  const below = Math.floor(at);
  const above = Math.min(sorted.length - 1, below + 1);
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}

/** Ends of the middle 95 % of values; NaN for none. */
export function middle(values: Float64Array): { readonly low: number; readonly high: number } {
  if (values.length === 0) return { low: Number.NaN, high: Number.NaN };
  const sorted = values.slice().sort();
  return { low: quantileOf(sorted, 0.025), high: quantileOf(sorted, 0.975) };
}

/**
 * Means of several scores over resampled items: `[resamples, scores]`. The same draws serve all scores, so that their
 * differences are paired.
 * @param scores of every set one score an item, all equally long
 */
export function resampledMeans(scores: readonly ArrayLike<number>[], resamples: number, seed: number): Float64Array {
  const items = scores[0].length;
  const result = new Float64Array(resamples * scores.length);
  const root = createRandom(seed);
  const counts = new Int32Array(items);
  for (let b = 0; b < resamples; b++) {
    const random = root.fork(b);
    counts.fill(0);
    for (let i = 0; i < items; i++) counts[random.integer(items)]++;
    scores.forEach((score, s) => {
      let sum = 0;
      for (let i = 0; i < items; i++) sum += counts[i] * score[i];
      result[b * scores.length + s] = sum / items;
    });
  }
  return result;
}

/** What the concatenation gains over its members. */
export interface ConditionalGain {
  /** `score(cat) - best member score`, from scores of which more is better. */
  readonly overBest: Interval;
  /** Against the mean of the members. */
  readonly overMean: Interval;
  /** Against the mean of the members' predictions, where there is one. */
  readonly overEnsemble: Interval | null;
}

/**
 * Conditional gain of a concatenation with bootstrap intervals over test items. In every resample the best member is
 * chosen anew, so that the interval includes the choice.
 * @param cat, @param members, @param ensemble one score an item, for instance 1 where the prediction is right
 */
export function conditionalGain(
  cat: ArrayLike<number>,
  members: readonly ArrayLike<number>[],
  ensemble: ArrayLike<number> | null,
  resamples: number,
  seed: number,
): ConditionalGain {
  const scores = [cat, ...members, ...(ensemble ? [ensemble] : [])];
  const width = scores.length;
  const gains = (means: Float64Array, at: number): [number, number, number] => {
    let best = Number.NEGATIVE_INFINITY;
    let sum = 0;
    for (let m = 1; m <= members.length; m++) {
      best = Math.max(best, means[at + m]);
      sum += means[at + m];
    }
    return [means[at] - best, means[at] - sum / members.length, ensemble ? means[at] - means[at + width - 1] : 0];
  };
  const items = cat.length;
  const whole = Float64Array.from(scores, (score) => {
    let sum = 0;
    for (let i = 0; i < items; i++) sum += score[i];
    return sum / items;
  });
  const drawn = resampledMeans(scores, resamples, seed);
  const samples = [0, 1, 2].map((which) =>
    Float64Array.from({ length: resamples }, (_, b) => gains(drawn, b * width)[which]),
  );
  const values = gains(whole, 0);
  const interval = (which: number): Interval => ({ value: values[which], ...middle(samples[which]) });
  return { overBest: interval(0), overMean: interval(1), overEnsemble: ensemble ? interval(2) : null };
}
