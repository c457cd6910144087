import type { KernelStatus } from './native.js';

/**
 * The functions of the compiled addon (`native/src/addon.cpp`). Each writes into the typed arrays it is given; sizes
 * are checked by the callers in this folder. `dtype`, `format` and `type` are the positions of the names in
 * `DTYPE_CODES`, `LOGIT_FORMATS` and `GGML_CODES`.
 */
export interface NativeKernels {
  readonly interfaceVersion: number;
  readonly compiler: string;
  simdName(): KernelStatus['simd'];
  /** 0 baseline, 1 AVX2, 2 AVX-512: lowers the level for later calls. */
  limitSimd(level: number): void;
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
  /** `activation` is the position in `INNER_ACTIVATIONS`; changes `inner`. */
  activateInner(
    double: number,
    activation: number,
    gate: Float32Array | Float64Array | null,
    inner: Float32Array | Float64Array,
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
  /** Bins by Birge and Rozenholc of columns [count, n]. */
  regularBins(
    columns: Float64Array,
    count: number,
    n: number,
    codes: Int32Array,
    levels: Int32Array,
    threads: number,
  ): void;
  codesInformation(
    columns: Int32Array,
    levels: Int32Array,
    count: number,
    n: number,
    outcome: Int32Array,
    outcomeLevels: number,
    orders: Int32Array | null,
    replicates: number,
    stopAfter: number,
    exceedances: Int32Array | null,
    drawn: Int32Array | null,
    sums: Float64Array | null,
    nats: Float64Array,
    threads: number,
  ): void;
  kernelInformation(
    columns: Float64Array,
    count: number,
    n: number,
    outcome: Float64Array,
    points: number,
    unitBandwidth: number,
    orders: Int32Array | null,
    replicates: number,
    stopAfter: number,
    exceedances: Int32Array | null,
    drawn: Int32Array | null,
    sums: Float64Array | null,
    nats: Float64Array,
    threads: number,
  ): void;
  classInformation(
    values: Float64Array,
    codes: Int32Array,
    levels: Int32Array,
    count: number,
    n: number,
    columnsAreCodes: number,
    points: number,
    orders: Int32Array | null,
    replicates: number,
    stopAfter: number,
    exceedances: Int32Array | null,
    drawn: Int32Array | null,
    sums: Float64Array | null,
    nats: Float64Array,
    threads: number,
  ): void;
  /** The work on tiles of kernel matrices of `kernel-tiles.ts`. */
  gaussianTileF32(
    tile: Float32Array,
    rows: number,
    columns: number,
    rowHalfNorms: Float32Array,
    columnHalfNorms: Float32Array,
    factor: number,
    sums: Float64Array | null,
    threads: number,
  ): void;
  gaussianTileF64(
    tile: Float64Array,
    rows: number,
    columns: number,
    rowHalfNorms: Float64Array,
    columnHalfNorms: Float64Array,
    factor: number,
    sums: Float64Array | null,
    threads: number,
  ): void;
  addRowSumsF32(
    tile: Float32Array,
    rows: number,
    columns: number,
    weights: Float64Array | null,
    power: number,
    sums: Float64Array,
    threads: number,
  ): void;
  addRowSumsF64(
    tile: Float64Array,
    rows: number,
    columns: number,
    weights: Float64Array | null,
    power: number,
    sums: Float64Array,
    threads: number,
  ): void;
  addColumnSumsF32(
    tile: Float32Array,
    rows: number,
    columns: number,
    weights: Float64Array | null,
    sums: Float64Array,
    threads: number,
  ): void;
  addColumnSumsF64(
    tile: Float64Array,
    rows: number,
    columns: number,
    weights: Float64Array | null,
    sums: Float64Array,
    threads: number,
  ): void;
  cosSinFeaturesF32(
    angles: Float32Array,
    features: number,
    columns: number,
    scale: number,
    columnScale: Float32Array | null,
    target: Float32Array,
    threads: number,
  ): void;
  cosSinFeaturesF64(
    angles: Float64Array,
    features: number,
    columns: number,
    scale: number,
    columnScale: Float64Array | null,
    target: Float64Array,
    threads: number,
  ): void;
  addTileF32(
    source: Float32Array,
    rows: number,
    columns: number,
    target: Float64Array,
    offset: number,
    stride: number,
    threads: number,
  ): void;
  addTileF64(
    source: Float64Array,
    rows: number,
    columns: number,
    target: Float64Array,
    offset: number,
    stride: number,
    threads: number,
  ): void;
  scaleRowsF32(
    source: Float32Array,
    rows: number,
    columns: number,
    factors: Float64Array,
    target: Float32Array,
    threads: number,
  ): void;
  scaleRowsF64(
    source: Float64Array,
    rows: number,
    columns: number,
    factors: Float64Array,
    target: Float64Array,
    threads: number,
  ): void;
  /** The k nearest other points of each of [n, d] in the maximum norm; `neighbours` [n, k]. */
  nearestNeighbours(
    points: Float64Array,
    n: number,
    d: number,
    k: number,
    distances: Float64Array,
    neighbours: Int32Array | null,
    threads: number,
  ): void;
  countWithin(
    points: Float64Array,
    n: number,
    d: number,
    radii: Float64Array,
    strict: number,
    counts: Int32Array,
    threads: number,
  ): void;
  /**
   * C = beta C + alpha A B, of which the entries with column <= row alone under `lower`; entry (i, j) of A lies at
   * `i * aRowStep + j * aColumnStep`. `widths`: 0 all double, 1 all single, 2 single operands and a double result.
   */
  multiplyMatrices(
    widths: number,
    a: Float64Array | Float32Array,
    aRowStep: number,
    aColumnStep: number,
    b: Float64Array | Float32Array,
    bRowStep: number,
    bColumnStep: number,
    c: Float64Array | Float32Array,
    cStride: number,
    m: number,
    n: number,
    k: number,
    alpha: number,
    beta: number,
    lower: number,
    threads: number,
  ): void;
  /** Returns 0 when done, 1 when the lower triangle holds an entry that is not finite, 2 when sweeps do not settle. */
  symmetricSpectrum(matrix: Float64Array, n: number, values: Float64Array, threads: number): number;
  /** Rotates rows [rows, n] in place; `codes` of the core [core, core / 4] or null, `diagonal` [n] as wide as rows. */
  rotateRows(
    data: Float32Array | Float64Array,
    rows: number,
    n: number,
    core: number,
    segment: number,
    codes: Uint8Array | null,
    diagonal: Float32Array | Float64Array,
    permutation: Int32Array | null,
    inverse: number,
    threads: number,
  ): void;
  /** One lazy block of error feedback; see `error-feedback.ts`. */
  feedbackStep(
    work: Float32Array,
    base: Float32Array,
    decoded: Float32Array,
    change: Float32Array,
    coupling: Float32Array,
    metrics: Float32Array,
    metricScales: Float64Array,
    scales: Float32Array,
    levels: Float32Array,
    pulses: Int16Array,
    codes: Uint8Array,
    losses: Float64Array,
    rows: number,
    n: number,
    from: number,
    to: number,
    groupLength: number,
    groupPulses: number,
    cap: number,
    negativeCap: number,
    inMetric: number,
    descent: number,
    polishSteps: number,
    threads: number,
  ): void;
  /** Of a matrix [n, n]: `transpose` 0 mirrors the lower triangle to the upper one, 1 turns the matrix. */
  foldSquare(matrix: Float64Array, n: number, transpose: number, threads: number): void;
  /** These three give row * groups + group of the first group that is wrong, or -1; see `pyramid-index.ts`. */
  packPulses(
    pulses: Int16Array,
    rows: number,
    groups: number,
    groupLength: number,
    groupPulses: number,
    superGroup: number,
    target: Uint8Array,
    threads: number,
  ): number;
  unpackPulses(
    index: Uint8Array,
    rows: number,
    groups: number,
    groupLength: number,
    groupPulses: number,
    superGroup: number,
    target: Int16Array,
    threads: number,
  ): number;
  dequantizePyramid(
    index: Uint8Array,
    gain: Uint8Array,
    scales: Float32Array,
    levels: Float32Array,
    zeroGroups: Uint8Array | null,
    columns: number,
    groupLength: number,
    groupPulses: number,
    superGroup: number,
    gainBits: number,
    firstRow: number,
    rowCount: number,
    target: Float32Array,
    threads: number,
  ): number;
  /** Moments [rows, 6] of rows and energies [rows, groups] of their groups. */
  rowMoments(
    data: Float32Array | Float64Array,
    rows: number,
    columns: number,
    groupLength: number,
    moments: Float64Array,
    energies: Float64Array,
    threads: number,
  ): void;
  /** Whether all weights are finite; pulses [rows, groups, D]. `mode` as in `SEARCH_MODES`, caps 0 for none. */
  searchPulses(
    x: Float32Array,
    rows: number,
    columns: number,
    groupLength: number,
    groupPulses: number,
    mode: number,
    cap: number,
    negativeCap: number,
    exchange: number,
    importance: Float32Array | null,
    pulses: Int16Array,
    threads: number,
  ): boolean;
  /** Whether all weights are finite; see `encode-rows.ts`. `statistics` [rows, ROW_FIELDS]. */
  encodePyramidRows(
    x: Float32Array,
    rows: number,
    columns: number,
    groupLength: number,
    groupPulses: number,
    mode: number,
    cap: number,
    negativeCap: number,
    exchange: number,
    importance: Float32Array | null,
    superGroup: number,
    gainBits: number,
    levels: Float32Array,
    keepNorm: number,
    index: Uint8Array,
    gain: Uint8Array,
    scales: Float32Array,
    zeroGroups: Uint8Array | null,
    statistics: Float64Array,
    threads: number,
  ): boolean;
  encodePyramidBlock(
    x: Float32Array,
    rows: number,
    width: number,
    groupLength: number,
    groupPulses: number,
    mode: number,
    cap: number,
    negativeCap: number,
    exchange: number,
    importance: Float32Array | null,
    levels: Float32Array,
    scales: Float32Array,
    pulses: Int16Array,
    codes: Uint8Array,
    decoded: Float32Array,
    threads: number,
  ): boolean;
  roundToAbsmax(
    x: Float32Array,
    rows: number,
    columns: number,
    group: number,
    scales: Uint16Array,
    codes: Uint8Array,
    threads: number,
  ): void;
  addWeighted(
    sum: Float64Array,
    x: Float32Array | Float64Array,
    rows: number,
    columns: number,
    rowOrder: Int32Array | null,
    columnOrder: Int32Array | null,
    weight: number,
    overwrite: number,
    threads: number,
  ): void;
  divideSum(sum: Float64Array, divisor: number, target: Float32Array | Float64Array, threads: number): void;
  squaredRowDistances(
    a: Float32Array | Float64Array,
    b: Float32Array | Float64Array,
    rows: number,
    columns: number,
    rowOrder: Int32Array | null,
    columnOrder: Int32Array | null,
    distances: Float64Array,
    threads: number,
  ): void;
  /**
   * Scans and searches of linear assignment; `linear-assignment-reference.ts` says what each does. `single` 1 for gains of
   * Float32Array, 0 for Float64Array; the rest of the name is that of the reference.
   */
  assignmentRanges(
    gain: Float32Array | Float64Array,
    single: number,
    n: number,
    rows: Float64Array,
    columns: Float64Array,
    threads: number,
  ): number;
  assignmentRowCandidates(
    gain: Float32Array | Float64Array,
    single: number,
    n: number,
    rows: Int32Array | null,
    columnDuals: Float64Array,
    above: Float64Array | null,
    spread: number,
    k: number,
    columns: Int32Array,
    values: Float64Array,
    threads: number,
  ): void;
  assignmentColumnCandidates(
    gain: Float32Array | Float64Array,
    single: number,
    n: number,
    rowDuals: Float64Array,
    k: number,
    rows: Int32Array,
    threads: number,
  ): void;
  assignmentAugmentDense(
    gain: Float32Array | Float64Array,
    single: number,
    free: Int32Array,
    columnOfRow: Int32Array,
    rowOfColumn: Int32Array,
    rowDuals: Float64Array,
    columnDuals: Float64Array,
  ): void;
  /** Whether all free rows were assigned: false when the candidates hold no perfect matching. */
  assignmentAugmentCandidates(
    starts: Int32Array,
    columns: Int32Array,
    gains: Float64Array,
    free: Int32Array,
    columnOfRow: Int32Array,
    rowOfColumn: Int32Array,
    rowDuals: Float64Array,
    columnDuals: Float64Array,
    steps: number,
  ): boolean;
  /** Whether the bids were enough. */
  assignmentAuction(
    starts: Int32Array,
    columns: Int32Array,
    gains: Float64Array,
    columnOfRow: Int32Array,
    rowOfColumn: Int32Array,
    rowDuals: Float64Array,
    columnDuals: Float64Array,
    epsilon: number,
    bids: number,
  ): boolean;
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
  /** Reads every byte once: what plain reading costs, for benchmarks. */
  readMemory(data: Uint8Array, threads: number): number;
  trimMemory(): boolean;
  quickExit(code: number): never;
}
