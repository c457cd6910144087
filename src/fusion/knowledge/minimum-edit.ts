import { editDistance, editPattern } from '../../linalg/edit-distance.js';
import { codePoints } from './levenshtein.js';

/** The nearest texts of queries. */
export interface NearestTexts {
  /** [queries] the first text, in the order of the list, at the least distance; -1 where there is no text at all. */
  readonly nearest: Int32Array;
  /** [queries] that distance. */
  readonly distances: Int32Array;
}

/** Texts prepared for many queries: by length in code points, with what bounds distances from below. */
export interface EditIndex {
  /** Code points that occur, numbered by how often they do. */
  readonly alphabet: ReadonlyMap<number, number>;
  /** Texts of length l lie at `starts[l]` .. `starts[l + 1]` of the arrays below. */
  readonly starts: Int32Array;
  /** Place of each in the list that was given; ascending within a length. */
  readonly order: Int32Array;
  /** Two words a text: which classes of letters occur, and which occur twice. */
  readonly signatures: Int32Array;
  /** Letters (numbers of the alphabet), one text after the other. */
  readonly letters: Int32Array;
  readonly offsets: Int32Array;
  /** Place of a text in the list by its letters, the first where it stands twice: for bounds from above. */
  readonly places: ReadonlyMap<string, number>;
}

/** Letters beyond a machine word go by the slower distance in blocks. */
const WORD = 32;

/**
 * A bit for each class of letters that occurs, and one for each that occurs twice: the letters that A has beyond B, counted
 * up to two, each cost an edit, so two counts of bits bound the distance from below. The commonest 32 have classes of
 * their own.
 */
function signature(letters: Int32Array): [number, number] {
  let once = 0;
  let twice = 0;
  for (const letter of letters) {
    if (letter < 0) continue;
    const bit = 1 << (letter & 31);
    twice |= once & bit;
    once |= bit;
  }
  return [once, twice];
}

function alphabetOf(texts: readonly Int32Array[]): Map<number, number> {
  const counts = new Map<number, number>();
  for (const points of texts) for (const point of points) counts.set(point, (counts.get(point) ?? 0) + 1);
  const sorted = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  return new Map(sorted.map(([point], letter) => [point, letter]));
}

/** Prepares texts; empty ones are ids without a token and are left out. */
export function editIndex(texts: readonly string[]): EditIndex {
  const all = texts.map(codePoints);
  const alphabet = alphabetOf(all);
  const longest = all.reduce((most, points) => Math.max(most, points.length), 0);
  const starts = new Int32Array(longest + 2);
  for (const points of all) if (points.length > 0) starts[points.length + 1]++;
  for (let length = 0; length <= longest; length++) starts[length + 1] += starts[length];
  const filled = starts.slice();
  const order = new Int32Array(starts[longest + 1]);
  const places = new Map<string, number>();
  all.forEach((points, id) => {
    if (points.length === 0) return;
    order[filled[points.length]++] = id;
    if (!places.has(texts[id])) places.set(texts[id], id);
  });
  const signatures = new Int32Array(order.length * 2);
  const offsets = new Int32Array(order.length + 1);
  order.forEach((id, at) => {
    offsets[at + 1] = offsets[at] + all[id].length;
  });
  const letters = new Int32Array(offsets[order.length]);
  order.forEach((id, at) => {
    const own = all[id].map((point) => alphabet.get(point) ?? -1);
    letters.set(own, offsets[at]);
    signatures.set(signature(own), at * 2);
  });
  return { alphabet, starts, order, signatures, letters, offsets, places };
}

