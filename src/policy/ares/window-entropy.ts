import { InputError } from '../../errors.js';
import { quantileOfSorted } from '../../linalg/quantile-sketch.js';

/**
 * Means of all whole windows of `width` values, in O(T) whatever the width: sums from the ends of blocks of `width`, two of
 * which make every window (van Herk). Nothing is subtracted, so that there is no cancellation and no drift.
 * @param values [T], nats.
 * @returns [max(0, T - width + 1)]: entry t is the mean of t .. t + width - 1.
 * @throws InputError for a width below 1.
 */
export function windowMeans(values: Float64Array, width: number): Float64Array {
  if (!(Number.isInteger(width) && width >= 1))
    throw new InputError(`a window of ${width} tokens; give a whole number`);
  const n = values.length;
  const means = new Float64Array(Math.max(0, n - width + 1));
  if (means.length === 0) return means;
  const toEnd = new Float64Array(n);
  for (let i = n - 1; i >= 0; i--) toEnd[i] = values[i] + (i + 1 < n && (i + 1) % width !== 0 ? toEnd[i + 1] : 0);
  let fromStart = 0;
  for (let i = 0; i < n; i++) {
    fromStart = i % width === 0 ? values[i] : fromStart + values[i];
    const t = i - width + 1;
    // A window that is a whole block is one sum, any other the end of a block and the start of the next.
    if (t >= 0) means[t] = (t % width === 0 ? toEnd[t] : toEnd[t] + fromStart) / width;
  }
  return means;
}

/**
 * The list of the published code from which the threshold of a response is taken (spec 4.2): for every token the mean of the
 * `width` tokens behind it; where fewer follow, the mean of the entries so far; where there is none yet, its own entropy.
 * @param entropy [T], nats.
 * @returns [T].
 */
export function thresholdEntries(entropy: Float64Array, width: number): Float64Array {
  const n = entropy.length;
  const following = windowMeans(entropy, width);
  const entries = new Float64Array(n);
  let sum = 0;
  for (let i = 0; i < n; i++) {
    entries[i] = i + width < n ? following[i + 1] : i > 0 ? sum / i : entropy[i];
    sum += entries[i];
  }
  return entries;
}

/** Percentile with linear interpolation; NaN without values. `values` stay as they are. */
export function percentile(values: Float64Array, percent: number): number {
  return quantileOfSorted(values.slice().sort(), percent / 100);
}

/** Threshold of one response in the published code: percentile of its entries. NaN for a response without tokens. */
export function responseThreshold(entropy: Float64Array, width: number, percent = 95): number {
  return percentile(thresholdEntries(entropy, width), percent);
}

/** Contiguous windows above a threshold: positions `from` to `to`, both window starts, and the largest window mean. */
export interface WindowRegion {
  readonly from: number;
  readonly to: number;
  readonly peak: number;
}

/** Regions of window starts whose mean lies above the threshold (paper variant: one branch a region). */
export function windowRegions(means: Float64Array, threshold: number): WindowRegion[] {
  const regions: WindowRegion[] = [];
  for (let t = 0; t < means.length; t++) {
    if (!(means[t] > threshold)) continue;
    const from = t;
    let peak = means[t];
    while (t + 1 < means.length && means[t + 1] > threshold) peak = Math.max(peak, means[++t]);
    regions.push({ from, to: t, peak });
  }
  return regions;
}

/** Window starts above the threshold: the HWE tokens of the paper. */
export function countAbove(means: Float64Array, threshold: number): number {
  let count = 0;
  for (const mean of means) if (mean > threshold) count++;
  return count;
}
