/**
 * Nonincreasing least-squares fit of `values` by pooling adjacent violators, equal weights.
 * @returns an array of the same length
 */
export function decreasingFit(values: ArrayLike<number>): Float64Array {
  const n = values.length;
  const sums = new Float64Array(n);
  const counts = new Int32Array(n);
  let blocks = 0;
  for (let i = 0; i < n; i++) {
    sums[blocks] = values[i];
    counts[blocks] = 1;
    blocks++;
    while (blocks > 1 && sums[blocks - 2] * counts[blocks - 1] <= sums[blocks - 1] * counts[blocks - 2]) {
      sums[blocks - 2] += sums[blocks - 1];
      counts[blocks - 2] += counts[blocks - 1];
      blocks--;
    }
  }
  const fit = new Float64Array(n);
  for (let b = 0, i = 0; b < blocks; b++) {
    fit.fill(sums[b] / counts[b], i, i + counts[b]);
    i += counts[b];
  }
  return fit;
}

/** Which operator is meant by "soft sort": what the library computes, or what was published. */
export type SoftSortVariant = 'library' | 'published';

/**
 * Ascending soft sort of each row with quadratic regularisation (Blondel et al. 2020). With s the negated row in
 * descending order and anchors a, the output is s - D(s - a) negated, D the nonincreasing fit, which is the projection
 * of the anchors onto the permutahedron of s.
 *
 * `published`: anchors (m, ..., 1) / epsilon; equal to the hard sort where adjacent gaps are at most 1 / epsilon.
 * `library` (google-research/fast-soft-sort): anchors m - 1 - i + 1 / epsilon; epsilon is added instead of scaling and
 * cancels, so that the result is the hard sort where adjacent gaps are at most 1 and shrinks the gaps elsewhere.
 * @param values `[n, m]`
 * @returns `[n, m]`
 */
export function softSortRows(
  values: ArrayLike<number>,
  m: number,
  epsilon: number,
  variant: SoftSortVariant,
): Float64Array {
  const n = m === 0 ? 0 : values.length / m;
  const result = new Float64Array(n * m);
  const row = new Float64Array(m);
  const anchors = Float64Array.from({ length: m }, (_, i) =>
    variant === 'library' ? m - 1 - i + 1 / epsilon : (m - i) / epsilon,
  );
  const shifted = new Float64Array(m);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < m; j++) row[j] = -values[i * m + j];
    row.sort().reverse();
    for (let j = 0; j < m; j++) shifted[j] = anchors[j] - row[j];
    const fit = decreasingFit(shifted);
    for (let j = 0; j < m; j++) result[i * m + j] = -(anchors[j] - fit[j]);
  }
  return result;
}
