import { feedbackStepReference } from './error-feedback-reference.js';
import { kernelThreads, nativeKernels } from './native.js';

/**
 * One lazy block of columns `[from, to)` of a matrix `[rows, n]` on its way to points of P(D, K) with quantised gains.
 *
 * Feedback: `work` holds the targets, and a block that became Ŵ_b moves the columns of the lazy block behind it by
 * `(W_b - Ŵ_b) C_b`. Descent: `work` holds `V = (W - Ŵ) C`, the target of a block is `Ŵ_b + V_b`, and what improves the
 * block is taken.
 */
export interface FeedbackStep {
  /** `[rows, n]`; feedback leaves its errors `A - Ŵ` in the columns of the lazy block. */
  readonly work: Float32Array;
  /** W `[rows, n]`; not read in a descent. */
  readonly base: Float32Array;
  /** Ŵ `[rows, n]`, written; a descent reads it first. */
  readonly decoded: Float32Array;
  /** `[rows, to - from]`, written: what the block moves the other columns by, `change C`. */
  readonly change: Float32Array;
  /** C `[n, n]`. */
  readonly coupling: Float32Array;
  /** Metrics of the blocks `[blocks, D, D]`, divided by `metricScales [blocks]`: largest diagonal entry 1. */
  readonly metrics: Float32Array;
  readonly metricScales: Float64Array;
  /** Row scales `[rows]` and ascending gain levels. */
  readonly scales: Float32Array;
  readonly levels: Float32Array;
  /** `[rows, blocks, D]` and `[rows, blocks]`, written. */
  readonly pulses: Int16Array;
  readonly codes: Uint8Array;
  /** `[rows]`, added to: the loss of the blocks, or what a descent changes it by. */
  readonly losses: Float64Array;
  readonly rows: number;
  readonly n: number;
  readonly from: number;
  readonly to: number;
  readonly blockColumns: number;
  /** K. */
  readonly pulseCount: number;
  /** Most pulses of a coordinate, positive and negative ones; K for no limit. */
  readonly cap: number;
  readonly negativeCap: number;
  /** Search and gain in the metric of the block; else Euclidean. */
  readonly inMetric: boolean;
  readonly descent: boolean;
  /** Single pulses that are moved after the greedy search while the cosine grows, at most. */
  readonly polishSteps: number;
}

/**
 * Runs one step; see {@link FeedbackStep}. Single precision; bits depend neither on threads nor on vectors.
 * @throws RangeError when sizes do not go together
 */
export function feedbackStep(step: FeedbackStep, threads?: number): void {
  const { rows, n, from, to, blockColumns: D, pulseCount } = step;
  if (!(D >= 1 && pulseCount >= 1 && pulseCount <= 32767 && from >= 0 && from < to && to <= n && from % D === 0)) {
    throw new RangeError(`columns ${from} to ${to} of ${n} in blocks of ${D} with ${pulseCount} pulses`);
  }
  if (to < n && to % D !== 0) throw new RangeError(`column ${to} is not the end of a block of ${D}`);
  if (!(Math.min(step.cap, step.negativeCap) * Math.min(D, ((to - 1) % D) + 1) >= pulseCount)) {
    throw new RangeError(`${pulseCount} pulses do not fit under caps of ${step.cap} and ${step.negativeCap}`);
  }
  if (step.levels.length < 1 || step.levels.length > 256) throw new RangeError(`${step.levels.length} gain levels`);
  const native = nativeKernels();
  if (native === undefined) {
    feedbackStepReference(step);
    return;
  }
  native.feedbackStep(
    step.work,
    step.base,
    step.decoded,
    step.change,
    step.coupling,
    step.metrics,
    step.metricScales,
    step.scales,
    step.levels,
    step.pulses,
    step.codes,
    step.losses,
    rows,
    n,
    from,
    to,
    D,
    pulseCount,
    step.cap,
    step.negativeCap,
    step.inMetric ? 1 : 0,
    step.descent ? 1 : 0,
    step.polishSteps,
    kernelThreads(threads),
  );
}
