import { InputError } from '../errors.js';

/** Which share of S remains while it is pruned in training (LoSparse 2023). Steps count from 0. */
export interface PruningSchedule {
  /** N. */
  readonly totalSteps: number;
  /** w. */
  readonly warmupSteps: number;
  /** q; default 0.1. */
  readonly finalShare?: number;
  /** Default 1. */
  readonly initialShare?: number;
  /** a and b: multiples of w before pruning begins and after its end; defaults 1 and 4. */
  readonly initialWarmup?: number;
  readonly finalWarmup?: number;
  /** Masks are applied every so many steps while the share falls; default 1. */
  readonly interval?: number;
}

/**
 * Remaining share at a step: the initial share up to step a w; the final share q after N - b w; between them
 * q + (initial - q) (1 - (t - a w) / (N - (a + b) w))^3.
 * @returns the share, and whether S is masked at this step
 * @throws InputError when N leaves no step between the two
 */
export function remainingShare(
  schedule: PruningSchedule,
  step: number,
): { readonly share: number; readonly masked: boolean } {
  const { totalSteps, warmupSteps, finalShare = 0.1, initialShare = 1, interval = 1 } = schedule;
  const { initialWarmup = 1, finalWarmup = 4 } = schedule;
  const before = initialWarmup * warmupSteps;
  const span = totalSteps - (initialWarmup + finalWarmup) * warmupSteps;
  if (span <= 0) {
    throw new InputError(
      `too few steps: ${totalSteps} steps with ${warmupSteps} of warm-up leave none to prune in; at least ${(initialWarmup + finalWarmup) * warmupSteps + 1} are needed`,
    );
  }
  if (step <= before) return { share: initialShare, masked: false };
  if (step > totalSteps - finalWarmup * warmupSteps) return { share: finalShare, masked: true };
  const left = 1 - (step - before) / span;
  return { share: finalShare + (initialShare - finalShare) * left ** 3, masked: step % interval === 0 };
}
