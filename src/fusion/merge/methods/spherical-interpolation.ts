/**
 * Interpolation between vectors in terms of their dot products alone: what comes out are coefficients of the vectors, so
 * that tensors are read twice (dot products, weighted sum) whatever a method does in between.
 */

/** Where a pair (i, j), i <= j, of n vectors stands among the pairs (0, 0), (0, 1) ... (1, 1) ... */
export function pairIndex(n: number, i: number, j: number): number {
  const [low, high] = i <= j ? [i, j] : [j, i];
  return low * n - (low * (low - 1)) / 2 + (high - low);
}

/** Dot product of sum_i a_i x_i and sum_j b_j x_j, from the Gram matrix of x. */
export function dotOfCombinations(gram: ArrayLike<number>, a: readonly number[], b: readonly number[]): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) {
    for (let j = 0; j < b.length; j++) sum += a[i] * b[j] * gram[pairIndex(a.length, i, j)];
  }
  return sum;
}

/** Length of sum_i a_i x_i, from the Gram matrix of x. */
export function normOfCombination(gram: ArrayLike<number>, a: readonly number[]): number {
  return Math.sqrt(Math.max(0, dotOfCombinations(gram, a, a)));
}

export interface Interpolation {
  /** Of the two vectors as they are. */
  readonly coefficients: readonly [number, number];
  readonly cosine: number;
  /** Radians. */
  readonly angle: number;
  /** Whether the straight line stood in for the arc. */
  readonly linear: boolean;
}

/** Coefficients of the two ends of an arc of angle phi at t. (Shoemake 1985.) */
export function arcCoefficients(angle: number, t: number): [number, number] {
  const sine = Math.sin(angle);
  return [Math.sin((1 - t) * angle) / sine, Math.sin(t * angle) / sine];
}

/** Angle of two vectors with a cosine that rounding may have taken beyond 1. */
export function clampedCosine(cosine: number): number {
  return Math.max(-1, Math.min(1, cosine));
}
