/** Gains [n, n], row-major. */
export type Gains = Float32Array | Float64Array;

/**
 * A partial assignment with duals. Of assigned rows, `rowDuals[i] + columnDuals[j] = gain[i, j]` at their column j and
 * `>=` at every other column that was looked at; -1 stands for none.
 */
export interface PartialAssignment {
  readonly columnOfRow: Int32Array;
  readonly rowOfColumn: Int32Array;
  readonly rowDuals: Float64Array;
  readonly columnDuals: Float64Array;
}

/** Some entries of a gain matrix: those of row i at `starts[i]` .. `starts[i + 1]`, columns ascending. */
export interface Candidates {
  readonly starts: Int32Array;
  readonly columns: Int32Array;
  readonly gains: Float64Array;
}

/**
 * Least and largest gain of every row and column, [n, 2] each.
 * @returns row * n + column of the first gain that is not finite, or -1
 */
export function gainRanges(gain: Gains, n: number, rows: Float64Array, columns: Float64Array): number {
  for (let i = 0; i < n; i++) {
    columns[2 * i] = rows[2 * i] = Number.POSITIVE_INFINITY;
    columns[2 * i + 1] = rows[2 * i + 1] = Number.NEGATIVE_INFINITY;
  }
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      const value = gain[i * n + j];
      if (!Number.isFinite(value)) return i * n + j;
      rows[2 * i] = Math.min(rows[2 * i], value);
      rows[2 * i + 1] = Math.max(rows[2 * i + 1], value);
      columns[2 * j] = Math.min(columns[2 * j], value);
      columns[2 * j + 1] = Math.max(columns[2 * j + 1], value);
    }
  }
  return -1;
}

/** The `k` largest seen so far: values descending, equal ones by ascending index. */
function keepLargest(values: Float64Array, indices: Int32Array, value: number, index: number): void {
  const k = values.length;
  if (!(value > values[k - 1])) return;
  let at = k - 1;
  for (; at > 0 && values[at - 1] < value; at--) {
    values[at] = values[at - 1];
    indices[at] = indices[at - 1];
  }
  values[at] = value;
  indices[at] = index;
}

/**
 * Of each of the rows `rows` (all for null) the `k` columns with the largest gain[i, j] - columnDuals[j], and those values,
 * [count, k], values descending, equal ones by ascending column; with `spread` those from column i on come first. A column whose dual is +Infinity is no candidate, nor is one
 * whose value does not exceed `above[i]`; where candidates are fewer, columns are -1 and values -Infinity.
 */
export function rowCandidates(
  gain: Gains,
  n: number,
  rows: Int32Array | null,
  columnDuals: Float64Array,
  above: Float64Array | null,
  spread: number,
  k: number,
  columns: Int32Array,
  values: Float64Array,
): void {
  const count = rows?.length ?? n;
  columns.subarray(0, count * k).fill(-1);
  for (let r = 0; r < count; r++) {
    const i = rows?.[r] ?? r;
    const ownColumns = columns.subarray(r * k, (r + 1) * k);
    const ownValues = values.subarray(r * k, (r + 1) * k).fill(above?.[i] ?? Number.NEGATIVE_INFINITY);
    const first = spread === 1 ? i : 0;
    for (let j = first; j < n; j++) keepLargest(ownValues, ownColumns, gain[i * n + j] - columnDuals[j], j);
    for (let j = 0; j < first; j++) keepLargest(ownValues, ownColumns, gain[i * n + j] - columnDuals[j], j);
    for (let c = 0; c < k; c++) if (ownColumns[c] < 0) ownValues[c] = Number.NEGATIVE_INFINITY;
  }
}

