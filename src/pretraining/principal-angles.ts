import { thinSvd } from '../linalg/svd.js';

/**
 * Largest principal angle in radians between the column spaces of `A [d, r]` and `B [d, r]`, by the sine for small angles
 * (Bjorck & Golub 1973). pi/2 when one has fewer dimensions.
 */
export function largestPrincipalAngle(a: Float64Array, b: Float64Array, d: number, r: number): number {
  const basis = (matrix: Float64Array): { q: Float64Array; rank: number } => {
    const { left, values } = thinSvd(matrix, d, r);
    const rank = values.filter((value) => value > d * Number.EPSILON * values[0]).length;
    return { q: left, rank };
  };
  const p = basis(a);
  const q = basis(b);
  if (p.rank < r || q.rank < r) return Math.PI / 2;
  const cosines = new Float64Array(r * r);
  for (let j = 0; j < d; j++) {
    for (let i = 0; i < r; i++) for (let k = 0; k < r; k++) cosines[i * r + k] += p.q[j * r + i] * q.q[j * r + k];
  }
  // Columns of P that Q does not reach: their largest singular value is the sine of the largest angle.
  const rest = q.q.slice();
  for (let j = 0; j < d; j++) {
    for (let i = 0; i < r; i++) for (let k = 0; k < r; k++) rest[j * r + k] -= p.q[j * r + i] * cosines[i * r + k];
  }
  const sine = Math.min(1, thinSvd(rest, d, r).values[0]);
  const cosine = Math.min(1, thinSvd(cosines, r, r).values[r - 1]);
  return Math.atan2(sine, cosine);
}
