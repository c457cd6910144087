import { InputError } from '../errors.js';
import type { Random } from '../random.js';

/** How rows are exchanged under the null hypothesis. */
export type Exchange =
  | { readonly kind: 'rows' }
  /** Only among rows with the same code. */
  | { readonly kind: 'strata'; readonly codes: Int32Array; readonly size: number }
  /** Each segment turned by a random number of rows: serial dependence within stays. */
  | { readonly kind: 'shift'; readonly segments: Segments }
  /** Runs of `length` rows change places within each segment. */
  | { readonly kind: 'block'; readonly segments: Segments; readonly length: number };

/** Rows of each segment in their order, one after another: segment s is rows[starts[s]..starts[s+1]). */
export interface Segments {
  readonly rows: Int32Array;
  readonly starts: Int32Array;
}

/** Segments from the code of the group of each row; one segment without. */
export function segmentsOf(count: number, groups?: { readonly codes: Int32Array; readonly size: number }): Segments {
  if (groups === undefined) {
    return { rows: Int32Array.from({ length: count }, (_, i) => i), starts: Int32Array.of(0, count) };
  }
  const starts = new Int32Array(groups.size + 1);
  for (let i = 0; i < count; i++) starts[groups.codes[i] + 1]++;
  for (let s = 0; s < groups.size; s++) starts[s + 1] += starts[s];
  const next = starts.slice();
  const rows = new Int32Array(count);
  for (let i = 0; i < count; i++) rows[next[groups.codes[i]]++] = i;
  return { rows, starts };
}

/** Strata of one row, whose row cannot be exchanged. */
export function singleStrata(codes: Int32Array, size: number): number {
  const counts = new Int32Array(size);
  for (let i = 0; i < codes.length; i++) counts[codes[i]]++;
  return counts.reduce((sum, count) => sum + (count === 1 ? 1 : 0), 0);
}

function shuffle(values: Int32Array, random: Random): void {
  for (let i = values.length - 1; i > 0; i--) {
    const j = random.integer(i + 1);
    const held = values[i];
    values[i] = values[j];
    values[j] = held;
  }
}

/** One exchange of `count` rows: `order[i]` is the row whose value is placed at row i. */
export function drawOrder(exchange: Exchange, count: number, random: Random): Int32Array {
  if (exchange.kind === 'rows') return random.permutation(count);
  const order = new Int32Array(count);
  const { rows, starts } = exchange.kind === 'strata' ? segmentsOf(count, exchange) : exchange.segments;
  for (let s = 0; s + 1 < starts.length; s++) {
    const members = rows.subarray(starts[s], starts[s + 1]);
    const size = members.length;
    if (exchange.kind === 'strata') {
      const mixed = members.slice();
      shuffle(mixed, random);
      for (let i = 0; i < size; i++) order[members[i]] = mixed[i];
    } else if (exchange.kind === 'shift') {
      const turn = size > 1 ? 1 + random.integer(size - 1) : 0;
      for (let i = 0; i < size; i++) order[members[i]] = members[(i + turn) % size];
    } else {
      const { length } = exchange;
      const blocks = Int32Array.from({ length: Math.ceil(size / length) }, (_, b) => b);
      shuffle(blocks, random);
      let at = 0;
      for (const block of blocks) {
        for (let i = block * length; i < Math.min(size, (block + 1) * length); i++) order[members[at++]] = members[i];
      }
    }
  }
  return order;
}

/** Rows of one resample of `count` rows in runs of `length` that wrap round within their segment (circular blocks). */
export function drawBlocks(segments: Segments, length: number, count: number, random: Random): Int32Array {
  const { rows, starts } = segments;
  const drawn = new Int32Array(count);
  let at = 0;
  for (let s = 0; s + 1 < starts.length; s++) {
    const size = starts[s + 1] - starts[s];
    for (let done = 0; done < size; ) {
      const from = random.integer(size);
      for (let i = 0; i < length && done < size; i++, done++) drawn[at++] = rows[starts[s] + ((from + i) % size)];
    }
  }
  return drawn;
}

/** Throws InputError when no segment has two blocks. */
export function checkBlock(segments: Segments, length: number): void {
  let longest = 0;
  for (let s = 0; s + 1 < segments.starts.length; s++) {
    longest = Math.max(longest, segments.starts[s + 1] - segments.starts[s]);
  }
  if (2 * length <= longest) return;
  throw new InputError(
    `--block ${length}: the longest segment has ${longest} rows; blocks of at most ${Math.floor(longest / 2)} can change places`,
  );
}
