/** Points of a pyramid P(D, K): integer vectors of D coordinates whose absolute values sum to K. */
export interface PyramidShape {
  /** D, weights of a group. */
  readonly groupLength: number;
  /** K, pulses of a group. */
  readonly pulses: number;
  /** Groups whose indices share one mixed-radix word; 1 stores every index in a word of its own. */
  readonly superGroup: number;
}

/** How a group of weights is stored: a point of a pyramid and the code of a gain. */
export interface PyramidCode extends PyramidShape {
  /** Bits of the gain's code, 0 to 8. */
  readonly gainBits: number;
}

/** Rows [rows, columns] of a matrix as stored. Groups run along a row; the last one is padded with zeros. */
export interface EncodedRows {
  readonly rows: number;
  readonly columns: number;
  readonly code: PyramidCode;
  /** Packed indices, `rowIndexBytes(code, groups)` a row. */
  readonly index: Uint8Array;
  /** Packed gain codes, `rowCodeBytes(gainBits, groups)` a row; empty when there are no gain bits. */
  readonly gain: Uint8Array;
  /** Row scales, already rounded to what is stored (f16, or f32 where f16 cannot hold one). */
  readonly scales: Float32Array;
  /** Gain levels, 2^gainBits of them, ascending; as f32. */
  readonly levels: Float32Array;
  /** One bit a group, set where the group is exactly zero; absent where zero groups are coded like all others. */
  readonly zeroGroups?: Uint8Array;
}
