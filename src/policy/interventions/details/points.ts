import type { Histogram } from '../../../report/plots/histogram.js';
import type { Rollouts } from '../../rollouts/types.js';
import type { DetailValue } from './types.js';

/** More points than this are thinned evenly before they are drawn. */
export const MOST_POINTS = 3000;

/** Every so many of `count` points are drawn. */
export function strideOf(count: number): number {
  return Math.max(1, Math.ceil(count / MOST_POINTS));
}

/** Every `stride`-th value. */
export function thinned(values: ArrayLike<number>, stride: number): number[] {
  const kept: number[] = [];
  for (let i = 0; i < values.length; i += stride) kept.push(values[i]);
  return kept;
}

export function thinningNote(stride: number): string {
  return stride === 1 ? '' : ` One point in ${stride} is drawn.`;
}

/** Counts of finite values in equal bins from the least to the largest; one bin of width 1 around a single value. */
export function histogramOf(values: ArrayLike<number>, bins: number, range?: readonly [number, number]): Histogram {
  let [low, high] = range ?? [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  if (range === undefined) {
    for (let i = 0; i < values.length; i++) {
      if (!Number.isFinite(values[i])) continue;
      low = Math.min(low, values[i]);
      high = Math.max(high, values[i]);
    }
    if (!(high > low)) [low, high] = [(Number.isFinite(low) ? low : 0) - 0.5, (Number.isFinite(low) ? low : 0) + 0.5];
  }
  const counts = new Float64Array(bins);
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) continue;
    counts[Math.min(bins - 1, Math.max(0, Math.floor(((values[i] - low) / (high - low)) * bins)))]++;
  }
  return { edges: Float64Array.from({ length: bins + 1 }, (_, i) => low + ((high - low) * i) / bins), counts };
}

/** Cells that tell which record a row is of: its number, step, prompt and response. */
export const RECORD_COLUMNS = ['record', 'step', 'prompt_id', 'response_id'] as const;

export function recordCells({ index }: Rollouts, record: number): DetailValue[] {
  return [record, index.step[record], index.promptIds[index.group[record]], index.responseIds?.[record]];
}

/** A number for a report: null where it is not defined. */
export function figure(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}
