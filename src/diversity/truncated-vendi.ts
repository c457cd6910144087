/** The reference implementation raises every eigenvalue to at least this. */
export const REFERENCE_FLOOR = 1e-10;

/**
 * The spectrum of the t-truncated Vendi score: the t largest eigenvalues of K/n, to each of which `1/t` of what they
 * leave of the trace is added (Ospanov & Farnia 2024). Some reimplementations divide the kept values by their sum
 * instead, which is another number. With fewer than t eigenvalues the others count as zeros, so that t entries come
 * back as long as n is at least t.
 * @param eigenvalues of K/n, descending, with sum 1 with those that were dropped
 * @param n number of items: there are no more eigenvalues
 * @param floor what the reference does: eigenvalues below it are raised to it first (`REFERENCE_FLOOR`); default 0
 * @throws RangeError when t is no positive integer
 */
export function truncatedSpectrum(eigenvalues: Float64Array, t: number, n: number, floor = 0): Float64Array {
  if (!Number.isInteger(t) || t < 1) throw new RangeError(`a truncation is a positive integer, not ${t}`);
  const kept = new Float64Array(Math.min(t, n));
  let sum = 0;
  for (let i = 0; i < kept.length; i++) {
    kept[i] = Math.max(floor, i < eigenvalues.length ? eigenvalues[i] : 0);
    sum += kept[i];
  }
  const share = (1 - sum) / kept.length;
  // Where nothing is left but rounding, a zero must not become negative.
  return kept.map((value) => Math.max(0, value + share)).filter((value) => value > 0);
}
