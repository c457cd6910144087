import { createRandom } from '../random.js';
import {
  auctionCandidates,
  augmentCandidates,
  augmentDense,
  columnCandidates,
  type GainMatrix,
  type RowCandidates,
  rowCandidates,
} from './linear-assignment-kernels.js';
import type { Candidates, Gains, PartialAssignment } from './linear-assignment-reference.js';

/** How many entries the solvers look at. The result of `exact` does not depend on them, only its time does. */
export interface SearchSizes {
  /** Candidates of every row and of every column to begin with. */
  readonly perRow: number;
  readonly perColumn: number;
  /** Candidates that a row may gain when entries outside of the candidates contradict its dual. */
  readonly perPricing: number;
  /** Up to this many rows, and over this share of all entries, paths go over the whole matrix. */
  readonly mostDense: number;
  readonly mostShare: number;
}

export const SEARCH_SIZES: SearchSizes = {
  perRow: 64,
  perColumn: 8,
  perPricing: 16,
  mostDense: 128,
  mostShare: 0.25,
};

/** Row reduction ends after this many steps a row. */
const REDUCTION_STEPS = 20;
/** One row and column of so many makes the sample that duals start from. */
const SAMPLING = 8;
/** Rounds of pricing before the rows that are left take paths over the whole matrix. */
const MOST_ROUNDS = 60;
/** Duals may contradict a gain by this share of the largest gain: rounding alone. */
const TOLERANCE = 2 ** -42;
/** The auction's epsilon goes from this share of the range of gains, divided by so much each time, to the last share. */
const FIRST_EPSILON = 0.1;
const EPSILON_DIVISOR = 6;
const LAST_EPSILON = 1e-6;
/** How often entries that contradict the prices of an auction join its candidates. */
const AUCTION_ROUNDS = 5;
/** An auction ends after this many bids a row. */
const MOST_BIDS = 200;

function unassigned(n: number, columnDuals: Float64Array): PartialAssignment {
  return {
    columnOfRow: new Int32Array(n).fill(-1),
    rowOfColumn: new Int32Array(n).fill(-1),
    rowDuals: new Float64Array(n),
    columnDuals,
  };
}

function totalGain(gain: Gains, n: number, columnOfRow: Int32Array): number {
  let total = 0;
  for (let i = 0; i < n; i++) total += gain[i * n + columnOfRow[i]];
  return total;
}

/** The largest gain of every column: the duals of Jonker and Volgenant's column reduction. */
function columnMaxima(matrix: GainMatrix): Float64Array {
  const { gain, n } = matrix;
  return Float64Array.from(columnCandidates(matrix, new Float64Array(n), 1), (row, j) => gain[row * n + j]);
}

const allRows = (n: number): Int32Array => Int32Array.from({ length: n }, (_, i) => i);

/** Rows by the value of their present candidate, the largest first, equal ones by ascending row. */
function sinkRow(heap: Int32Array, size: number, keys: Float64Array, from: number): void {
  const row = heap[from];
  const before = (a: number, b: number): boolean => keys[a] > keys[b] || (keys[a] === keys[b] && a < b);
  let place = from;
  for (;;) {
    let child = 2 * place + 1;
    if (child >= size) break;
    if (child + 1 < size && before(heap[child + 1], heap[child])) child++;
    if (!before(heap[child], row)) break;
    heap[place] = heap[child];
    place = child;
  }
  heap[place] = row;
}

/**
 * The largest gain[i, j] - columnDuals[j] whose row and column are both free, again and again; of equal ones the lowest row,
 * then the lowest column. `first` holds the candidates of all rows at these duals; rows that lose all of theirs are searched
 * again among the columns that are left.
 * @returns the column of every row
 */
export function greedyAssignment(matrix: GainMatrix, columnDuals: Float64Array, first: RowCandidates): Int32Array {
  const { n } = matrix;
  const { k } = first;
  const columns = first.columns.slice();
  const values = first.values.slice();
  // Duals of free columns; +Infinity takes the others out of the search.
  const open = columnDuals.slice();
  const place = new Int32Array(n);
  const keys = Float64Array.from({ length: n }, (_, i) => values[i * k]);
  const heap = allRows(n);
  for (let i = (n >> 1) - 1; i >= 0; i--) sinkRow(heap, n, keys, i);
  const result = new Int32Array(n).fill(-1);
  for (let size = n; size > 0; ) {
    const row = heap[0];
    const column = columns[row * k + place[row]];
    if (open[column] !== Number.POSITIVE_INFINITY) {
      result[row] = column;
      open[column] = Number.POSITIVE_INFINITY;
      heap[0] = heap[--size];
    } else {
      do place[row]++;
      while (place[row] < k && open[columns[row * k + place[row]]] === Number.POSITIVE_INFINITY);
      if (place[row] === k || columns[row * k + place[row]] < 0) {
        const again = rowCandidates(matrix, open, k, { rows: Int32Array.of(row) });
        columns.set(again.columns, row * k);
        values.set(again.values, row * k);
        place[row] = 0;
      }
      keys[row] = values[row * k + place[row]];
    }
    sinkRow(heap, size, keys, 0);
  }
  return result;
}

