import type { AdamStep, DecaySegments, LionStep, MomentumStep } from './optimizer-steps.js';

type Reals = Float32Array | Float64Array;

/** Entries of a block of a sum of squares. Blocks are added in their order. */
export const SQUARES_BLOCK = 1 << 14;
/** Partial sums of a block that run beside each other: entry j belongs to lane j mod 16. */
export const SQUARES_LANES = 16;

/** Rounds to the precision of the buffers after every operation, as the processor does. */
const rounding = (x: Reals): ((value: number) => number) =>
  x instanceof Float32Array ? Math.fround : (value) => value;

/** The smallest normal number: what is below is made zero, because arithmetic on subnormals is a hundred times slower. */
const smallestNormal = (x: Reals): number => (x instanceof Float32Array ? 2 ** -126 : 2 ** -1022);

/** Calls `body` with every stretch and its factor. */
function forSegments(segments: DecaySegments, body: (begin: number, end: number, factor: number) => void): void {
  let begin = 0;
  for (let s = 0; s < segments.ends.length; s++) {
    body(begin, segments.ends[s], segments.factors[s]);
    begin = segments.ends[s];
  }
}

/** Plain form of `adamStep`: the same bits. */
export function adamStepReference(
  values: Reals,
  gradients: Reals,
  m: Reals,
  v: Reals,
  segments: DecaySegments,
  step: AdamStep,
): void {
  const r = rounding(values);
  const least = smallestNormal(values);
  const [scale, b1, b2] = [step.gradientScale, step.beta1, step.beta2].map(r);
  const [c1, c2, size, root, epsilon] = [
    1 - step.beta1,
    1 - step.beta2,
    step.stepSize,
    step.rootScale,
    step.epsilon,
  ].map(r);
  forSegments(segments, (begin, end, exact) => {
    const factor = r(exact);
    for (let i = begin; i < end; i++) {
      let p = values[i];
      let g = r(gradients[i] * scale);
      if (step.coupled) g = r(g + r(factor * p));
      else p = r(p * factor);
      let mean = r(r(b1 * m[i]) + r(c1 * g));
      let square = r(r(b2 * v[i]) + r(c2 * r(g * g)));
      if (Math.abs(mean) < least) mean = 0;
      if (square < least) square = 0;
      m[i] = mean;
      v[i] = square;
      values[i] = r(p - r(r(size * mean) / r(r(r(Math.sqrt(square)) * root) + epsilon)));
      if (step.clear) gradients[i] = 0;
    }
  });
}

/** Plain form of `momentumStep`: the same bits. */
export function momentumStepReference(
  values: Reals,
  gradients: Reals,
  velocity: Reals | undefined,
  segments: DecaySegments,
  step: MomentumStep,
): void {
  const r = rounding(values);
  const least = smallestNormal(values);
  const [scale, momentum, rate] = [step.gradientScale, step.momentum, step.learningRate].map(r);
  forSegments(segments, (begin, end, exact) => {
    const decay = r(exact);
    for (let i = begin; i < end; i++) {
      const p = values[i];
      const g = r(r(gradients[i] * scale) + r(decay * p));
      let direction = g;
      if (velocity !== undefined) {
        let moved = r(r(momentum * velocity[i]) + g);
        if (Math.abs(moved) < least) moved = 0;
        velocity[i] = moved;
        direction = step.nesterov ? r(g + r(momentum * moved)) : moved;
      }
      values[i] = r(p - r(rate * direction));
      if (step.clear) gradients[i] = 0;
    }
  });
}

/** Plain form of `lionStep`: the same bits. */
export function lionStepReference(
  values: Reals,
  gradients: Reals,
  m: Reals,
  segments: DecaySegments,
  step: LionStep,
): void {
  const r = rounding(values);
  const least = smallestNormal(values);
  const [scale, b1, b2, rate] = [step.gradientScale, step.beta1, step.beta2, step.learningRate].map(r);
  const [c1, c2] = [1 - step.beta1, 1 - step.beta2].map(r);
  forSegments(segments, (begin, end, exact) => {
    const factor = r(exact);
    for (let i = begin; i < end; i++) {
      const g = r(gradients[i] * scale);
      const towards = r(r(b1 * m[i]) + r(c1 * g));
      const signed = towards > 0 ? rate : towards < 0 ? -rate : r(rate * towards);
      let mean = r(r(b2 * m[i]) + r(c2 * g));
      if (Math.abs(mean) < least) mean = 0;
      m[i] = mean;
      values[i] = r(r(values[i] * factor) - signed);
      if (step.clear) gradients[i] = 0;
    }
  });
}

/** Sums of squares of the blocks of x, in double. */
export function squaresOfBlocksReference(x: Reals, blocks: Float64Array): void {
  const lanes = new Float64Array(SQUARES_LANES);
  for (let b = 0; b < blocks.length; b++) {
    const begin = b * SQUARES_BLOCK;
    const end = Math.min(x.length, begin + SQUARES_BLOCK);
    lanes.fill(0);
    for (let i = begin; i < end; i++) lanes[i % SQUARES_LANES] += x[i] * x[i];
    for (let width = SQUARES_LANES / 2; width >= 1; width /= 2) {
      for (let lane = 0; lane < width; lane++) lanes[lane] += lanes[lane + width];
    }
    blocks[b] = lanes[0];
  }
}
