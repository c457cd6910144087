import type { Floats } from '../training/types.js';

/** More classes than this, and orders are compared on the teacher's likeliest `ORDERED_LIST` alone. */
const MOST_ORDERED = 128;
export const ORDERED_LIST = 64;

/** Classes of a row that Kendall's tau compares. */
export const orderedClasses = (classes: number): number => (classes <= MOST_ORDERED ? classes : ORDERED_LIST);

/** The `k` largest entries of a row by falling value, ties by ascending place. */
export function largestEntries(values: Floats, at: number, count: number, k: number): Int32Array {
  const kept = new Int32Array(Math.min(k, count));
  let held = 0;
  for (let j = 0; j < count; j++) {
    const value = values[at + j];
    if (held === kept.length && !(value > values[at + kept[held - 1]])) continue;
    let place = held < kept.length ? held++ : held - 1;
    while (place > 0 && values[at + kept[place - 1]] < value) {
      kept[place] = kept[place - 1];
      place--;
    }
    kept[place] = j;
  }
  return kept;
}

/**
 * Kendall's tau-b of two lists of scores; NaN where one of them is constant.
 */
export function kendallTau(a: Float64Array, b: Float64Array): number {
  let concordance = 0;
  let untiedA = 0;
  let untiedB = 0;
  for (let i = 0; i < a.length; i++) {
    for (let j = i + 1; j < a.length; j++) {
      const signA = Math.sign(a[i] - a[j]);
      const signB = Math.sign(b[i] - b[j]);
      concordance += signA * signB;
      untiedA += Math.abs(signA);
      untiedB += Math.abs(signB);
    }
  }
  return concordance / Math.sqrt(untiedA * untiedB);
}
