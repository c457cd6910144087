import { kernelThreads, nativeKernels } from './native.js';
import {
  adamStepReference,
  lionStepReference,
  momentumStepReference,
  SQUARES_BLOCK,
  squaresOfBlocksReference,
} from './optimizer-steps-reference.js';

type Reals = Float32Array | Float64Array;

/** Stretches of flat buffers with a decay each: stretch s ends before `ends[s]`, the last at the end of the buffers. */
export interface DecaySegments {
  readonly ends: Float64Array;
  /** Decoupled steps multiply the parameters by it, coupled steps add it times the parameters to the gradient. */
  readonly factors: Float64Array;
}

interface Step {
  /** Factor of the gradient: clip coefficient over the number of rows. */
  readonly gradientScale: number;
  /** Sets the gradients to zero behind the step. */
  readonly clear: boolean;
}

export interface AdamStep extends Step {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** lr / (1 - beta1^k). */
  readonly stepSize: number;
  /** 1 / sqrt(1 - beta2^k). */
  readonly rootScale: number;
  /** Decay as an L2 term of the gradient (Adam) in place of a shrinkage of the parameters (AdamW). */
  readonly coupled: boolean;
}

export interface MomentumStep extends Step {
  readonly learningRate: number;
  readonly momentum: number;
  readonly nesterov: boolean;
}

export interface LionStep extends Step {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
}

/** @throws RangeError when buffers differ in length or type, or the stretches do not cover them */
function checkBuffers(values: Reals, others: readonly (Reals | undefined)[], segments?: DecaySegments): void {
  for (const other of others) {
    if (other === undefined) continue;
    if (other.length !== values.length) throw new RangeError(`buffers of ${values.length} and ${other.length} entries`);
    if (other.constructor !== values.constructor) throw new RangeError('buffers of two precisions');
  }
  if (segments === undefined) return;
  const { ends, factors } = segments;
  if (ends.length !== factors.length) throw new RangeError(`${ends.length} stretches and ${factors.length} factors`);
  let before = 0;
  for (const end of ends) {
    if (!(end >= before)) throw new RangeError(`a stretch that ends at ${end} behind one that ends at ${before}`);
    before = end;
  }
  if (before !== values.length) throw new RangeError(`stretches of ${before} entries over ${values.length}`);
}

/**
 * One step of Adam on flat buffers [n], in place, in one pass: g <- gradientScale * gradient; coupled: g <- g + decay * p,
 * else p <- decay * p; m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; p <- p - stepSize * m / (sqrt(v) * rootScale +
 * epsilon). Every operation is rounded to the buffers' precision; moments below the normal range become zero. The same
 * bits whatever the number of threads and the instruction set. (Kingma & Ba 2015; Loshchilov & Hutter 2019.)
 * @throws RangeError when buffers do not fit each other
 */
export function adamStep<T extends Reals>(
  values: T,
  gradients: T,
  m: T,
  v: T,
  segments: DecaySegments,
  step: AdamStep,
  threads?: number,
): void {
  checkBuffers(values, [gradients, m, v], segments);
  const native = nativeKernels();
  if (native === undefined) {
    adamStepReference(values, gradients, m, v, segments, step);
    return;
  }
  const { gradientScale, beta1, beta2, epsilon, stepSize, rootScale, coupled, clear } = step;
  const scalars = [gradientScale, beta1, beta2, epsilon, stepSize, rootScale, Number(coupled), Number(clear)] as const;
  native.adamStep(values, gradients, m, v, segments.ends, segments.factors, ...scalars, kernelThreads(threads));
}

/**
 * One step of gradient descent on flat buffers [n], in place: g <- gradientScale * gradient + decay * p; velocity <-
 * momentum * velocity + g; p <- p - lr * (nesterov ? g + momentum * velocity : velocity); without `velocity`
 * p <- p - lr * g. Bits as `adamStep`.
 * @throws RangeError when buffers do not fit each other
 */
export function momentumStep<T extends Reals>(
  values: T,
  gradients: T,
  velocity: T | undefined,
  segments: DecaySegments,
  step: MomentumStep,
  threads?: number,
): void {
  checkBuffers(values, [gradients, velocity], segments);
  const native = nativeKernels();
  if (native === undefined) {
    momentumStepReference(values, gradients, velocity, segments, step);
    return;
  }
  const { gradientScale, learningRate, momentum, nesterov, clear } = step;
  const scalars = [gradientScale, learningRate, momentum, Number(nesterov), Number(clear)] as const;
  const { ends, factors } = segments;
  native.momentumStep(values, gradients, velocity ?? null, null, ends, factors, ...scalars, kernelThreads(threads));
}

/**
 * One step of Lion on flat buffers [n], in place: u <- sign(b1 m + (1 - b1) g); p <- decay * p - lr * u;
 * m <- b2 m + (1 - b2) g. Bits as `adamStep`. (Chen et al. 2023.)
 * @throws RangeError when buffers do not fit each other
 */
export function lionStep<T extends Reals>(
  values: T,
  gradients: T,
  m: T,
  segments: DecaySegments,
  step: LionStep,
  threads?: number,
): void {
  checkBuffers(values, [gradients, m], segments);
  const native = nativeKernels();
  if (native === undefined) {
    lionStepReference(values, gradients, m, segments, step);
    return;
  }
  const { gradientScale, learningRate, beta1, beta2, clear } = step;
  const scalars = [gradientScale, learningRate, beta1, beta2, Number(clear)] as const;
  native.lionStep(values, gradients, m, null, segments.ends, segments.factors, ...scalars, kernelThreads(threads));
}

/** Sum of squares of x [n] in double: fixed blocks, added in order, the same bits whatever the number of threads. */
export function sumOfSquares(x: Reals, threads?: number): number {
  const blocks = new Float64Array(Math.ceil(x.length / SQUARES_BLOCK));
  const native = nativeKernels();
  if (native === undefined) squaresOfBlocksReference(x, blocks);
  else native.squaresOfBlocks(x, blocks, kernelThreads(threads));
  let sum = 0;
  for (const block of blocks) sum += block;
  return sum;
}

/**
 * target <- target + source, entry by entry.
 * @throws RangeError when the buffers do not fit each other
 */
export function addInto<T extends Reals>(target: T, source: T, threads?: number): void {
  checkBuffers(target, [source]);
  const native = nativeKernels();
  if (native !== undefined) native.addInto(target, source, kernelThreads(threads));
  else for (let i = 0; i < target.length; i++) target[i] += source[i];
}

/** x <- factor * x, the factor rounded to the precision of x first. */
export function scaleBuffer(x: Reals, factor: number, threads?: number): void {
  const native = nativeKernels();
  if (native !== undefined) {
    native.scaleBuffer(x, factor, kernelThreads(threads));
    return;
  }
  const rounded = x instanceof Float32Array ? Math.fround(factor) : factor;
  for (let i = 0; i < x.length; i++) x[i] *= rounded;
}