/** Number of bits set. */
function bits(word: number): number {
  let rest = word - ((word >>> 1) & 0x55555555);
  rest = (rest & 0x33333333) + ((rest >>> 2) & 0x33333333);
  return Math.imul((rest + (rest >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** A length that some text has, from above: to cut the longest piece of the query out of it costs the rest. */
function boundFromPieces(index: EditIndex, query: string, points: Int32Array): number {
  if (points.length > WORD) return Infinity;
  const starts = [0];
  for (const character of query) starts.push(starts[starts.length - 1] + character.length);
  for (let length = points.length; length > 0; length--) {
    for (let at = 0; at + length <= points.length; at++) {
      if (index.places.has(query.slice(starts[at], starts[at + length]))) return points.length - length;
    }
  }
  return Infinity;
}

/** Distance of a query to a text of the index, or something greater than `limit`. */
type Distance = (begin: number, end: number, limit: number) => number;

/** Distances of a query of at most {@link WORD} letters; `masks` is scratch of the alphabet's size, all zero. */
function wordDistance(query: Int32Array, letters: Int32Array, masks: Int32Array): Distance {
  query.forEach((letter, i) => {
    if (letter >= 0) masks[letter] |= 1 << i;
  });
  const top = query.length - 1;
  return (begin, end, limit) => {
    let up = -1;
    let down = 0;
    let score = query.length;
    for (let at = begin; at < end; at++) {
      const equal = masks[letters[at]];
      const vertical = equal | down;
      const horizontal = (((equal & up) + up) ^ up) | equal;
      let risen = down | ~(horizontal | up);
      let fallen = up & horizontal;
      score += ((risen >>> top) & 1) - ((fallen >>> top) & 1);
      // Every letter that is left can lower the distance by one.
      if (score - (end - at - 1) > limit) return limit + 1;
      risen = (risen << 1) | 1;
      fallen <<= 1;
      up = fallen | ~(vertical | risen);
      down = risen & vertical;
    }
    return score;
  };
}

function blockDistance(query: Int32Array, letters: Int32Array): Distance {
  const pattern = editPattern(query);
  const up = new Int32Array(pattern.blocks);
  const down = new Int32Array(pattern.blocks);
  return (begin, end) => editDistance(pattern, letters.subarray(begin, end), up, down);
}

/** The searches of one index share their scratch. */
interface Searcher {
  readonly index: EditIndex;
  readonly masks: Int32Array;
}

const searcher = (index: EditIndex): Searcher => ({ index, masks: new Int32Array(index.alphabet.size) });

/** Ids at the least distance (the first one alone, unless `all`), and that distance; no ids where there is no text. */
function search({ index, masks }: Searcher, query: string, all: boolean): { ids: number[]; distance: number } {
  const points = codePoints(query);
  const letters = points.map((point) => index.alphabet.get(point) ?? -1);
  const { starts, order, signatures, offsets } = index;
  const [once, twice] = signature(letters);
  const foreign = letters.reduce((count, letter) => count + (letter < 0 ? 1 : 0), 0);
  const length = letters.length;
  const distanceTo =
    length > 0 && length <= WORD ? wordDistance(letters, index.letters, masks) : blockDistance(letters, index.letters);
  let least = boundFromPieces(index, query, points);
  let first = Infinity;
  let ids: number[] = [];
  const visit = (own: number): void => {
    for (let at = starts[own]; at < starts[own + 1]; at++) {
      const ownOnce = signatures[2 * at];
      const ownTwice = signatures[2 * at + 1];
      const missing = foreign + bits(once & ~ownOnce) + bits(twice & ~ownTwice);
      const added = bits(ownOnce & ~once) + bits(ownTwice & ~twice);
      const bound = Math.max(missing, added);
      const id = order[at];
      if (bound > least || (bound === least && !all && id > first)) continue;
      const distance = distanceTo(offsets[at], offsets[at + 1], least);
      if (distance > least) continue;
      if (distance < least) {
        least = distance;
        ids = [];
        first = Infinity;
      }
      if (!all && id > first) continue;
      if (!all) ids.length = 0;
      ids.push(id);
      first = Math.min(first, id);
    }
  };
  // Lengths by their difference to the query's, which bounds the distance.
  const longest = starts.length - 2;
  const most = Math.max(length, longest);
  for (let difference = 0; difference <= most && difference <= least; difference++) {
    if (length - difference >= 1 && length - difference <= longest) visit(length - difference);
    if (difference > 0 && length + difference <= longest) visit(length + difference);
  }
  for (const letter of letters) if (letter >= 0) masks[letter] = 0;
  return { ids: ids.sort((a, b) => a - b), distance: least };
}

/**
 * The text of least Levenshtein distance to each query, the first of the list among equals: the result of comparing all
 * with all.
 *
 * The longest piece of a query that is a text bounds the distance from above. Lengths are visited by their difference to
 * the query's, which bounds it from below; then two counts of bits bound it; what is left is computed by bit vectors (Myers
 * 1999) until the bound is passed.
 */
export function nearestTexts(index: EditIndex, queries: readonly string[]): NearestTexts {
  const nearest = new Int32Array(queries.length).fill(-1);
  const distances = new Int32Array(queries.length).fill(-1);
  const shared = searcher(index);
  queries.forEach((query, q) => {
    const { ids, distance } = search(shared, query, false);
    if (ids.length === 0) return;
    nearest[q] = ids[0];
    distances[q] = distance;
  });
  return { nearest, distances };
}

/** Finds all texts at the least distance to a query, in the order of the list. */
export function candidateSearch(index: EditIndex): (query: string) => number[] {
  const shared = searcher(index);
  return (query) => search(shared, query, true).ids;
}
