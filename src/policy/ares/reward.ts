import { InputError } from '../../errors.js';
import { type Bucket, type PerBucket, perBucket } from './difficulty.js';

const MARGIN: PerBucket<number> = { easy: 0.15, medium: 0.25, hard: 0.35 };
const KAPPA: PerBucket<number> = { easy: 2, medium: 3, hard: 4 };
const TEMPERATURE: PerBucket<number> = { easy: 2, medium: 2.5, hard: 3 };
const CAP: PerBucket<number> = { easy: 1, medium: 1, hard: 1.2 };
/** Share of the cap that wrong answers of easy and medium prompts can gain; those of hard ones the whole. */
const WRONG_SHARE: PerBucket<number> = { easy: 0.6, medium: 0.8, hard: 1 };

function huber(x: number, kappa: number): number {
  if (x <= 0) return 0;
  return x <= kappa ? (x * x) / (2 * kappa) : x - kappa / 2;
}

/** One response for the reward of the published code. */
export interface EntropyScored {
  readonly bucket: Bucket;
  readonly correct: boolean;
  /** Valid triggers, and their target in the bucket. */
  readonly count: number;
  readonly target: number;
  /** Weight of the bucket. */
  readonly alpha: number;
}

/**
 * Entropy score of the published code (spec 4.5), which is added to the accuracy: a saturating bonus for exploration where it is
 * wanted and a Huber penalty within a cap where it is not.
 */
export function entropyScore({ bucket, correct, count, target, alpha }: EntropyScored): number {
  const margin = Math.max(1, MARGIN[bucket] * Math.max(target, 1));
  const kappa = KAPPA[bucket];
  const cap = alpha * CAP[bucket];
  const away = count - target;
  const saturating = (x: number): number => 1 / (1 + Math.exp(-x / TEMPERATURE[bucket]));
  const penalty = (x: number, share: number): number =>
    -Math.min(cap, (share * cap * huber(x, kappa)) / (margin + kappa));
  if (!correct) return saturating(Math.max(away - margin, 0)) * cap * WRONG_SHARE[bucket];
  if (bucket === 'easy') return penalty(Math.max(away - margin, 0), 1);
  if (bucket === 'medium') return penalty(Math.max(Math.abs(away) - margin, 0), 1);
  return away >= -margin ? saturating(away + margin) * cap : penalty(-away - margin, 0.5);
}

/** A batch for the reward of the paper: one entry a response. */
export interface PaperBatch {
  readonly bucket: readonly Bucket[];
  readonly count: Float64Array;
  readonly accuracy: Float64Array;
  /** N* of the buckets that have one. */
  readonly target: Partial<Record<Bucket, number>>;
  /** Added to the variance. Default 1e-8. */
  readonly eps?: number;
}

export interface PaperReward {
  /** Dual weight of every bucket; 0 where it has no responses or no target. */
  readonly lambda: PerBucket<number>;
  readonly reward: Float64Array;
}

function excess(bucket: Bucket, away: number): number {
  if (bucket === 'medium') return Math.abs(away);
  return Math.max(0, bucket === 'easy' ? away : -away);
}

/**
 * Reward of the paper (spec 4.5): acc - [acc = 0] lambda_d g_d, lambda_d = max(0, (mean N_d - N*_d) / (var N_d + eps)) with the
 * variance over n. A bucket without responses or without a target penalises nothing.
 * @throws InputError for lengths that differ
 */
export function paperReward({ bucket, count, accuracy, target, eps = 1e-8 }: PaperBatch): PaperReward {
  if (bucket.length !== count.length || count.length !== accuracy.length)
    throw new InputError(`${bucket.length} buckets, ${count.length} counts and ${accuracy.length} accuracies`);
  const sums = perBucket(() => ({ members: 0, mean: 0, squares: 0 }));
  for (let r = 0; r < count.length; r++) {
    const one = sums[bucket[r]];
    one.members++;
    const before = count[r] - one.mean;
    one.mean += before / one.members;
    one.squares += before * (count[r] - one.mean);
  }
  const lambda = perBucket((one) => {
    const { members, mean, squares } = sums[one];
    const goal = target[one];
    if (members === 0 || goal === undefined) return 0;
    return Math.max(0, (mean - goal) / (squares / members + eps));
  });
  const reward = accuracy.map((right, r) => {
    const goal = target[bucket[r]];
    if (right !== 0 || goal === undefined) return right;
    return right - lambda[bucket[r]] * excess(bucket[r], count[r] - goal);
  });
  return { lambda, reward };
}
