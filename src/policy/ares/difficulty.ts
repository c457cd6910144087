/** Buckets of prompts by the share of right answers in their group. */
export const BUCKETS = ['easy', 'medium', 'hard'] as const;
export type Bucket = (typeof BUCKETS)[number];

/** One value a bucket. */
export type PerBucket<Value> = Readonly<Record<Bucket, Value>>;

export function perBucket<Value>(of: (bucket: Bucket) => Value): PerBucket<Value> {
  return { easy: of('easy'), medium: of('medium'), hard: of('hard') };
}

/** At least 2/3 right is easy, at least 1/3 medium. */
export function bucketOf(accuracy: number): Bucket {
  if (accuracy >= 2 / 3) return 'easy';
  return accuracy >= 1 / 3 ? 'medium' : 'hard';
}

export function isBucket(word: string | undefined): word is Bucket {
  return word === 'easy' || word === 'medium' || word === 'hard';
}

/** To the nearest whole number, halves to the even one. */
export function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  const over = value - below;
  if (over !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** Targets of the counts and weights of the entropy score, carried from batch to batch. */
export interface BucketState {
  /** N* before rounding: of the last batch, or its moving average; absent for a bucket that was always empty. */
  readonly target: Partial<Record<Bucket, number>>;
  readonly alpha: PerBucket<number>;
}

export const INITIAL_BUCKETS: BucketState = { target: {}, alpha: { easy: 0.5, medium: 0.5, hard: 0.5 } };

export interface BucketUpdate {
  /** Mean over the prompts of a bucket of their mean counts; absent for an empty bucket. */
  readonly mean: Partial<Record<Bucket, number>>;
  /** N* of the batch, whole numbers; absent for a bucket that was always empty. */
  readonly target: Partial<Record<Bucket, number>>;
  readonly state: BucketState;
}

/**
 * Targets of a batch and the step of the weights (published code, spec 4.4): N* is the rounded batch mean of the prompts' mean
 * counts; alpha moves by 0.05 (mean - N*) for easy and medium and by 0.05 (N* - mean) for hard, within [0, 2]. Without a moving
 * average that residual is one of rounding alone.
 * @param promptBucket bucket of every prompt
 * @param promptCount mean count of every prompt's responses
 * @param targetEma share of the old target in the new one; 0: the batch alone
 */
export function updateBuckets(
  state: BucketState,
  promptBucket: readonly Bucket[],
  promptCount: Float64Array,
  targetEma = 0,
): BucketUpdate {
  const mean: Partial<Record<Bucket, number>> = {};
  const held: Partial<Record<Bucket, number>> = { ...state.target };
  const target: Partial<Record<Bucket, number>> = {};
  const alpha = { ...state.alpha };
  for (const bucket of BUCKETS) {
    let sum = 0;
    let prompts = 0;
    for (let p = 0; p < promptBucket.length; p++) {
      if (promptBucket[p] !== bucket) continue;
      sum += promptCount[p];
      prompts++;
    }
    const before = state.target[bucket];
    if (prompts > 0) {
      const now = sum / prompts;
      mean[bucket] = now;
      held[bucket] = before === undefined ? now : targetEma * before + (1 - targetEma) * now;
    }
    const value = held[bucket];
    if (value === undefined) continue;
    const whole = roundHalfEven(value);
    target[bucket] = whole;
    const now = mean[bucket];
    if (now === undefined) continue;
    const residual = bucket === 'hard' ? whole - now : now - whole;
    alpha[bucket] = Math.min(2, Math.max(0, alpha[bucket] + 0.05 * residual));
  }
  return { mean, target, state: { target: held, alpha } };
}

/** One bin of counts in a bucket. */
export interface CountBin {
  /** Counts in [low, high), the last bin closed. */
  readonly low: number;
  readonly high: number;
  readonly records: number;
  /** NaN when empty. */
  readonly accuracy: number;
}

/**
 * Accuracy in three bins of counts, whose edges are linspace(min, max, 4) truncated to whole numbers (spec 4, outputs).
 * Records of unknown accuracy (NaN) are left out of the means.
 */
export function accuracyByTercile(counts: Float64Array, accuracy: Float64Array): CountBin[] {
  if (counts.length === 0) return [];
  let least = counts[0];
  let most = counts[0];
  for (const count of counts) {
    least = Math.min(least, count);
    most = Math.max(most, count);
  }
  const edges = [0, 1, 2, 3].map((i) => Math.trunc(i === 3 ? most : least + ((most - least) * i) / 3));
  return [0, 1, 2].map((bin) => {
    let [sum, known, records] = [0, 0, 0];
    for (let r = 0; r < counts.length; r++) {
      const inside = counts[r] >= edges[bin] && (counts[r] < edges[bin + 1] || (bin === 2 && counts[r] === edges[3]));
      if (!inside) continue;
      records++;
      if (Number.isNaN(accuracy[r])) continue;
      sum += accuracy[r];
      known++;
    }
    return { low: edges[bin], high: edges[bin + 1], records, accuracy: sum / known };
  });
}
