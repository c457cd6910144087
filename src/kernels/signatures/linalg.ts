/** Matrices, sums of permuted rows and linear assignment. See `../native-signatures.ts`. */
export interface LinalgKernels {
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
  /** Of a matrix [n, n]: `transpose` 0 mirrors the lower triangle to the upper one, 1 turns the matrix. */
  foldSquare(matrix: Float64Array, n: number, transpose: number, threads: number): void;
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
}
