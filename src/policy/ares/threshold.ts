import { meanOf } from '../compensated-sum.js';
import { percentile } from './window-entropy.js';

/** How the thresholds of responses become one: the median of training batches, the mean of the first validation. */
export function batchThreshold(thresholds: Float64Array, statistic: 'median' | 'mean' = 'median'): number {
  const known = thresholds.filter((value) => !Number.isNaN(value));
  return statistic === 'median' ? percentile(known, 50) : meanOf(known);
}

/** The tracked threshold: the first value as it is, then `keep` of the old one and 1 - `keep` of the new one. */
export function trackedThreshold(previous: number | undefined, value: number, keep = 0.99): number {
  if (Number.isNaN(value)) return previous ?? value;
  return previous === undefined ? value : keep * previous + (1 - keep) * value;
}
