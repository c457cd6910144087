/** Midpoints between ascending levels: a value on one takes the lower level. */
export function midpoints(levels: ArrayLike<number>): Float64Array {
  return Float64Array.from({ length: levels.length - 1 }, (_, i) => (levels[i] + levels[i + 1]) / 2);
}

/** Index of the nearest of ascending levels, from their midpoints. */
export function nearestLevel(value: number, between: Float64Array): number {
  let low = 0;
  let high = between.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (value > between[middle]) low = middle + 1;
    else high = middle;
  }
  return low;
}