/** The candidates and, of each row, the columns `more[i]` besides. */
function withColumns(
  gain: Gains,
  n: number,
  core: Candidates | undefined,
  rows: Int32Array,
  more: Int32Array,
): Candidates {
  const starts = new Int32Array(n + 1);
  for (const row of rows) starts[row + 1]++;
  for (let i = 0; i < n; i++)
    starts[i + 1] += starts[i] + (core === undefined ? 0 : core.starts[i + 1] - core.starts[i]);
  const columns = new Int32Array(starts[n]);
  const ends = starts.slice(0, n);
  for (let i = 0; core !== undefined && i < n; i++) {
    const own = core.columns.subarray(core.starts[i], core.starts[i + 1]);
    columns.set(own, ends[i]);
    ends[i] += own.length;
  }
  for (let e = 0; e < rows.length; e++) columns[ends[rows[e]]++] = more[e];
  let length = 0;
  for (let i = 0; i < n; i++) {
    const own = columns.subarray(starts[i], starts[i + 1]).sort();
    const begin = length;
    for (let e = 0; e < own.length; e++) if (e === 0 || own[e] !== own[e - 1]) columns[length++] = own[e];
    starts[i] = begin;
  }
  starts[n] = length;
  const kept = columns.slice(0, length);
  const gains = new Float64Array(length);
  for (let i = 0; i < n; i++) for (let e = starts[i]; e < starts[i + 1]; e++) gains[e] = gain[i * n + kept[e]];
  return { starts, columns: kept, gains };
}

/**
 * Where an optimum is likely: the best entries of every row and column at these duals of columns, and a greedy assignment, so
 * that a perfect matching is among them.
 */
function likelyCandidates(
  matrix: GainMatrix,
  columnDuals: Float64Array,
  sizes: SearchSizes,
): { core: Candidates; greedy: Int32Array } {
  const { gain, n } = matrix;
  const byRow = rowCandidates(matrix, columnDuals, Math.min(sizes.perRow, n), { spread: true });
  const rowDuals = Float64Array.from({ length: n }, (_, i) => byRow.values[i * byRow.k]);
  const perColumn = Math.min(sizes.perColumn, n);
  const byColumn = columnCandidates(matrix, rowDuals, perColumn);
  const greedy = greedyAssignment(matrix, columnDuals, byRow);
  const rows = new Int32Array(n * (byRow.k + perColumn + 1));
  const columns = new Int32Array(rows.length);
  let length = 0;
  for (let i = 0; i < n; i++) {
    for (let c = 0; c < byRow.k; c++, length++) {
      rows[length] = i;
      columns[length] = byRow.columns[i * byRow.k + c];
    }
    rows[length] = i;
    columns[length++] = greedy[i];
  }
  for (let j = 0; j < n; j++) {
    for (let c = 0; c < perColumn; c++, length++) {
      rows[length] = byColumn[j * perColumn + c];
      columns[length] = j;
    }
  }
  return { core: withColumns(gain, n, undefined, rows, columns), greedy };
}

interface Violations {
  /** Rows whose dual an entry contradicts, ascending. */
  readonly free: Int32Array;
  /** Those entries. */
  readonly rows: Int32Array;
  readonly columns: Int32Array;
}

/** Entries of the whole matrix that the duals do not cover; their rows lose their columns. */
function releaseViolated(
  matrix: GainMatrix,
  state: PartialAssignment,
  perPricing: number,
  tolerance: number,
): Violations {
  const { n } = matrix;
  const above = state.rowDuals.map((dual) => dual + tolerance);
  const { k, columns, values } = rowCandidates(matrix, state.columnDuals, Math.min(perPricing, n), {
    above,
    spread: true,
  });
  const free: number[] = [];
  const places: number[] = [];
  for (let i = 0; i < n; i++) {
    if (columns[i * k] < 0) continue;
    free.push(i);
    state.rowOfColumn[state.columnOfRow[i]] = -1;
    state.columnOfRow[i] = -1;
    state.rowDuals[i] = values[i * k];
    for (let c = 0; c < k && columns[i * k + c] >= 0; c++) places.push(i * k + c);
  }
  const rows = Int32Array.from(places, (place) => Math.floor(place / k));
  return { free: Int32Array.from(free), rows, columns: Int32Array.from(places, (place) => columns[place]) };
}

/**
 * Duals of all columns from an optimum of every `SAMPLING`-th row and column, drawn at random: they go on to other columns by
 * the rows of the sample, of which each is to pay for its best column no more than it does there.
 */
