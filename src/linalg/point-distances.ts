/**
 * Squared Euclidean distances of all pairs of rows of `x [n, d]` by differences, `[n, n]` row-major: equal points have the
 * distance 0 and equal distances are equal bits, which distances by inner products do not keep. O(n^2 d) without tiles, for
 * neighbour graphs of moderate size.
 */
export function directSquaredDistances(x: Float64Array, n: number, d: number): Float64Array {
  const squared = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    const a = i * d;
    for (let j = 0; j < i; j++) {
      const b = j * d;
      let sum = 0;
      for (let k = 0; k < d; k++) {
        const difference = x[a + k] - x[b + k];
        sum += difference * difference;
      }
      squared[i * n + j] = sum;
      squared[j * n + i] = sum;
    }
  }
  return squared;
}

/** Moves the k-th smallest of `values` (k from 0) to place k, smaller ones before it, and returns it (Hoare's quickselect). */
export function selectSmallest(values: Float64Array, k: number): number {
  let low = 0;
  let high = values.length - 1;
  while (low < high) {
    // The middle of three: sorted and reversed inputs stay linear.
    const middle = (low + high) >>> 1;
    const pivot = middleOf(values[low], values[middle], values[high]);
    let i = low;
    let j = high;
    while (i <= j) {
      while (values[i] < pivot) i++;
      while (values[j] > pivot) j--;
      if (i > j) break;
      const held = values[i];
      values[i++] = values[j];
      values[j--] = held;
    }
    if (k <= j) high = j;
    else if (k >= i) low = i;
    else break;
  }
  return values[k];
}

function middleOf(a: number, b: number, c: number): number {
  return Math.max(Math.min(a, b), Math.min(Math.max(a, b), c));
}
