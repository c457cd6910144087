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

/** Means of scores over all items, and over resampled items with the draws shared by all scores. */
export interface ResampledScores {
  readonly whole: Float64Array;
  /** `[resamples, scores]` */
  readonly drawn: Float64Array;
  readonly resamples: number;
}

/** @param scores of every set one score an item, of which more is better */
export function resampleScores(scores: readonly ArrayLike<number>[], resamples: number, seed: number): ResampledScores {
  const whole = Float64Array.from(scores, (score) => {
    let sum = 0;
    for (let i = 0; i < score.length; i++) sum += score[i];
    return sum / score.length;
  });
  return { whole, drawn: resampledMeans(scores, resamples, seed), resamples };
}

/** The mean of one score with its interval. */
export function scoreInterval({ whole, drawn, resamples }: ResampledScores, score: number): Interval {
  const values = Float64Array.from({ length: resamples }, (_, b) => drawn[b * whole.length + score]);
  return { value: whole[score], ...middle(values) };
}

/**
 * Conditional gain of a concatenation with bootstrap intervals over test items. In every resample the best member is
 * chosen anew, so that the interval includes the choice.
 * @param cat, @param members, @param ensemble positions of their scores
 */
export function conditionalGain(
  { whole, drawn, resamples }: ResampledScores,
  cat: number,
  members: readonly number[],
  ensemble: number | null,
): ConditionalGain {
  const width = whole.length;
  const gain = (means: Float64Array, at: number): [number, number, number] => {
    let best = Number.NEGATIVE_INFINITY;
    let sum = 0;
    for (const member of members) {
      best = Math.max(best, means[at + member]);
      sum += means[at + member];
    }
    const own = means[at + cat];
    return [own - best, own - sum / members.length, ensemble === null ? 0 : own - means[at + ensemble]];
  };
  const values = gain(whole, 0);
  const samples = Array.from({ length: resamples }, (_, b) => gain(drawn, b * width));
  const interval = (which: number): Interval => ({
    value: values[which],
    ...middle(Float64Array.from(samples, (sample) => sample[which])),
  });
  return { overBest: interval(0), overMean: interval(1), overEnsemble: ensemble === null ? null : interval(2) };
}