function sampledDuals(matrix: GainMatrix, largest: number, sizes: SearchSizes): Float64Array {
  const { gain, n, threads } = matrix;
  const m = Math.ceil(n / SAMPLING);
  const random = createRandom(n);
  const [rows, columns] = [0, 1].map((key) => random.fork(key).permutation(n).subarray(0, m).sort());
  const own = gain instanceof Float32Array ? new Float32Array(m * m) : new Float64Array(m * m);
  for (let i = 0; i < m; i++) for (let j = 0; j < m; j++) own[i * m + j] = gain[rows[i] * n + columns[j]];
  const sample = solveExact({ gain: own, n: m, threads }, largest, sizes);
  const rowDuals = new Float64Array(n).fill(Number.POSITIVE_INFINITY);
  for (let i = 0; i < m; i++) rowDuals[rows[i]] = sample.rowDuals[i];
  const best = columnCandidates(matrix, rowDuals, 1);
  return Float64Array.from(best, (row, j) => gain[row * n + j] - rowDuals[row]);
}

/**
 * An optimal assignment. Jonker and Volgenant's method runs on likely entries alone (the core of Volgenant 1996, Computers &
 * Operations Research 23); then every entry is held against the duals, those that contradict them join the core, and their
 * rows are assigned anew, until none does.
 * @param largest the largest magnitude of a gain
 */
export function solveExact(matrix: GainMatrix, largest: number, sizes: SearchSizes): PartialAssignment {
  const { gain, n } = matrix;
  const dense = n <= Math.max(1, sizes.mostDense);
  const columnDuals = dense ? columnMaxima(matrix) : sampledDuals(matrix, largest, sizes);
  const state = unassigned(n, columnDuals);
  let free = allRows(n);
  if (!dense) {
    let { core } = likelyCandidates(matrix, columnDuals, sizes);
    for (let round = 0; round < MOST_ROUNDS; round++) {
      augmentCandidates(core, free, state, REDUCTION_STEPS * n);
      const violations = releaseViolated(matrix, state, sizes.perPricing, TOLERANCE * largest);
      free = violations.free;
      if (free.length === 0) return state;
      if (core.columns.length + violations.columns.length > sizes.mostShare * n * n) break;
      core = withColumns(gain, n, core, violations.rows, violations.columns);
    }
  }
  augmentDense(matrix, free, state);
  return state;
}

/** Whether every auction from the first epsilon to the last came to its end. */
function auctionDownTo(core: Candidates, state: PartialAssignment, first: number, last: number): boolean {
  const bids = MOST_BIDS * state.columnOfRow.length;
  for (let epsilon = first; epsilon > last; epsilon /= EPSILON_DIVISOR) {
    if (!auctionCandidates(core, state, epsilon, bids)) return false;
  }
  return auctionCandidates(core, state, last, bids);
}

/**
 * A nearly optimal assignment among the likely entries, by auction with epsilon scaling: within n epsilon of the best where no
 * other entry contradicts the prices; those that do join, a few times. The best assignment on the way; where rows bid
 * against each other for too long or others still contradict, not worse than the greedy one.
 * @param largest the largest magnitude of a gain
 * @param range largest less smallest gain
 */
export function solveAuction(
  matrix: GainMatrix,
  largest: number,
  range: number,
  sizes: SearchSizes,
): PartialAssignment {
  const { gain, n } = matrix;
  if (n <= Math.max(1, sizes.mostDense) || range === 0) return solveExact(matrix, largest, sizes);
  const state = unassigned(n, sampledDuals(matrix, largest, sizes));
  let { core, greedy: best } = likelyCandidates(matrix, state.columnDuals, sizes);
  let duals = state.columnDuals.slice();
  const keepBetter = (permutation: Int32Array): void => {
    if (totalGain(gain, n, permutation) > totalGain(gain, n, best)) best = permutation.slice();
  };
  const last = LAST_EPSILON * range;
  let first = FIRST_EPSILON * range;
  for (let round = 0; round < AUCTION_ROUNDS; round++) {
    if (!auctionDownTo(core, state, first, last)) {
      // Prices of an auction without end bound nothing well; those before do.
      state.columnDuals.set(duals);
      break;
    }
    keepBetter(state.columnOfRow);
    duals = state.columnDuals.slice();
    const violations = releaseViolated(matrix, state, sizes.perPricing, last);
    if (violations.free.length === 0) {
      state.columnOfRow.set(best);
      return state;
    }
    core = withColumns(gain, n, core, violations.rows, violations.columns);
    first = last * EPSILON_DIVISOR ** 2;
  }
  const zeros = new Float64Array(n);
  keepBetter(greedyAssignment(matrix, zeros, rowCandidates(matrix, zeros, Math.min(sizes.perRow, n))));
  state.columnOfRow.set(best);
  return state;
}
