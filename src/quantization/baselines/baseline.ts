/** Numbers that a method's settings fix, by name: `bits`, `group`. */
export type BaselineSettings = Readonly<Record<string, number>>;

/** A matrix of rows [rows, columns], row-major. */
export interface RowMatrix {
  readonly weights: Float32Array;
  readonly rows: number;
  readonly columns: number;
}

/**
 * A quantiser whose scales are fixed: gives the reconstructions `out` [rows, width] of columns `column0` to
 * `column0 + width - 1` whose current values are `target` [rows, width]. Error feedback calls it block by block.
 */
export interface FittedQuantizer {
  /** Columns that must be quantised together; 1 for scalar codes. */
  readonly blockColumns: number;
  /** Exact bits of the matrix as stored: codes, scales, zero points, padding of rows to bytes. */
  readonly storedBits: number;
  quantize(target: Float32Array, rows: number, column0: number, width: number, out: Float32Array): void;
}

/**
 * A quantisation method as one declared thing. The machinery (rotation, error feedback, rates, reports) names no method.
 */
export interface Baseline {
  /** Name on the command line. */
  readonly name: string;
  /** Name in figures and tables. */
  readonly title: string;
  /** Every setting that is offered when a rate is asked for; a single empty one where there is nothing to choose. */
  readonly settings: readonly BaselineSettings[];
  /** Exact bits of a matrix under a setting, before it is seen. */
  storedBits(settings: BaselineSettings, rows: number, columns: number): number;
  /** Why rows of this width cannot be stored, where they cannot. */
  misfit?(settings: BaselineSettings, columns: number): string | undefined;
  /**
   * Columns whose scales depend on no others, where a row has several such groups: error feedback then chooses the
   * scales of a group when it gets there, from what it has made of the weights (as GPTQ does).
   */
  groupColumns?(settings: BaselineSettings, columns: number): number | undefined;
  /** Chooses scales for a matrix. */
  fit(matrix: RowMatrix, settings: BaselineSettings, threads?: number): FittedQuantizer;
}

/** Bits of `count` codes of `bits` bits, padded to whole bytes. */
export function paddedBits(bits: number, count: number): number {
  return 8 * Math.ceil((bits * count) / 8);
}

/** Quantises a whole matrix with the quantiser that was fitted to it. */
export function reconstruct(
  quantizer: FittedQuantizer,
  { weights, rows, columns }: RowMatrix,
  out: Float32Array,
): void {
  quantizer.quantize(weights, rows, 0, columns, out);
}
