import type { Candidates, Gains, PartialAssignment } from './linear-assignment-reference.js';
import * as reference from './linear-assignment-reference.js';
import { nativeKernels } from './native.js';

/** A gain matrix [n, n] and how many threads may look at it. */
export interface GainMatrix {
  readonly gain: Gains;
  readonly n: number;
  readonly threads: number;
}

/** The `k` best candidates of each of some rows, [count, k]: columns and gain - dual, the best first. */
export interface RowCandidates {
  readonly k: number;
  readonly columns: Int32Array;
  readonly values: Float64Array;
}

const isSingle = (gain: Gains): number => (gain instanceof Float32Array ? 1 : 0);

/**
 * Least and largest gain of every row and column, [n, 2] each.
 * @returns row * n + column of the first gain that is not finite, or -1
 */
export function gainRanges({ gain, n, threads }: GainMatrix, rows: Float64Array, columns: Float64Array): number {
  const native = nativeKernels();
  if (native === undefined) return reference.gainRanges(gain, n, rows, columns);
  return native.assignmentRanges(gain, isSingle(gain), n, rows, columns, threads);
}

export interface RowOptions {
  /** Which rows; all without. */
  readonly rows?: Int32Array;
  /** What does not exceed it is left out, [n]. */
  readonly above?: Float64Array;
  /** Of equal candidates row i takes those from column i on first, so that rows do not crowd on the lowest columns. */
  readonly spread?: boolean;
}

/**
 * The columns with the largest gain[i, j] - columnDuals[j], the best first, the lowest of equal ones; -1 where there are fewer.
 */
export function rowCandidates(
  { gain, n, threads }: GainMatrix,
  columnDuals: Float64Array,
  k: number,
  options: RowOptions = {},
): RowCandidates {
  const { rows = null, above = null } = options;
  const spread = options.spread === true ? 1 : 0;
  const count = rows?.length ?? n;
  const columns = new Int32Array(count * k);
  const values = new Float64Array(count * k);
  const native = nativeKernels();
  if (native === undefined) reference.rowCandidates(gain, n, rows, columnDuals, above, spread, k, columns, values);
  else {
    native.assignmentRowCandidates(
      gain,
      isSingle(gain),
      n,
      rows,
      columnDuals,
      above,
      spread,
      k,
      columns,
      values,
      threads,
    );
  }
  return { k, columns, values };
}

/** The rows with the largest gain[i, j] - rowDuals[i] of every column, [n, k], ordered in the same way. */
export function columnCandidates({ gain, n, threads }: GainMatrix, rowDuals: Float64Array, k: number): Int32Array {
  const rows = new Int32Array(n * k);
  const native = nativeKernels();
  if (native === undefined) reference.columnCandidates(gain, n, rowDuals, k, rows);
  else native.assignmentColumnCandidates(gain, isSingle(gain), n, rowDuals, k, rows, threads);
  return rows;
}

const arraysOf = (state: PartialAssignment): [Int32Array, Int32Array, Float64Array, Float64Array] => [
  state.columnOfRow,
  state.rowOfColumn,
  state.rowDuals,
  state.columnDuals,
];

/** Assigns the rows `free`, ascending, by shortest augmenting paths over the whole matrix. */
export function augmentDense({ gain, n }: GainMatrix, free: Int32Array, state: PartialAssignment): void {
  const native = nativeKernels();
  if (native === undefined) reference.augmentDense(gain, n, free, state);
  else native.assignmentAugmentDense(gain, isSingle(gain), free, ...arraysOf(state));
}

/**
 * Assigns the rows `free`, ascending, within candidates, by row reduction of at most `steps` rows and shortest augmenting paths.
 * @throws RangeError when the candidates hold no perfect matching
 */
export function augmentCandidates(core: Candidates, free: Int32Array, state: PartialAssignment, steps: number): void {
  const native = nativeKernels();
  const done =
    native === undefined
      ? reference.augmentCandidates(core, free, state, steps)
      : native.assignmentAugmentCandidates(core.starts, core.columns, core.gains, free, ...arraysOf(state), steps);
  if (!done) throw new RangeError('the candidates hold no perfect matching');
}

/** Assigns all rows anew within candidates; false when `bids` were not enough. See the reference. */
export function auctionCandidates(core: Candidates, state: PartialAssignment, epsilon: number, bids: number): boolean {
  const native = nativeKernels();
  if (native === undefined) return reference.auctionCandidates(core, state, epsilon, bids);
  return native.assignmentAuction(core.starts, core.columns, core.gains, ...arraysOf(state), epsilon, bids);
}
