/** One record of an input. `index` counts over all inputs from 0; `line` is 1-based where the format has lines. */
export interface Row {
  readonly record: Record<string, unknown>;
  readonly source: string;
  readonly index: number;
  readonly line?: number;
  /** Set where the record is a whole plain text, which its path names. */
  readonly wholeFile?: boolean;
}

/** Shard `index` of `count`: the rows index, index + count, index + 2 count, ... */
export interface Shard {
  readonly index: number;
  readonly count: number;
}

/** Counts rows over all inputs and says which are wanted, so that a reader need not decode the others. */
export interface RowSelection {
  /** Index of the row that `next` spoke of last; -1 at the start. */
  readonly index: number;
  /** Goes on to the next row: `take` it, `skip` it, or `stop` before it because the limit is reached. */
  next(): 'take' | 'skip' | 'stop';
  /** True when one of the next `count` rows would be taken. */
  wantsAny(count: number): boolean;
  /** Goes past `count` rows that were not wanted. */
  pass(count: number): void;
  /** True when the limit is reached: no later row can be taken. */
  readonly exhausted: boolean;
}

/**
 * @param limit only the rows 0..limit-1 of the unsharded input are considered
 * @param shard takes the rows congruent to `shard.index` modulo `shard.count`
 */
export function createRowSelection(
  limit = Number.POSITIVE_INFINITY,
  shard: Shard = { index: 0, count: 1 },
): RowSelection {
  let index = -1;
  return {
    get index() {
      return index;
    },
    next() {
      if (index + 1 >= limit) return 'stop';
      index++;
      return index % shard.count === shard.index ? 'take' : 'skip';
    },
    wantsAny(count) {
      const first = index + 1;
      const ahead = (((shard.index - first) % shard.count) + shard.count) % shard.count;
      return ahead < count && first + ahead < limit;
    },
    pass(count) {
      index += count;
    },
    get exhausted() {
      return index + 1 >= limit;
    },
  };
}

/** `file:line`, or `file, row N` (1-based) where the format has no lines: how messages name a row. */
export function placeOf(row: { source: string; index: number; line?: number }): string {
  return row.line === undefined ? `${row.source}, row ${row.index + 1}` : `${row.source}:${row.line}`;
}
