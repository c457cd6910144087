import { applyOffsets, type ConformalOffsets, columnOf, conformalOffsets } from './conformal.js';
import { type CentralInterval, centralIntervals } from './levels.js';
import { type NonCrossing, type Sort, withoutCrossing } from './non-crossing.js';

export const CONFORMAL_KINDS = ['symmetric', 'asymmetric', 'none'] as const;
export type ConformalKind = (typeof CONFORMAL_KINDS)[number];

export interface ShapeSettings {
  readonly nonCrossing: NonCrossing;
  readonly sort: Sort;
}

/** Ends crossings; where a row holds infinities, which no average can pool, it is sorted. */
export function shapeQuantiles(quantiles: Float64Array, m: number, { nonCrossing, sort }: ShapeSettings): Float64Array {
  const infinite = quantiles.some((value) => Math.abs(value) === Number.POSITIVE_INFINITY);
  if (infinite && nonCrossing !== 'none') return withoutCrossing(quantiles, m, 'sort');
  return withoutCrossing(quantiles, m, nonCrossing, sort);
}

/** The corrections of all central intervals. */
export interface Calibration {
  readonly kind: Exclude<ConformalKind, 'none'>;
  readonly intervals: readonly { readonly interval: CentralInterval; readonly offsets: ConformalOffsets }[];
}

/**
 * Conformal corrections of every central interval from calibration rows.
 * @param quantiles `[n, m]` without crossings
 */
export function calibrate(
  quantiles: Float64Array,
  outcomes: ArrayLike<number>,
  levels: ArrayLike<number>,
  kind: Exclude<ConformalKind, 'none'>,
): Calibration {
  const m = levels.length;
  return {
    kind,
    intervals: centralIntervals(levels).intervals.map((interval) => ({
      interval,
      offsets: conformalOffsets(
        columnOf(quantiles, m, interval.lower),
        columnOf(quantiles, m, interval.upper),
        outcomes,
        interval.miscoverage,
        kind === 'asymmetric',
      ),
    })),
  };
}

/** Corrected quantiles: every interval moved, then without crossings again, since corrections need not nest. */
export function conformalised(
  quantiles: Float64Array,
  m: number,
  calibration: Calibration,
  shape: ShapeSettings,
): Float64Array {
  const moved = quantiles.slice();
  for (const { interval, offsets } of calibration.intervals) {
    applyOffsets(moved, m, interval.lower, interval.upper, offsets);
  }
  return shapeQuantiles(moved, m, shape);
}
