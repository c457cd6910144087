import { fitLinearLaw, fitLogLinearLaw, predictLinear, predictLosses } from './law-fit.js';
import type { Sweep } from './types.js';

/** Losses [n, evaluated] of every run as laws fitted to all other runs predict them. */
export interface LeftOut {
  readonly logLinear: Float64Array;
  readonly linear: Float64Array;
}

/** Runs that one fewer leaves, so that a law can be fitted. */
export const leastForLeaveOneOut = (sources: number): number => sources + 2;

/**
 * Refits both laws without each run in turn.
 * @throws InputError as the fits do
 */
export function leaveOneOut(
  sweep: Sweep,
  options: { readonly seed: number; readonly starts?: number },
  progress?: (done: number) => void,
): LeftOut {
  const { count, sources, evaluated, mixtures, losses } = sweep;
  const [k, width] = [sources.length, evaluated.length];
  const logLinear = new Float64Array(count * width);
  const linear = new Float64Array(count * width);
  for (let r = 0; r < count; r++) {
    const without = (rows: Float64Array, columns: number): Float64Array => {
      const rest = new Float64Array((count - 1) * columns);
      rest.set(rows.subarray(0, r * columns));
      rest.set(rows.subarray((r + 1) * columns), r * columns);
      return rest;
    };
    const rest: Sweep = { ...sweep, count: count - 1, mixtures: without(mixtures, k), losses: without(losses, width) };
    const own = mixtures.subarray(r * k, (r + 1) * k);
    logLinear.set(predictLosses(fitLogLinearLaw(rest, options), own), r * width);
    linear.set(predictLinear(fitLinearLaw(rest), own), r * width);
    progress?.(r + 1);
  }
  return { logLinear, linear };
}
