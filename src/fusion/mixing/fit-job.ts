import { fitLinearLaw, fitLogLinearLaw } from './law-fit.js';
import { lawOptimum } from './law-optimum.js';
import type { FitResult } from './law-report.js';
import { leastForLeaveOneOut, leaveOneOut } from './leave-one-out.js';
import type { Sweep } from './types.js';

export interface FitArguments {
  readonly sweep: Sweep;
  readonly seed: number;
  readonly starts: number;
  /** Whether both laws are refitted without each run. */
  readonly leaveOneOut: boolean;
}

/** Fits both laws to a sweep: a job in a thread of its own. */
export function fitLaws(of: FitArguments, progress: (runs: number) => void): FitResult {
  const { sweep, seed, starts } = of;
  const law = fitLogLinearLaw(sweep, { seed, starts });
  const enough = sweep.count >= leastForLeaveOneOut(sweep.sources.length);
  return {
    law,
    linear: fitLinearLaw(sweep),
    optimum: lawOptimum(law, { seed }),
    leftOut: of.leaveOneOut && enough ? leaveOneOut(sweep, { seed, starts }, progress) : null,
  };
}
