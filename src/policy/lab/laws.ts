import { InputError } from '../../errors.js';
import { bootstrapLaw, type LawIntervals, usualBlock } from '../law/law-bootstrap.js';
import { fitLaw, type LawFit, type LawPoints, predictFromEarly, residualAutocorrelation } from '../law/law-fit.js';
import type { LabCurves } from './types.js';

/** What the laws of a run need beside its curves. */
export interface LawSettings {
  /** Steps of the early fit. */
  readonly early: number;
  /** Coverage of the intervals. */
  readonly level: number;
  /** Resamples of a bootstrap. */
  readonly draws: number;
  readonly seed: number;
}

/** A law with the intervals of its parameters from resampled points: alone, and in blocks of neighbours. */
export interface FittedLaw {
  readonly fit: LawFit;
  readonly alone?: LawIntervals;
  readonly blocks?: LawIntervals;
  readonly residualAutocorrelation: number;
}

/** The laws of one run: over all of its steps, and over the first ones with what they say of the rest. */
export interface RunLaws {
  readonly full: FittedLaw;
  readonly early?: FittedLaw & { readonly rmseOfRest: number; readonly finalError: number; readonly coverage: number };
}

/** Steps that have both an entropy and a success probability. */
function measuredPoints({ entropy, success }: LabCurves): LawPoints {
  const kept = Array.from(entropy.keys()).filter((s) => Number.isFinite(entropy[s]) && Number.isFinite(success[s]));
  return {
    entropy: Float64Array.from(kept, (s) => entropy[s]),
    performance: Float64Array.from(kept, (s) => success[s]),
  };
}

function fitted(points: LawPoints, fit: LawFit, { level, draws, seed }: LawSettings): FittedLaw {
  const count = fit.points;
  const first = { entropy: points.entropy.subarray(0, count), performance: points.performance.subarray(0, count) };
  const options = { seed, draws, level };
  return {
    fit,
    alone: bootstrapLaw(first, { ...options, block: 1 }),
    blocks: bootstrapLaw(first, { ...options, block: usualBlock(count) }),
    residualAutocorrelation: residualAutocorrelation(first, fit),
  };
}

/**
 * The law R = -a e^H + b of a run, and of its first `early` measured steps; a reason in the place of what cannot be fitted.
 */
export function lawsOf(curves: LabCurves, settings: LawSettings): RunLaws | string {
  const points = measuredPoints(curves);
  const { early, level } = settings;
  try {
    const full = fitted(points, fitLaw(points), settings);
    if (early >= points.entropy.length) return { full };
    const prediction = predictFromEarly(points, early, level);
    return {
      full,
      early: {
        ...fitted(points, prediction.fit, settings),
        rmseOfRest: prediction.rmse,
        finalError: prediction.finalAbsoluteError,
        coverage: prediction.coverage,
      },
    };
  } catch (error) {
    if (error instanceof InputError) return error.message;
    throw error;
  }
}
