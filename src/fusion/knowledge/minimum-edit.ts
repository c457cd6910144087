import { editDistance, editPattern } from '../../linalg/edit-distance.js';
import { codePoints } from './levenshtein.js';

/** The nearest texts of a query. */
export interface NearestTexts {
  /** [queries] first text, in the order of the list, at the least distance. */
  readonly nearest: Int32Array;
  /** [queries] that distance. */
  readonly distances: Int32Array;
}

/** Texts prepared for many queries: by length in code points, with what bounds distances from below. */
export interface EditIndex {
  /** Texts of length l lie at `starts[l]` .. `starts[l + 1]` of the other arrays. */
  readonly starts: Int32Array;
  /** Place of each in the list that was given; ascending within a length. */
  readonly order: Int32Array;
  /** Two words a text: which classes of characters occur, and which occur twice. */
  readonly signatures: Int32Array;
  /** Code points, one text after the other. */
  readonly points: Int32Array;
  readonly offsets: Int32Array;
}

/**
 * A bit for each class of characters that occurs, and one for each that occurs twice. Characters that A has beyond B, both
 * counted up to two, each cost an edit: a bound from below by two counts of bits.
 */
function signature(points: Int32Array): [number, number] {
  let once = 0;
  let twice = 0;
  for (const point of points) {
    const bit = 1 << (point & 31);
    twice |= once & bit;
    once |= bit;
  }
  return [once, twice];
}

/** Prepares texts; empty ones are ids without a token and are left out. */
export function editIndex(texts: readonly string[]): EditIndex {
  const all = texts.map(codePoints);
  const longest = all.reduce((most, points) => Math.max(most, points.length), 0);
  const starts = new Int32Array(longest + 2);
  for (const points of all) if (points.length > 0) starts[points.length + 1]++;
  for (let length = 0; length <= longest; length++) starts[length + 1] += starts[length];
  const filled = starts.slice();
  const order = new Int32Array(starts[longest + 1]);
  all.forEach((points, id) => {
    if (points.length > 0) order[filled[points.length]++] = id;
  });
  const signatures = new Int32Array(order.length * 2);
  const offsets = new Int32Array(order.length + 1);
  order.forEach((id, at) => {
    signatures.set(signature(all[id]), at * 2);
    offsets[at + 1] = offsets[at] + all[id].length;
  });
  const points = new Int32Array(offsets[order.length]);
  order.forEach((id, at) => {
    points.set(all[id], offsets[at]);
  });
  return { starts, order, signatures, points, offsets };
}

/** Number of bits set. */
function bits(word: number): number {
  let rest = word - ((word >>> 1) & 0x55555555);
  rest = (rest & 0x33333333) + ((rest >>> 2) & 0x33333333);
  return Math.imul((rest + (rest >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** Visits lengths in the order of their difference to `length`, the shorter first, until `limit()` says that no more can matter. */
function visitLengths(index: EditIndex, length: number, limit: () => number, visit: (length: number) => void): void {
  const longest = index.starts.length - 2;
  const most = Math.max(length, longest);
  for (let difference = 0; difference <= most && difference <= limit(); difference++) {
    if (length - difference >= 1 && length - difference <= longest) visit(length - difference);
    if (difference > 0 && length + difference <= longest) visit(length + difference);
  }
}

/**
 * The text of least Levenshtein distance to each query, the first of the list among equals.
 *
 * Lengths are visited by their difference to the query's, which bounds the distance; then two counts of bits bound it;
 * what is left is computed by bit vectors. The result is that of comparing all with all.
 */
export function nearestTexts(index: EditIndex, queries: readonly string[]): NearestTexts {
  const nearest = new Int32Array(queries.length).fill(-1);
  const distances = new Int32Array(queries.length).fill(-1);
  queries.forEach((query, q) => {
    const found = search(index, codePoints(query));
    if (found === undefined) return;
    nearest[q] = found.ids[0];
    distances[q] = found.distance;
  });
  return { nearest, distances };
}

/** All texts at the least distance to a query, in the order of the list. Empty where there is no text at all. */
export function nearestCandidates(index: EditIndex, query: string): Int32Array {
  const found = search(index, codePoints(query), true);
  return Int32Array.from(found?.ids ?? []).sort();
}

function search(index: EditIndex, query: Int32Array, all = false): { ids: number[]; distance: number } | undefined {
  const pattern = editPattern(query);
  const up = new Int32Array(pattern.blocks);
  const down = new Int32Array(pattern.blocks);
  const [once, twice] = signature(query);
  const { starts, order, signatures, points, offsets } = index;
  let least = Infinity;
  let first = Infinity;
  let ids: number[] = [];
  visitLengths(
    index,
    query.length,
    () => least,
    (length) => {
      for (let at = starts[length]; at < starts[length + 1]; at++) {
        const ownOnce = signatures[2 * at];
        const ownTwice = signatures[2 * at + 1];
        const missing = bits(once & ~ownOnce) + bits(twice & ~ownTwice);
        const added = bits(ownOnce & ~once) + bits(ownTwice & ~twice);
        const bound = Math.max(missing, added);
        const id = order[at];
        if (bound > least || (bound === least && !all && id > first)) continue;
        const distance = editDistance(pattern, points.subarray(offsets[at], offsets[at + 1]), up, down);
        if (distance > least) continue;
        if (distance < least) ids = [];
        else if (!all && id > first) continue;
        least = distance;
        if (all) ids.push(id);
        else ids[0] = id;
        first = id;
      }
    },
  );
  return ids.length === 0 ? undefined : { ids, distance: least };
}
