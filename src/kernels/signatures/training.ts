type Reals = Float32Array | Float64Array;

/** Training: steps of optimisers, losses over rows. See `../native-signatures.ts`. */
export interface TrainingKernels {
  /** Losses of rows of one width throughout: `kind` is the place of the operation's name in `ROW_OPERATIONS`. */
  lossRows(
    wide: number,
    kind: number,
    rows: number,
    classes: number,
    student: Float32Array | Float64Array,
    teacher: Float32Array | Float64Array | null,
    labels: Int32Array | null,
    losses: Float64Array,
    gradient: Float32Array | Float64Array | null,
    scale: number,
    first: number,
    second: number,
    threads: number,
  ): void;
  sparseRows(
    wide: number,
    rows: number,
    classes: number,
    student: Float32Array | Float64Array,
    k: number,
    ids: Int32Array,
    logProbs: Float64Array,
    leftover: Float64Array,
    labels: Int32Array | null,
    losses: Float64Array,
    gradient: Float32Array | Float64Array | null,
    scale: number,
    temperature: number,
    grouped: number,
    threads: number,
  ): void;
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
  /**
   * List losses: `teacher` or the stored lists `ids`, `logProbs`, `leftover`. `settings`: label first, weights, temperature,
   * listed, tail, missing label, scale, overwrite, ranks (`plackett-luce.ts`). Returns the first row that is refused, or -1.
   */
  plackettLuceRows(
    student: Float32Array,
    rows: number,
    classes: number,
    teacher: Float32Array | null,
    ids: Int32Array | null,
    logProbs: Float64Array | null,
    leftover: Float64Array | null,
    k: number,
    labels: Int32Array | null,
    settings: Float64Array,
    gradient: Float32Array | null,
    figures: Float64Array,
    contributions: Float64Array | null,
    threads: number,
  ): number;
  /** The likeliest classes of rows of logits. Returns the first row that is refused, or -1. */
  topLogProbs(
    logits: Float32Array,
    rows: number,
    classes: number,
    k: number,
    temperature: number,
    ids: Int32Array,
    logProbs: Float32Array,
    leftover: Float32Array,
    threads: number,
  ): number;
  /** `settings`: batch, length, heads, kv heads, head size, rotated dimensions, window or 0, scale, cap or 0. */
  selfAttentionForward(
    queries: Float32Array,
    keys: Float32Array,
    values: Float32Array,
    cosines: Float32Array | null,
    sines: Float32Array | null,
    mixed: Float32Array,
    sums: Float32Array,
    settings: Float64Array,
    threads: number,
  ): void;
  selfAttentionBackward(
    queries: Float32Array,
    keys: Float32Array,
    values: Float32Array,
    cosines: Float32Array | null,
    sines: Float32Array | null,
    mixed: Float32Array,
    sums: Float32Array,
    settings: Float64Array,
    mixedGradient: Float32Array,
    queriesGradient: Float32Array,
    keysGradient: Float32Array,
    valuesGradient: Float32Array,
    threads: number,
  ): void;
  /**
   * A session of the ONNX Runtime that onnxruntime-node has loaded as `library`; `optimisation` 0 none, 1 basic, 99 all.
   * @throws Error when the library is not loaded or refuses the model
   */
  openOnnxSession(
    library: string,
    model: Uint8Array,
    threads: number,
    arena: number,
    optimisation: number,
  ): OnnxSessionHandle;
  /**
   * Runs a graph on the memory of the arrays, the first `inputs` of which are inputs; `layout` says for every array its
   * ONNX type, its rank and its extents. An output whose array is null, without a layout, is given back.
   */
  runOnnxSession(
    session: OnnxSessionHandle,
    names: readonly string[],
    arrays: readonly (ArrayBufferView | null)[],
    layout: Float64Array,
    inputs: number,
  ): readonly (readonly [type: number, dims: readonly number[], memory: ArrayBuffer] | undefined)[];
  closeOnnxSession(session: OnnxSessionHandle): void;
}

declare const onnxSession: unique symbol;
/** An open session of the addon. */
export interface OnnxSessionHandle {
  readonly [onnxSession]: never;
}
