import { InputError } from '../../../errors.js';
import { createRandom } from '../../../random.js';
import { createDataOrder, type DataOrder } from '../../../training/data-order.js';
import { batchOfWindows, type TokenWindows } from '../../../training/language/token-data.js';
import type { BatchSource, TokenBatch } from '../../../training/types.js';

/** A batch that knows the group of every window; windows of one group lie side by side, groups ascending. */
export interface GroupBatch extends TokenBatch {
  /** [batch]. */
  readonly groups: Int32Array;
}

/** Batches drawn by proportions that change while the run lasts. */
export interface GroupSource extends BatchSource<GroupBatch> {
  /** Makes batch `index`; batches come in ascending order, and the last ones of a step may be asked for again. */
  batch(index: number): GroupBatch;
  /** Draws batch `index` and throws it away, so that a resumed run goes on where it was. */
  skip(index: number): void;
  /** Windows drawn so far, [k]. */
  readonly drawn: Float64Array;
}

export interface GroupSourceSettings {
  readonly windows: readonly TokenWindows[];
  readonly batchSize: number;
  /** Micro-batches of a step, which may be asked for again until the next step. */
  readonly accumulate: number;
  readonly seed: number;
  /** Proportions [k] of the batch that is drawn next. */
  proportions(): Float64Array;
}

/** Stream of the order within a group, and of the draws between groups. */
const ORDER = 0x6f726465;
const DRAW = 0x64726177;

/** All groups one after the other, with the first window of each. @throws InputError for windows of different lengths */
export function joinGroups(groups: readonly TokenWindows[]): {
  readonly windows: TokenWindows;
  readonly first: Int32Array;
} {
  const [{ length }] = groups;
  const first = new Int32Array(groups.length);
  let count = 0;
  groups.forEach((group, j) => {
    if (group.length !== length) throw new InputError(`windows of ${length} and of ${group.length} positions`);
    first[j] = count;
    count += group.count;
  });
  const tokens = new Int32Array(count * length);
  const labels = new Int32Array(count * length);
  const lengths = new Int32Array(count);
  groups.forEach((group, j) => {
    tokens.set(group.tokens, first[j] * length);
    labels.set(group.labels, first[j] * length);
    lengths.set(group.lengths, first[j]);
  });
  const sum = (of: (group: TokenWindows) => number): number => groups.reduce((total, group) => total + of(group), 0);
  const windows = {
    count,
    length,
    tokens,
    labels,
    lengths,
    validLabels: sum(({ validLabels }) => validLabels),
    cutTexts: sum(({ cutTexts }) => cutTexts),
  };
  return { windows, first };
}

/**
 * How many of `size` windows come from each group: systematic resampling with one uniform number, so that group j gets the whole
 * part of size p_j or one more, size p_j on average.
 */
export function drawCounts(p: Float64Array, size: number, uniform: number): Int32Array {
  const counts = new Int32Array(p.length);
  let j = 0;
  let reached = p[0] * size;
  for (let b = 0; b < size; b++) {
    while (b + uniform >= reached && j < p.length - 1) reached += p[++j] * size;
    counts[j]++;
  }
  return counts;
}

/** Draws batches from groups. Within a group windows come in a new permutation in every pass over it. */
export function createGroupSource(settings: GroupSourceSettings): GroupSource {
  const { batchSize, accumulate, seed } = settings;
  const { windows, first } = joinGroups(settings.windows);
  const random = createRandom(seed);
  const orders = settings.windows.map(({ count }, j): DataOrder => {
    const own = Number(random.fork(ORDER).fork(j).next64() & 0x1fffffffffffffn);
    return createDataOrder({ count, batchSize: 1, seed: own });
  });
  const drawn = new Float64Array(orders.length);
  const recent = new Map<number, GroupBatch>();
  const draw = (index: number): { readonly chosen: Int32Array; readonly groups: Int32Array } => {
    const counts = drawCounts(settings.proportions(), batchSize, random.fork(DRAW).fork(index).uniform());
    const chosen = new Int32Array(batchSize);
    const groups = new Int32Array(batchSize);
    let at = 0;
    counts.forEach((count, j) => {
      for (let n = 0; n < count; n++) {
        chosen[at] = first[j] + orders[j].items(drawn[j]++)[0];
        groups[at++] = j;
      }
    });
    return { chosen, groups };
  };
  return {
    perEpoch: Math.ceil(windows.count / batchSize),
    drawn,
    batch(index) {
      const known = recent.get(index);
      if (known) return known;
      const { chosen, groups } = draw(index);
      const batch = { ...batchOfWindows(windows, chosen), groups };
      recent.delete(index - accumulate);
      recent.set(index, batch);
      return batch;
    },
    skip(index) {
      draw(index);
    },
  };
}

/** The windows `from..to-1` of a batch as a batch, rows as they lie. */
export function partOfBatch(batch: GroupBatch, from: number, to: number): GroupBatch {
  const { length } = batch;
  return {
    ...batch,
    batch: to - from,
    tokens: batch.tokens.subarray(from * length, to * length),
    labels: batch.labels.subarray(from * length, to * length),
    windows: batch.windows.subarray(from, to),
    groups: batch.groups.subarray(from, to),
  };
}

/** The windows of every group that a batch holds: [group, from, to). */
export function groupParts({ groups }: GroupBatch): readonly (readonly [number, number, number])[] {
  const parts: [number, number, number][] = [];
  groups.forEach((group, w) => {
    const last = parts.at(-1);
    if (last?.[0] === group) last[2] = w + 1;
    else parts.push([group, w, w + 1]);
  });
  return parts;
}
