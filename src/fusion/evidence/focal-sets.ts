import { InputError } from '../../errors.js';

/** What a source may speak of: at most 64 alternatives, of which one is true. Element e is bit e of a set's mask. */
export interface Frame {
  /** In ascending order of their code units, so that a frame does not depend on the order of its input. */
  readonly elements: readonly string[];
}

/** Most elements of a frame: two words of 32 bits. */
export const MOST_ELEMENTS = 64;

/** A subset of a frame: elements 0 to 31 in `low`, 32 to 63 in `high`, as signed words. */
export interface SetMask {
  readonly low: number;
  readonly high: number;
}

/** Character that joins the names of a set's elements. */
export const SEPARATOR = '|';

/** @throws InputError for more than 64 elements, none, an empty name, or a name that holds the separator */
export function createFrame(names: Iterable<string>): Frame {
  const elements = [...new Set(names)].sort();
  if (elements.length === 0) throw new InputError('the frame has no element');
  if (elements.length > MOST_ELEMENTS) {
    throw new InputError(`${elements.length} elements; a frame holds at most ${MOST_ELEMENTS}`);
  }
  const unusable = elements.find((name) => name === '' || name.includes(SEPARATOR));
  if (unusable !== undefined) throw new InputError(`"${unusable}" cannot name an element`);
  return { elements };
}

/** Number of elements of a set. */
export function setSize(low: number, high: number): number {
  return bitCount(low) + bitCount(high);
}

/** Number of ones in a word of 32 bits. */
export function bitCount(word: number): number {
  let x = word - ((word >>> 1) & 0x55555555);
  x = (x & 0x33333333) + ((x >>> 2) & 0x33333333);
  return Math.imul((x + (x >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** The set of the first `count` elements. */
export function firstElements(count: number): SetMask {
  const word = (bits: number): number => (bits <= 0 ? 0 : bits >= 32 ? -1 : (1 << bits) - 1);
  return { low: word(count), high: word(count - 32) };
}

/** All elements of a frame. */
export const wholeFrame = (frame: Frame): SetMask => firstElements(frame.elements.length);

/** The set of one element. */
export const singleton = (element: number): SetMask =>
  element < 32 ? { low: 1 << element, high: 0 } : { low: 0, high: 1 << (element - 32) };

/** Whether element `e` is in a set. */
export const contains = (low: number, high: number, e: number): boolean =>
  ((e < 32 ? low >>> e : high >>> (e - 32)) & 1) === 1;

/** Names of a set's elements in the order of the frame, joined by `|`; the empty set is the empty string. */
export function setName(elements: readonly string[], low: number, high: number): string {
  return elements.filter((_, e) => contains(low, high, e)).join(SEPARATOR);
}

/** Elements by name, for `parseSet`. */
export const elementIndex = (elements: readonly string[]): ReadonlyMap<string, number> =>
  new Map(elements.map((name, e) => [name, e]));

/** Names within a written set; blanks around them do not count. */
export const namesOfSet = (text: string): string[] =>
  text.trim() === '' ? [] : text.split(SEPARATOR).map((name) => name.trim());

/** @throws InputError naming `where` for a name that is not in the frame or stands twice */
export function parseSet(text: string, index: ReadonlyMap<string, number>, where: string): SetMask {
  let [low, high] = [0, 0];
  for (const name of namesOfSet(text)) {
    const e = index.get(name);
    if (e === undefined) throw new InputError(`${where}: "${name}" is no element of the frame`);
    if (contains(low, high, e)) throw new InputError(`${where}: "${name}" stands twice in ${text}`);
    if (e < 32) low |= 1 << e;
    else high |= 1 << (e - 32);
  }
  return { low, high };
}

/** Places of sets in order of their first appearance: an open-addressing hash of two words. */
export interface SetIndex {
  readonly count: number;
  /** Words of the sets; the first `count` entries. */
  readonly low: Int32Array;
  readonly high: Int32Array;
  /** Place of a set, -1 where it is not there. */
  find(low: number, high: number): number;
  /** Place of a set, which is added where it is new. */
  place(low: number, high: number): number;
}

const hashOf = (low: number, high: number): number => {
  let h = Math.imul(low ^ (high >>> 15), 0x9e3779b1) ^ Math.imul(high, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  return h ^ (h >>> 13);
};

export function createSetIndex(): SetIndex {
  let low = new Int32Array(32);
  let high = new Int32Array(32);
  let slots = new Int32Array(64).fill(-1);
  let count = 0;
  const slotOf = (l: number, h: number): number => {
    const mask = slots.length - 1;
    let slot = hashOf(l, h) & mask;
    while (slots[slot] >= 0 && (low[slots[slot]] !== l || high[slots[slot]] !== h)) slot = (slot + 1) & mask;
    return slot;
  };
  const grow = (): void => {
    const larger = (words: Int32Array): Int32Array<ArrayBuffer> => {
      const next = new Int32Array(2 * words.length);
      next.set(words);
      return next;
    };
    [low, high] = [larger(low), larger(high)];
    slots = new Int32Array(2 * slots.length).fill(-1);
    for (let i = 0; i < count; i++) slots[slotOf(low[i], high[i])] = i;
  };
  return {
    get count() {
      return count;
    },
    get low() {
      return low;
    },
    get high() {
      return high;
    },
    find: (l, h) => slots[slotOf(l | 0, h | 0)],
    place(l, h) {
      const slot = slotOf(l | 0, h | 0);
      if (slots[slot] >= 0) return slots[slot];
      const place = count;
      low[place] = l;
      high[place] = h;
      slots[slot] = place;
      count++;
      if (count === low.length) grow();
      return place;
    },
  };
}
