/** Information between columns, tiles of kernel matrices and nearest neighbours. See `../native-signatures.ts`. */
export interface StatisticsKernels {
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
}
