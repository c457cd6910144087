type Codes = Int32Array;

/** Dense merging. `dtype` is a place in `DTYPE_CODES`; see `../native-signatures.ts`. */
export interface MergeDenseKernels {
  /** `groups`: 0 all, 1 rows, 2 columns. */
  mergeCombine(
    inputs: readonly Uint8Array[],
    dtypes: Codes,
    rows: number,
    columns: number,
    relative: number,
    coefficients: Float64Array,
    groups: number,
    output: Uint8Array,
    outputDtype: number,
    threads: number,
  ): void;
  /** Rows are groups; `target` is [rows, blocks of a row, pairs]. */
  mergeGramBlocks(
    inputs: readonly Uint8Array[],
    dtypes: Codes,
    rows: number,
    columns: number,
    relative: number,
    combination: Float64Array | null,
    target: Float64Array,
    threads: number,
  ): void;
  mergeGramColumns(
    inputs: readonly Uint8Array[],
    dtypes: Codes,
    rows: number,
    columns: number,
    relative: number,
    target: Float64Array,
    threads: number,
  ): void;
  mergeSwapNear(
    a: Uint8Array,
    aDtype: number,
    b: Uint8Array,
    bDtype: number,
    elements: number,
    t: number,
    output: Uint8Array,
    outputDtype: number,
    threads: number,
  ): void;
  mergeRowDivergences(
    a: Uint8Array,
    aDtype: number,
    b: Uint8Array,
    bDtype: number,
    rows: number,
    columns: number,
    target: Float64Array,
    threads: number,
  ): void;
  mergeImportances(
    a: Uint8Array,
    aDtype: number,
    b: Uint8Array,
    bDtype: number,
    rows: number,
    columns: number,
    divergences: Float64Array,
    target: Float64Array,
    threads: number,
  ): void;
  mergeCountDigits(
    a: Uint8Array,
    aDtype: number,
    b: Uint8Array,
    bDtype: number,
    rows: number,
    columns: number,
    divergences: Float64Array,
    digits: Int32Array,
    level: number,
    counts: Float64Array,
    threads: number,
  ): void;
  /** Gives the number of elements of b. */
  mergeTakeImportant(
    a: Uint8Array,
    aDtype: number,
    b: Uint8Array,
    bDtype: number,
    rows: number,
    columns: number,
    divergences: Float64Array,
    threshold: number,
    output: Uint8Array,
    outputDtype: number,
    threads: number,
  ): number;
  /** Tensors are base, models, merged; `target` is [blocks, fields]. */
  mergeMeasure(
    tensors: readonly Uint8Array[],
    dtypes: Codes,
    elements: number,
    weights: Float64Array,
    hasBase: number,
    hasMerged: number,
    target: Float64Array,
    threads: number,
  ): void;
  /** `target` is [blocks, 3]. */
  mergeBadValues(tensor: Uint8Array, dtype: number, elements: number, target: Float64Array, threads: number): void;
}
