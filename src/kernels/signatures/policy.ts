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
}
