import { InputError } from '../errors.js';
import { type GainMatrix, gainRanges, rowCandidates } from './linear-assignment-kernels.js';
import type { Gains } from './linear-assignment-reference.js';
import {
  greedyAssignment,
  SEARCH_SIZES,
  type SearchSizes,
  solveAuction,
  solveExact,
} from './linear-assignment-solvers.js';
import { kernelThreads } from './native.js';

export type { Gains } from './linear-assignment-reference.js';

/**
 * `exact`: an optimum. `auction`: nearly optimal, from the best entries of every row and column. `greedy`: the largest gain
 * that is left, again and again.
 */
export type AssignmentMode = 'exact' | 'auction' | 'greedy';

export interface AssignmentOptions {
  /** Default `exact`. */
  readonly mode?: AssignmentMode;
  /** Results are the same bits whatever the number. */
  readonly threads?: number;
  /** Refuse when gains and work space take more bytes than this. */
  readonly maxBytes?: number;
  /** How many entries the solvers look at first; for tests and measurements. */
  readonly sizes?: SearchSizes;
}

/** An assignment that is to have a large sum of gains, with its certificate. */
export interface Assignment {
  /** Column of every row, [n]. */
  readonly permutation: Int32Array;
  /** Sum of gain[i, permutation[i]]. */
  readonly gain: number;
  /** No assignment gains more: the sum of all duals. */
  readonly bound: number;
  /** bound - gain, summed row by row so that a small one keeps its digits; never negative. */
  readonly gap: number;
  /** gain[i, j] <= rowDuals[i] + columnDuals[j] for all i and j, but for the rounding of one sum, [n] each. */
  readonly rowDuals: Float64Array;
  readonly columnDuals: Float64Array;
}

export const ASSIGNMENT_MODES: readonly AssignmentMode[] = ['exact', 'auction', 'greedy'];

/** Bytes of one candidate: while lists are built its row, its column, its value and its gain, and the list before. */
const CANDIDATE_BYTES = 40;
/** Bytes a row of everything that is as long as the assignment. */
const ROW_BYTES = 256;
/** Ranges of rows within strips of columns, and the gains of samples of samples, for one gain of the matrix. */
const RANGE_BYTES = 1 / 64;
const SAMPLED_SHARE = 1 / 63;

/** Bytes that a mode needs for n * n gains of `gainBytes` each, the gains included. */
export function assignmentBytes(n: number, mode: AssignmentMode, gainBytes = 4): number {
  const { perRow, perColumn, perPricing } = SEARCH_SIZES;
  const first = perRow + perColumn;
  const candidates = { exact: first + 4 * perPricing, auction: first + 8 * perPricing, greedy: perRow }[mode];
  const gains = gainBytes * (mode === 'greedy' ? 1 : 1 + SAMPLED_SHARE);
  return Math.ceil(n * n * (gains + RANGE_BYTES) + n * (CANDIDATE_BYTES * Math.min(n, candidates) + ROW_BYTES));
}

/**
 * For callers that ask before they compute n * n gains.
 * @throws InputError when the mode needs more than `maxBytes` for n rows; it says what would fit
 */
export function checkAssignmentMemory(n: number, mode: AssignmentMode, maxBytes: number, gainBytes = 4): void {
  const needed = assignmentBytes(n, mode, gainBytes);
  if (needed <= maxBytes) return;
  const fitting = ASSIGNMENT_MODES.filter((other) => assignmentBytes(n, other, gainBytes) <= maxBytes);
  let way = `no mode fits: the gains alone take ${n * n * gainBytes}`;
  if (fitting.length > 0) way = `mode ${fitting.join(' or ')} would fit`;
  else if (gainBytes > 4 && assignmentBytes(n, mode, 4) <= maxBytes) way = 'gains in single precision would fit';
  throw new InputError(`assignment of ${n} rows in mode ${mode} needs ${needed} bytes of ${maxBytes}; ${way}`);
}

/**
 * Rows all of whose gains are equal (neurons that are dead) may exchange their columns for nothing, and so may the rows of such
 * columns: they take them in ascending order.
 */
