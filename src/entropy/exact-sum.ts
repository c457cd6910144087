/**
 * A sum of doubles without rounding: non-overlapping partials whose exact total is the sum (Shewchuk 1997). The rounded
 * total does not depend on the order of the additions nor on how they were grouped, so that sums over the tokens of many
 * documents are the same bytes however the documents were dealt to shards. Only finite values belong in it.
 */
export type ExactSum = number[];

/** Adds a finite value in place. */
export function addExact(sum: ExactSum, value: number): void {
  let x = value;
  let kept = 0;
  for (let i = 0; i < sum.length; i++) {
    let y = sum[i];
    if (Math.abs(x) < Math.abs(y)) {
      const held = x;
      x = y;
      y = held;
    }
    const high = x + y;
    const low = y - (high - x);
    if (low !== 0) sum[kept++] = low;
    x = high;
  }
  sum.length = kept;
  if (x !== 0) sum.push(x);
}

/** Adds every partial of `other` in place: exact, so grouping leaves no trace. */
export function mergeExact(sum: ExactSum, other: ExactSum): void {
  for (const partial of other) addExact(sum, partial);
}

/** The total, correctly rounded to the nearest double (ties to even). */
export function totalOf(sum: ExactSum): number {
  let n = sum.length;
  if (n === 0) return 0;
  let high = sum[--n];
  let low = 0;
  while (n > 0) {
    const x = high;
    const y = sum[--n];
    high = x + y;
    low = y - (high - x);
    if (low !== 0) break;
  }
  // Half-way cases round by the sign of what lies below, which the two top partials alone do not tell.
  if (n > 0 && ((low < 0 && sum[n - 1] < 0) || (low > 0 && sum[n - 1] > 0))) {
    const doubled = low * 2;
    const rounded = high + doubled;
    if (doubled === rounded - high) high = rounded;
  }
  return high;
}