/** Of each column the `k` rows with the largest gain[i, j] - rowDuals[i], [n, k], ordered as in {@link rowCandidates}. */
export function columnCandidates(gain: Gains, n: number, rowDuals: Float64Array, k: number, rows: Int32Array): void {
  const values = new Float64Array(n * k).fill(Number.NEGATIVE_INFINITY);
  rows.subarray(0, n * k).fill(-1);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      const at = j * k;
      const value = gain[i * n + j] - rowDuals[i];
      if (value > values[at + k - 1]) {
        keepLargest(values.subarray(at, at + k), rows.subarray(at, at + k), value, i);
      }
    }
  }
}

/** Turns the path that ends in the free column `sink` into assignments; `from[j]` is the row before column j. */
function flipPath(state: PartialAssignment, from: Int32Array, source: number, sink: number): void {
  for (let column = sink; ; ) {
    const row = from[column];
    const next = state.columnOfRow[row];
    state.columnOfRow[row] = column;
    state.rowOfColumn[column] = row;
    if (row === source) return;
    column = next;
  }
}

/**
 * Shortest augmenting paths over the whole matrix (Jonker & Volgenant 1987, Computing 38): each of `free` rows is assigned in
 * turn. Reduced costs rowDuals[i] + columnDuals[j] - gain[i, j] of assigned rows must not be negative, and stay so.
 */
export function augmentDense(gain: Gains, n: number, free: Int32Array, state: PartialAssignment): void {
  const { rowOfColumn, rowDuals, columnDuals } = state;
  const distance = new Float64Array(n);
  const from = new Int32Array(n);
  // Duals of the columns that were not scanned; +Infinity keeps the others out of every comparison.
  const open = new Float64Array(n);
  const scanned = new Int32Array(n);
  const reached = new Float64Array(n);
  for (const source of free) {
    distance.fill(Number.POSITIVE_INFINITY);
    open.set(columnDuals);
    let top = Number.NEGATIVE_INFINITY;
    for (let j = 0; j < n; j++) top = Math.max(top, gain[source * n + j] - columnDuals[j]);
    let row = source;
    let base = top;
    let count = 0;
    let sink = -1;
    for (;;) {
      let least = Number.POSITIVE_INFINITY;
      for (let j = 0; j < n; j++) {
        const through = base - (gain[row * n + j] - open[j]);
        if (through < distance[j]) {
          distance[j] = through;
          from[j] = row;
        }
        least = Math.min(least, distance[j]);
      }
      let nearest = -1;
      for (let j = 0; j < n && sink < 0; j++) {
        if (distance[j] !== least) continue;
        if (rowOfColumn[j] < 0) sink = j;
        else if (nearest < 0) nearest = j;
      }
      if (sink >= 0) {
        for (let s = 0; s < count; s++) columnDuals[scanned[s]] += Math.max(0, least - reached[s]);
        break;
      }
      scanned[count] = nearest;
      reached[count] = least;
      count++;
      row = rowOfColumn[nearest];
      base = least + (gain[row * n + nearest] - open[nearest]);
      open[nearest] = Number.POSITIVE_INFINITY;
      distance[nearest] = Number.POSITIVE_INFINITY;
    }
    flipPath(state, from, source, sink);
    for (let s = 0; s < count; s++) {
      const i = rowOfColumn[scanned[s]];
      rowDuals[i] = gain[i * n + scanned[s]] - columnDuals[scanned[s]];
    }
    const last = rowOfColumn[sink];
    rowDuals[last] = gain[last * n + sink] - columnDuals[sink];
  }
}

/** The two best candidates of a row at these duals, the first of equal ones, and the places of their entries. */
interface TwoBest {
  best: number;
  second: number;
  edge: number;
  other: number;
}

function twoBest(core: Candidates, row: number, columnDuals: Float64Array, found: TwoBest): void {
  let best = Number.NEGATIVE_INFINITY;
  let second = Number.NEGATIVE_INFINITY;
  let edge = -1;
  let other = -1;
  for (let e = core.starts[row]; e < core.starts[row + 1]; e++) {
    const value = core.gains[e] - columnDuals[core.columns[e]];
    if (value > best) {
      second = best;
      other = edge;
      best = value;
      edge = e;
    } else if (value > second) {
      second = value;
      other = e;
    }
  }
  found.best = best;
  found.second = second;
  found.edge = edge;
  found.other = other;
}

