/** Order statistics and passes over the tokens of a policy's rollouts. See `../native-signatures.ts`. */
export interface PolicyKernels {
  /** Returns the position of the first NaN that counts, or -1. */
  countDigits(
    values: Float64Array,
    mask: Uint8Array | null,
    prefixes: Float64Array,
    digit: number,
    counts: Float64Array,
  ): number;
  /** Returns the position in `into` behind the last value, or -1 for a NaN where `digits` is 0. */
  gatherPrefixes(
    values: Float64Array,
    mask: Uint8Array | null,
    prefixes: Float64Array,
    digits: number,
    into: Float64Array,
    at: number,
  ): number;
  /** `found` [ranks, 3]: value, values below, values equal. */
  selectRanks(values: Float64Array, ranks: Float64Array, found: Float64Array, threads: number): void;
  /** Columns and what is held may be null; `figures` [records, RESPONSE_FIELDS]. Returns the position behind the last held, or -1. */
  responseFigures(
    logProb: Float64Array | null,
    oldLogProb: Float64Array | null,
    referenceLogProb: Float64Array | null,
    entropy: Float64Array | null,
    advantage: Float64Array | null,
    mask: Uint8Array,
    offsets: Int32Array,
    clipLow: number,
    clipHigh: number,
    figures: Float64Array,
    responseAdvantage: Float64Array | null,
    heldLogProb: Float64Array | null,
    heldEntropy: Float64Array | null,
    heldAdvantage: Float64Array | null,
    ids: Int32Array | null,
    heldIds: Int32Array | null,
    at: number,
    threads: number,
  ): number;
  /** Returns how many summands are positive. `summands` may be `logProb`. */
  responseCovariances(
    logProb: Float64Array,
    responseAdvantage: Float64Array,
    offsets: Int32Array,
    meanLogProb: number,
    meanAdvantage: number,
    summands: Float64Array,
    threads: number,
  ): number;
  /** Returns whether all that counts lies between. */
  settleValues(values: Float64Array, mask: Uint8Array | null, least: number, most: number, threads: number): boolean;
  settleIds(ids: Int32Array, mask: Uint8Array | null): boolean;
  countMask(mask: Uint8Array, offsets: Int32Array, counts: Int32Array): boolean;
  /** Returns how many summands are positive. */
  covarianceSummands(
    logProb: Float64Array,
    oldLogProb: null,
    referenceLogProb: null,
    entropy: null,
    advantage: Float64Array,
    mask: Uint8Array,
    meanLogProb: number,
    meanAdvantage: number,
    summands: Float64Array,
    threads: number,
  ): number;
  entropyChangeSummands(
    logProb: Float64Array,
    oldLogProb: Float64Array,
    referenceLogProb: null,
    entropy: Float64Array,
    advantage: Float64Array,
    mask: Uint8Array,
    omegas: Float64Array,
    threads: number,
  ): void;
  /** Returns whether the tables [ids] hold all ids; they are untouched where they do not. */
  countTokens(
    ids: Int32Array,
    entropy: Float64Array,
    mask: Uint8Array | null,
    threshold: number,
    counts: Float64Array,
    entropies: Float64Array,
  ): boolean;
  /** `sums` [records, thresholds]. */
  sumsAbove(
    values: Float64Array,
    offsets: Int32Array,
    thresholds: Float64Array,
    sums: Float64Array,
    threads: number,
  ): void;
  /**
   * Lines of JSON objects. `lines` [lines, 4]: start, end, first field, status (0 read, 1 blank, 2 refused); `fields` [fields, 9]: start and
   * end of the key, kind, start and end of the value, first number, three extents (-1 beyond the depth).
   */
  scanJsonLines(
    bytes: Uint8Array,
    length: number,
    threads: number,
  ): { readonly lines: Int32Array; readonly fields: Int32Array; readonly numbers: Float64Array };
}
