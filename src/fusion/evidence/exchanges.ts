import { contains, createSetIndex, type SetIndex, setName } from './focal-sets.js';

/** Sizes of substitution that are known: one element for one, or up to two for two. */
export const MOST_SUBSTITUTED = 2;

/** Sets of at most n elements by number: the empty set, then single elements, then pairs, each in ascending order. */
export interface Combinations {
  readonly elements: readonly string[];
  /** Largest size, 1 or 2. */
  readonly most: number;
  readonly count: number;
  readonly low: Int32Array;
  readonly high: Int32Array;
  readonly size: Uint8Array;
}

/** Number of the pair a < b of E elements. */
const pairNumber = (a: number, b: number, elements: number): number =>
  1 + elements + (a * (2 * elements - a - 1)) / 2 + (b - a - 1);

export function combinationsOf(elements: readonly string[], most: number): Combinations {
  const e = elements.length;
  const count = 1 + e + (most > 1 ? (e * (e - 1)) / 2 : 0);
  const [low, high, size] = [new Int32Array(count), new Int32Array(count), new Uint8Array(count)];
  const add = (number: number, element: number): void => {
    if (element < 32) low[number] |= 1 << element;
    else high[number] |= 1 << (element - 32);
    size[number]++;
  };
  for (let a = 0; a < e; a++) {
    add(1 + a, a);
    if (most < 2) continue;
    for (let b = a + 1; b < e; b++) {
      add(pairNumber(a, b, e), a);
      add(pairNumber(a, b, e), b);
    }
  }
  return { elements, most, count, low, high, size };
}

/** Names of a combination's elements, joined; empty for the empty set. */
export const combinationName = ({ elements, low, high }: Combinations, number: number): string =>
  setName(elements, low[number], high[number]);

/** Calls `take` with every set that is left of a set when at most n elements go, and the number of what went. */
export function forEachDeletion(
  { elements, most }: Combinations,
  low: number,
  high: number,
  take: (coreLow: number, coreHigh: number, removed: number) => void,
): void {
  const e = elements.length;
  const members: number[] = [];
  for (let i = 0; i < e; i++) if (contains(low, high, i)) members.push(i);
  const without = (l: number, h: number, i: number): [number, number] =>
    i < 32 ? [l & ~(1 << i), h] : [l, h & ~(1 << (i - 32))];
  take(low, high, 0);
  for (let a = 0; a < members.length && members.length > 1; a++) {
    const [l, h] = without(low, high, members[a]);
    take(l, h, 1 + members[a]);
    if (most < 2 || members.length < 3) continue;
    for (let b = a + 1; b < members.length; b++) {
      const [ll, hh] = without(l, h, members[b]);
      take(ll, hh, pairNumber(members[a], members[b], e));
    }
  }
}

/**
 * Rows by what is left of their sets when at most n elements go (the "core"). Two sets exchange t for v with a common
 * core exactly once: in the bucket of their intersection, where t and v have no common element. So all pairs that differ
 * by at most n elements on each side are found without looking at the others.
 */
export interface CoreIndex {
  readonly cores: SetIndex;
  /** First entry of every core [cores + 1]. */
  readonly starts: Int32Array;
  /** Row and removed combination of every entry, by core, in order of the rows given. */
  readonly rows: Int32Array;
  readonly removed: Int32Array;
}

/** @param order rows of the sets to index */
export function coreIndex(
  combinations: Combinations,
  sets: { readonly low: Int32Array; readonly high: Int32Array },
  order: Int32Array,
): CoreIndex {
  const cores = createSetIndex();
  const found: number[] = [];
  for (const row of order) {
    forEachDeletion(combinations, sets.low[row], sets.high[row], (low, high, removed) => {
      found.push(cores.place(low, high), row, removed);
    });
  }
  const entries = found.length / 3;
  const starts = new Int32Array(cores.count + 1);
  for (let i = 0; i < entries; i++) starts[found[3 * i] + 1]++;
  for (let c = 0; c < cores.count; c++) starts[c + 1] += starts[c];
  const next = starts.slice();
  const rows = new Int32Array(entries);
  const removed = new Int32Array(entries);
  for (let i = 0; i < entries; i++) {
    const place = next[found[3 * i]]++;
    rows[place] = found[3 * i + 1];
    removed[place] = found[3 * i + 2];
  }
  return { cores, starts, rows, removed };
}