/**
 * Augmenting row reduction (Jonker & Volgenant 1987) over the candidates: a free row takes its best column and raises the
 * column's dual until the second best is as good; who had the column becomes free. Ends after `steps` rows at the latest,
 * since ties can go round in circles.
 * @returns the rows that are still free, ascending
 */
function reduceRows(core: Candidates, free: Int32Array, state: PartialAssignment, steps: number): Int32Array {
  const { columns, gains } = core;
  const { columnOfRow, rowOfColumn, rowDuals, columnDuals } = state;
  const two = { best: 0, second: 0, edge: 0, other: 0 };
  let now = Array.from(free).reverse();
  let taken = 0;
  for (let pass = 0; pass < 2; pass++) {
    const later: number[] = [];
    while (now.length > 0 && taken < steps) {
      const row = now[now.length - 1];
      now.pop();
      taken++;
      twoBest(core, row, columnDuals, two);
      const tie = !(two.best > two.second);
      let edge = two.edge;
      if (tie && rowOfColumn[columns[edge]] >= 0) edge = two.other;
      const column = columns[edge];
      const displaced = rowOfColumn[column];
      if (!tie) columnDuals[column] += two.best - two.second;
      rowDuals[row] = gains[edge] - columnDuals[column];
      columnOfRow[row] = column;
      rowOfColumn[column] = row;
      if (displaced < 0) continue;
      columnOfRow[displaced] = -1;
      if (tie) later.push(displaced);
      else now.push(displaced);
    }
    now = [...now, ...later].sort((a, b) => b - a);
  }
  return Int32Array.from(now.reverse());
}

/** A heap of columns, the nearest first, equally near ones by ascending column. */
interface ColumnHeap {
  readonly size: () => number;
  readonly clear: () => void;
  /** The column is new or has come nearer. */
  readonly update: (column: number) => void;
  readonly pop: () => number;
}

function columnHeap(distance: Float64Array): ColumnHeap {
  const columns = new Int32Array(distance.length);
  const places = new Int32Array(distance.length).fill(-1);
  let size = 0;
  const before = (a: number, b: number): boolean => distance[a] < distance[b] || (distance[a] === distance[b] && a < b);
  const put = (column: number, place: number): void => {
    columns[place] = column;
    places[column] = place;
  };
  const rise = (column: number, from: number): void => {
    let place = from;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (!before(column, columns[parent])) break;
      put(columns[parent], place);
      place = parent;
    }
    put(column, place);
  };
  const sink = (column: number): void => {
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= size) break;
      if (child + 1 < size && before(columns[child + 1], columns[child])) child++;
      if (!before(columns[child], column)) break;
      put(columns[child], place);
      place = child;
    }
    put(column, place);
  };
  return {
    size: () => size,
    clear: () => {
      for (let i = 0; i < size; i++) places[columns[i]] = -1;
      size = 0;
    },
    update: (column) => rise(column, places[column] >= 0 ? places[column] : size++),
    pop: () => {
      const first = columns[0];
      places[first] = -1;
      size--;
      if (size > 0) sink(columns[size]);
      return first;
    },
  };
}

/**
 * Assigns the rows `free` within the candidates, which hold a perfect matching: row reduction of at most `steps` rows, then
 * shortest augmenting paths with a heap. Reduced costs of candidates must not be negative for assigned rows, and are not
 * afterwards.
 */
