type Bytes = Uint8Array | null;
type Reals = Float32Array | Float64Array;

/** Merging of sparse task vectors. `dtype` is a place in `DTYPE_CODES`; see `../native-signatures.ts`. */
export interface MergeSparseKernels {
  /** (magnitude, end) of each rank into `cuts` [2 ranks]; gives the number of NaN. */
  taskVectorCuts(
    base: Bytes,
    baseDtype: number,
    model: Uint8Array,
    dtype: number,
    wide: number,
    count: number,
    ranks: Float64Array,
    cuts: Float64Array,
    threads: number,
  ): number;
  /** `cut`: keep magnitude and end, drop magnitude and end. `figures` as the fields of `TaskVectorFigures` [6]. */
  measureTaskVector(
    base: Bytes,
    baseDtype: number,
    model: Uint8Array,
    dtype: number,
    wide: number,
    count: number,
    cut: Float64Array,
    mask: Bytes,
    probabilities: Reals | null,
    figures: Float64Array,
    threads: number,
  ): void;
  bernoulliMask(
    key: Uint32Array,
    firstElement: number,
    count: number,
    density: number,
    mask: Uint8Array,
    threads: number,
  ): void;
  /** Gives the number of NaN. */
  rankedMask(
    base: Bytes,
    baseDtype: number,
    model: Uint8Array,
    dtype: number,
    wide: number,
    count: number,
    columns: number,
    low: number,
    step: number,
    uniforms: Float64Array | null,
    key: Uint32Array | null,
    firstElement: number,
    mask: Uint8Array,
    probabilities: Reals | null,
    threads: number,
  ): number;
  /**
   * `numbers` [models, 7]: weight, coefficient, election, keep magnitude and end, drop magnitude and end. `settings`:
   * consensus (0 none, 1 sum, 2 count), divideByAgreeing, leastDivisor or NaN, smallDivisor, divisor, factor, ontoBase.
   * `figures` [2 models + 2]: kept, NaN, smallest divisor, small divisors.
   */
  mixTaskVectors(
    base: Bytes,
    baseDtype: number,
    models: readonly Uint8Array[],
    dtypes: Int32Array,
    masks: readonly Bytes[],
    probabilities: readonly (Reals | null)[],
    numbers: Float64Array,
    settings: Float64Array,
    wide: number,
    count: number,
    output: Uint8Array,
    outputDtype: number,
    figures: Float64Array,
    threads: number,
  ): void;
  /** `result` [3 + models]: magnitude, end, selected, NaN of each model. */
  varianceCut(
    base: Bytes,
    baseDtype: number,
    models: readonly Uint8Array[],
    dtypes: Int32Array,
    wide: number,
    count: number,
    share: number,
    result: Float64Array,
    threads: number,
  ): void;
  varianceMask(
    base: Bytes,
    baseDtype: number,
    models: readonly Uint8Array[],
    dtypes: Int32Array,
    wide: number,
    count: number,
    magnitude: number,
    end: number,
    mask: Uint8Array,
    squares: Float64Array,
    threads: number,
  ): void;
  /** `figures` [3 models]: shared, unique, NaN. */
  activeCounts(
    base: Bytes,
    baseDtype: number,
    models: readonly Uint8Array[],
    dtypes: Int32Array,
    wide: number,
    count: number,
    epsilon: number,
    figures: Float64Array,
    threads: number,
  ): void;
  mixActive(
    base: Bytes,
    baseDtype: number,
    models: readonly Uint8Array[],
    dtypes: Int32Array,
    wide: number,
    count: number,
    epsilon: number,
    factors: Float64Array,
    output: Uint8Array,
    outputDtype: number,
    threads: number,
  ): void;
  /** `floor` NaN: the base takes the place of weights where nothing varies. */
  mixByVariation(
    base: Bytes,
    baseDtype: number,
    models: readonly Uint8Array[],
    dtypes: Int32Array,
    wide: number,
    count: number,
    squares: number,
    floor: number,
    output: Uint8Array,
    outputDtype: number,
    nans: Float64Array,
    threads: number,
  ): void;
  selectKth(values: Reals, k: number, threads: number): number;
}
