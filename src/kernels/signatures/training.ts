type Reals = Float32Array | Float64Array;

/** Training: steps of optimisers, losses over rows. See `../native-signatures.ts`. */
export interface TrainingKernels {
  /** One step of Adam; `segmentEnds` and `factors` say the decay of each stretch. */
  adamStep(
    values: Reals,
    gradients: Reals,
    m: Reals,
    v: Reals,
    segmentEnds: Float64Array,
    factors: Float64Array,
    gradientScale: number,
    beta1: number,
    beta2: number,
    epsilon: number,
    stepSize: number,
    rootScale: number,
    coupled: number,
    clear: number,
    threads: number,
  ): void;
  momentumStep(
    values: Reals,
    gradients: Reals,
    velocity: Reals | null,
    unused: null,
    segmentEnds: Float64Array,
    factors: Float64Array,
    gradientScale: number,
    learningRate: number,
    momentum: number,
    nesterov: number,
    clear: number,
    threads: number,
  ): void;
  lionStep(
    values: Reals,
    gradients: Reals,
    m: Reals,
    unused: null,
    segmentEnds: Float64Array,
    factors: Float64Array,
    gradientScale: number,
    learningRate: number,
    beta1: number,
    beta2: number,
    clear: number,
    threads: number,
  ): void;
  squaresOfBlocks(x: Reals, blocks: Float64Array, threads: number): void;
  addInto(target: Reals, source: Reals, threads: number): void;
  scaleBuffer(x: Reals, factor: number, threads: number): void;
}