export function augmentCandidates(
  core: Candidates,
  free: Int32Array,
  state: PartialAssignment,
  steps: number,
): boolean {
  const { starts, columns, gains } = core;
  const { rowOfColumn, rowDuals, columnDuals } = state;
  const n = rowOfColumn.length;
  const distance = new Float64Array(n).fill(Number.POSITIVE_INFINITY);
  const from = new Int32Array(n);
  const touched = new Int32Array(n);
  const scanned = new Int32Array(n);
  const heap = columnHeap(distance);
  for (const source of reduceRows(core, free, state, steps)) {
    let row = source;
    let base = Number.NEGATIVE_INFINITY;
    for (let e = starts[row]; e < starts[row + 1]; e++) base = Math.max(base, gains[e] - columnDuals[columns[e]]);
    let least = 0;
    let touches = 0;
    let count = 0;
    let sink = -1;
    for (;;) {
      for (let e = starts[row]; e < starts[row + 1]; e++) {
        const j = columns[e];
        // Not nearer than what was scanned: rounding must not open a scanned column again.
        const through = Math.max(least, base - (gains[e] - columnDuals[j]));
        if (!(through < distance[j])) continue;
        if (distance[j] === Number.POSITIVE_INFINITY) touched[touches++] = j;
        distance[j] = through;
        from[j] = row;
        if (through <= least && rowOfColumn[j] < 0) {
          sink = j;
          break;
        }
        heap.update(j);
      }
      if (sink >= 0) break;
      if (heap.size() === 0) return false;
      const nearest = heap.pop();
      least = distance[nearest];
      if (rowOfColumn[nearest] < 0) {
        sink = nearest;
        break;
      }
      scanned[count++] = nearest;
      row = rowOfColumn[nearest];
      base = least + rowDuals[row];
    }
    const length = distance[sink];
    for (let s = 0; s < count; s++) columnDuals[scanned[s]] += Math.max(0, length - distance[scanned[s]]);
    flipPath(state, from, source, sink);
    scanned[count++] = sink;
    for (let s = 0; s < count; s++) {
      const column = scanned[s];
      const owner = rowOfColumn[column];
      for (let e = starts[owner]; e < starts[owner + 1]; e++) {
        if (columns[e] === column) rowDuals[owner] = gains[e] - columnDuals[column];
      }
    }
    for (let t = 0; t < touches; t++) distance[touched[t]] = Number.POSITIVE_INFINITY;
    heap.clear();
  }
  return true;
}

/**
 * Auction (Bertsekas 1988, Annals of Operations Research 14) among the candidates, which hold a perfect matching and at least
 * two entries a row: a free row outbids the others for its best column by what that is better than the second best, and
 * `epsilon`. Starts from no assignment and the duals (prices) of `state`; the result is within n * epsilon of the best.
 * @returns whether it came to its end within so many bids; if not, rows are left without a column
 */
export function auctionCandidates(core: Candidates, state: PartialAssignment, epsilon: number, bids: number): boolean {
  const { columnOfRow, rowOfColumn, rowDuals, columnDuals } = state;
  const n = columnOfRow.length;
  columnOfRow.fill(-1);
  rowOfColumn.fill(-1);
  const two = { best: 0, second: 0, edge: 0, other: 0 };
  // Free rows wait in a ring: at most n at a time.
  const queue = Int32Array.from({ length: n }, (_, i) => i);
  let head = 0;
  let left = bids;
  for (let waiting = n; waiting > 0; waiting--, left--) {
    if (left <= 0) return false;
    const row = queue[head];
    twoBest(core, row, columnDuals, two);
    const column = core.columns[two.edge];
    const displaced = rowOfColumn[column];
    columnDuals[column] += two.best - two.second + epsilon;
    rowDuals[row] = core.gains[two.edge] - columnDuals[column];
    columnOfRow[row] = column;
    rowOfColumn[column] = row;
    if (displaced >= 0) {
      columnOfRow[displaced] = -1;
      queue[(head + waiting) % n] = displaced;
      waiting++;
    }
    head = (head + 1) % n;
  }
  return true;
}
