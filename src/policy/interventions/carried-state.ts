import type { BucketState, PerBucket } from '../ares/difficulty.js';
import type { KlState } from '../ares/kl-controller.js';
import type { RecentSamples } from '../recent-samples.js';
import type { BonusController } from './entropy-bonus.js';

/** What ARES keeps: the tracked threshold, targets and weights of the buckets, controllers of the KL weights. */
export interface AresState {
  readonly threshold?: number;
  readonly buckets: BucketState;
  readonly kl: PerBucket<KlState>;
  /** Calls of the controllers so far, of all buckets. */
  readonly klCalls: number;
}

/**
 * What methods keep between the steps of a run, each under its own name: plain data, so that a run can be saved. One object a
 * run: `{}` at its beginning.
 */
export interface CarriedState {
  ares?: AresState;
  entropyBonus?: BonusController;
  /** Groups by their number in the index. */
  recentSamples?: RecentSamples<number>;
}
