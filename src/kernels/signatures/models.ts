/** Rows of logits, activations, attention and what reads and writes stored weights. See `../native-signatures.ts`. */
export interface ModelKernels {
  /** Returns the first row of the block that holds NaN or +inf, or -1. */
  accumulateRows(
    data: Uint8Array,
    format: number,
    rows: number,
    columns: number,
    rowStride: number,
    columnOffset: number,
    rowOffset: number,
    accumulatorRows: number,
    fields: Float64Array,
    topValues: Float64Array,
    topColumns: Int32Array,
    top: number,
    full: number,
    orders: Float64Array,
    targets: Int32Array | null,
    targetLogits: Float64Array | null,
    threads: number,
  ): number;
  accumulateSecond(
    data: Uint8Array,
    format: number,
    rows: number,
    columns: number,
    rowStride: number,
    columnOffset: number,
    rowOffset: number,
    wanted: Uint8Array,
    max: Float64Array,
    logSumExp: Float64Array,
    entropy: Float64Array,
    varentropy: Float64Array,
    support: Float64Array,
    threads: number,
  ): void;
  /**
   * `methods` are positions in `FILTER_METHODS`, three values each; [FILTER_FIGURES, rows] figures. Returns the first row
   * that holds NaN, +inf or nothing finite, or -1.
   */
  filterTokens(
    double: number,
    logits: Float32Array | Float64Array,
    rows: number,
    vocabulary: number,
    methods: Int32Array,
    values: Float64Array,
    uniforms: Float64Array | null,
    greedy: number,
    tokens: Int32Array,
    figures: Float64Array,
    kept: Int32Array | null,
    threads: number,
  ): number;
  /** `activation` is the position in `INNER_ACTIVATIONS`; changes `inner`. */
  activateInner(
    double: number,
    activation: number,
    gate: Float32Array | Float64Array | null,
    inner: Float32Array | Float64Array,
    threads: number,
  ): void;
  /** `slidingWindow` and `softcap` are 0 for none; sums [heads, queryCount, 5]. */
  attentionScoresF32(
    queries: Float32Array,
    keys: Float32Array,
    heads: number,
    keyHeads: number,
    headDim: number,
    queryCount: number,
    keyCount: number,
    queryStart: number,
    slidingWindow: number,
    causal: number,
    scale: number,
    softcap: number,
    temperatures: Float64Array | null,
    moments: number,
    sums: Float64Array,
    threads: number,
  ): void;
  attentionScoresF64(
    queries: Float64Array,
    keys: Float64Array,
    heads: number,
    keyHeads: number,
    headDim: number,
    queryCount: number,
    keyCount: number,
    queryStart: number,
    slidingWindow: number,
    causal: number,
    scale: number,
    softcap: number,
    temperatures: Float64Array | null,
    moments: number,
    sums: Float64Array,
    threads: number,
  ): void;
  /** `window` and `softcap` are 0 for none; caches and `out` are written; see `cached-attention.ts`. */
  cachedAttention(
    queries: Float32Array,
    keys: Float32Array,
    values: Float32Array,
    keyCache: Float32Array,
    valueCache: Float32Array,
    out: Float32Array,
    starts: Int32Array,
    count: number,
    heads: number,
    kvHeads: number,
    headDim: number,
    capacity: number,
    window: number,
    scale: number,
    softcap: number,
    threads: number,
  ): void;
  widenToF32(source: Uint8Array, dtype: number, target: Float32Array, threads: number): void;
  widenToF64(source: Uint8Array, dtype: number, target: Float64Array, threads: number): void;
  narrowFromF32(source: Float32Array, dtype: number, target: Uint8Array, threads: number): void;
  dequantizeGgml(source: Uint8Array, type: number, target: Float32Array, threads: number): void;
  encodeGgml(
    source: Float32Array,
    rows: number,
    columns: number,
    type: number,
    byMagnitude: number,
    importance: Float64Array | null,
    target: Uint8Array,
    threads: number,
  ): void;
  roundToAbsmax(
    x: Float32Array,
    rows: number,
    columns: number,
    group: number,
    scales: Uint16Array,
    codes: Uint8Array,
    threads: number,
  ): void;
}