function orderConstants(permutation: Int32Array, rows: Float64Array, columns: Float64Array): void {
  const constant = (ranges: Float64Array, at: number): boolean => ranges[2 * at] === ranges[2 * at + 1];
  const n = permutation.length;
  const sortWhere = (belongs: (i: number) => boolean): boolean => {
    const places = Array.from(permutation.keys()).filter(belongs);
    const sorted = Int32Array.from(places, (i) => permutation[i]).sort();
    let changed = false;
    places.forEach((i, at) => {
      changed ||= permutation[i] !== sorted[at];
      permutation[i] = sorted[at];
    });
    return changed;
  };
  // Each turn takes inversions away, so this ends.
  for (let turns = 0; turns < n; turns++) {
    const byRow = sortWhere((i) => constant(rows, i));
    const byColumn = sortWhere((i) => constant(columns, permutation[i]));
    if (!byRow && !byColumn) return;
  }
}

/** The assignment with the least row duals that go with these duals of columns. */
function certified(matrix: GainMatrix, permutation: Int32Array, columnDuals: Float64Array): Assignment {
  const { gain, n } = matrix;
  const rowDuals = rowCandidates(matrix, columnDuals, 1).values;
  let total = 0;
  let bound = 0;
  let gap = 0;
  for (let i = 0; i < n; i++) {
    const own = gain[i * n + permutation[i]];
    const dual = columnDuals[permutation[i]];
    total += own;
    bound += rowDuals[i] + dual;
    gap += rowDuals[i] - (own - dual);
  }
  return { permutation, gain: total, bound, gap, rowDuals, columnDuals };
}

function solveGreedy(matrix: GainMatrix, columnMaxima: Float64Array, perRow: number): Assignment {
  const { n } = matrix;
  const zeros = new Float64Array(n);
  const permutation = greedyAssignment(matrix, zeros, rowCandidates(matrix, zeros, Math.min(perRow, n)));
  // Two bounds cost nothing: the largest gains of the rows, and those of the columns.
  const [byRows, byColumns] = [zeros, columnMaxima].map((duals) => certified(matrix, permutation, duals));
  return byColumns.bound < byRows.bound ? byColumns : byRows;
}

/**
 * The permutation pi that maximises the sum of gain[i, pi(i)] (`exact`), or nearly so, with a bound that no permutation
 * exceeds. Among equal gains the lowest row and column come first.
 * @param gain [n, n], row-major
 * @throws InputError for a gain that is not finite (with its place), and over the limit of memory
 * @throws RangeError when the gains are not n * n
 */
export function solveAssignment(gain: Gains, n: number, options: AssignmentOptions = {}): Assignment {
  if (!Number.isInteger(n) || n < 0 || gain.length !== n * n) {
    throw new RangeError(`${gain.length} gains are no matrix of ${n} rows and columns`);
  }
  const { mode = 'exact', maxBytes, sizes = SEARCH_SIZES } = options;
  if (maxBytes !== undefined) checkAssignmentMemory(n, mode, maxBytes, gain.BYTES_PER_ELEMENT);
  const matrix = { gain, n, threads: kernelThreads(options.threads) };
  const rows = new Float64Array(2 * n);
  const columns = new Float64Array(2 * n);
  const wrong = gainRanges(matrix, rows, columns);
  if (wrong >= 0) {
    throw new InputError(`the gain of row ${Math.floor(wrong / n)} and column ${wrong % n} is ${gain[wrong]}`);
  }
  if (mode === 'greedy') {
    const columnMaxima = Float64Array.from({ length: n }, (_, j) => columns[2 * j + 1]);
    return solveGreedy(matrix, columnMaxima, sizes.perRow);
  }
  let least = 0;
  let most = 0;
  for (let i = 0; i < n; i++) {
    least = i === 0 ? rows[0] : Math.min(least, rows[2 * i]);
    most = i === 0 ? rows[1] : Math.max(most, rows[2 * i + 1]);
  }
  const largest = Math.max(Math.abs(least), Math.abs(most));
  const state =
    mode === 'exact' ? solveExact(matrix, largest, sizes) : solveAuction(matrix, largest, most - least, sizes);
  orderConstants(state.columnOfRow, rows, columns);
  return certified(matrix, state.columnOfRow, state.columnDuals);
}
