import { InputError } from '../errors.js';
import type { Points } from '../kernels/neighbours.js';
import type { Segments } from './row-orders.js';
import { compactCodes, joinSymbols, type Symbols } from './symbols.js';

/** Rows t at which a transfer is measured, each with at least `reach` rows before it in its segment, and how to look back. */
export interface History {
  readonly reach: number;
  /** `[rows, reach]` row-major: the row `1 + lag` before each present row. */
  readonly before: Int32Array;
  readonly present: Int32Array;
  /** The measured rows (their places in `present`) by segment. */
  readonly segments: Segments;
}

/**
 * Present rows and those before them, never over the end of a segment.
 * @param reach the longest look back, max(k, l)
 * @throws InputError when no segment is long enough
 */
export function historyOf(segments: Segments, reach: number, what: string): History {
  const { rows, starts } = segments;
  const present: number[] = [];
  const before: number[] = [];
  const ends = [0];
  let longest = 0;
  for (let s = 0; s + 1 < starts.length; s++) {
    const size = starts[s + 1] - starts[s];
    longest = Math.max(longest, size);
    for (let i = starts[s] + reach; i < starts[s + 1]; i++) {
      present.push(rows[i]);
      for (let lag = 1; lag <= reach; lag++) before.push(rows[i - lag]);
    }
    ends.push(present.length);
  }
  if (longest < reach + 2) {
    throw new InputError(
      `${what}: the longest series has ${longest} rows; a history of ${reach} needs at least ${reach + 2}`,
    );
  }
  const measured = { rows: Int32Array.from({ length: present.length }, (_, i) => i), starts: Int32Array.from(ends) };
  return { reach, present: Int32Array.from(present), before: Int32Array.from(before), segments: measured };
}

const takeCodes = (symbols: Symbols, rows: Int32Array): Symbols =>
  compactCodes(
    Int32Array.from(rows, (row) => symbols.codes[row]),
    symbols.size,
  );

/** The variable at the present rows. */
export function presentSymbols(symbols: Symbols, history: History): Symbols {
  return takeCodes(symbols, history.present);
}

/** The variable's last `length` rows before each present row as one symbol. */
export function pastSymbols(symbols: Symbols, history: History, length: number): Symbols {
  const { reach, before, present } = history;
  const lags = Array.from({ length }, (_, lag) =>
    takeCodes(
      symbols,
      Int32Array.from(present, (_row, i) => before[i * reach + lag]),
    ),
  );
  return joinSymbols(lags);
}

/** The same for points: the variable at the present rows, and its last `length` rows side by side. */
export function presentPoints(points: Points, { present }: History): Points {
  return gather(points, present, 1, 1);
}

export function pastPoints(points: Points, history: History, length: number): Points {
  return gather(points, history.before, history.reach, length);
}

function gather({ data, columns }: Points, rows: Int32Array, stride: number, length: number): Points {
  const count = rows.length / stride;
  const width = columns * length;
  const gathered = new Float64Array(count * width);
  for (let i = 0; i < count; i++) {
    for (let lag = 0; lag < length; lag++) {
      const row = rows[i * stride + lag];
      for (let j = 0; j < columns; j++) gathered[i * width + lag * columns + j] = data[row * columns + j];
    }
  }
  return { data: gathered, rows: count, columns: width };
}
