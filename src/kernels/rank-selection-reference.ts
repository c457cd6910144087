/** Values are told apart by 64 bits in four digits of 16, the highest first. */
export const DIGIT_BINS = 65536;
export const DIGITS = 4;

/**
 * A digit of the key of a value, by the two halves of its bits: keys rise as values do. Negative zero has the key of zero;
 * callers replace it before.
 */
export function keyDigit(high: number, low: number, digit: number): number {
  const negative = high < 0;
  const h = negative ? ~high : high ^ 0x80000000;
  if (digit === 0) return h >>> 16;
  if (digit === 1) return h & 0xffff;
  const l = negative ? ~low : low;
  return digit === 2 ? l >>> 16 : l & 0xffff;
}

/** The key's digits before `digits` as one number. */
export function keyPrefix(high: number, low: number, digits: number): number {
  let prefix = 0;
  for (let d = 0; d < digits; d++) prefix = prefix * DIGIT_BINS + keyDigit(high, low, d);
  return prefix;
}

/** Calls `visit` with the halves of the bits of every value that counts. @returns the position of the first NaN, or -1. */
function eachKey(
  values: Float64Array,
  mask: Uint8Array | undefined,
  visit: (high: number, low: number, position: number) => void,
): number {
  const one = new Float64Array(1);
  const halves = new Int32Array(one.buffer);
  for (let i = 0; i < values.length; i++) {
    if (mask !== undefined && mask[i] === 0) continue;
    // Adding zero turns -0 into 0.
    one[0] = values[i] + 0;
    if (Number.isNaN(one[0])) return i;
    visit(halves[1], halves[0], i);
  }
  return -1;
}

export function countDigitsReference(
  values: Float64Array,
  mask: Uint8Array | undefined,
  prefixes: Float64Array,
  digit: number,
  counts: Float64Array,
): number {
  return eachKey(values, mask, (high, low) => {
    const at = digit === 0 ? 0 : prefixes.indexOf(keyPrefix(high, low, digit));
    if (at >= 0) counts[at * DIGIT_BINS + keyDigit(high, low, digit)]++;
  });
}

export function gatherPrefixesReference(
  values: Float64Array,
  mask: Uint8Array | undefined,
  prefixes: Float64Array,
  digits: number,
  into: Float64Array,
  at: number,
): number {
  let next = at;
  const bad = eachKey(values, mask, (high, low, i) => {
    if (digits === 0 || prefixes.includes(keyPrefix(high, low, digits))) into[next++] = values[i] + 0;
  });
  return bad >= 0 ? -1 : next;
}

export function selectRanksReference(values: Float64Array, ranks: Float64Array, found: Float64Array): void {
  const sorted = values.slice().sort();
  for (let r = 0; r < ranks.length; r++) {
    const value = sorted[ranks[r]];
    let first = ranks[r];
    let last = ranks[r];
    // Galloping would pay only where nearly all values are equal.
    while (first > 0 && sorted[first - 1] === value) first--;
    while (last + 1 < sorted.length && sorted[last + 1] === value) last++;
    found.set([value, first, last - first + 1], 3 * r);
  }
}
