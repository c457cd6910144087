import type { Candidates, Gains, PartialAssignment } from './linear-assignment-reference.js';
import * as reference from './linear-assignment-reference.js';

/** A gain matrix [n, n] and how many threads may look at it. */
export interface GainMatrix {
  readonly gain: Gains;
  readonly n: number;
  readonly threads: number;
}

/** `k` candidates of each of some rows, [count, k]: columns and gain - dual, the best first. */
export interface RowCandidates {
  readonly k: number;
  readonly columns: Int32Array;
  readonly values: Float64Array;
}

/** See the reference of the same name. */
export function gainRanges(matrix: GainMatrix, rows: Float64Array, columns: Float64Array): number {
  return reference.gainRanges(matrix.gain, matrix.n, rows, columns);
}

/** @param options.rows which rows; all without. `above` leaves out what does not exceed it, [n] */
export function rowCandidates(
  matrix: GainMatrix,
  columnDuals: Float64Array,
  k: number,
  options: { readonly rows?: Int32Array; readonly above?: Float64Array } = {},
): RowCandidates {
  const { rows = null, above = null } = options;
  const count = rows?.length ?? matrix.n;
  const columns = new Int32Array(count * k);
  const values = new Float64Array(count * k);
  reference.rowCandidates(matrix.gain, matrix.n, rows, columnDuals, above, k, columns, values);
  return { k, columns, values };
}

/** Rows of the `k` best candidates of every column, [n, k]. */
export function columnCandidates(matrix: GainMatrix, rowDuals: Float64Array, k: number): Int32Array {
  const rows = new Int32Array(matrix.n * k);
  reference.columnCandidates(matrix.gain, matrix.n, rowDuals, k, rows);
  return rows;
}

export function augmentDense(matrix: GainMatrix, free: Int32Array, state: PartialAssignment): void {
  reference.augmentDense(matrix.gain, matrix.n, free, state);
}

export function augmentCandidates(core: Candidates, free: Int32Array, state: PartialAssignment, steps: number): void {
  reference.augmentCandidates(core, free, state, steps);
}

export function auctionCandidates(core: Candidates, state: PartialAssignment, epsilon: number): void {
  reference.auctionCandidates(core, state, epsilon);
}
