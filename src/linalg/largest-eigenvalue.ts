import { createRandom } from '../random.js';
import { symmetricEigen } from './symmetric-eigen.js';

/** Steps after which the Ritz value is trusted whatever its residual. */
const MOST_STEPS = 300;
/** How often the small eigenproblem is solved. */
const CHECK_EVERY = 8;

/**
 * The largest eigenvalue of a symmetric positive semidefinite operator of order `n`, by Lanczos with full
 * reorthogonalisation from a seeded start, until the residual bound is below `tolerance` of it. The bound is added, so
 * that the result is not below the eigenvalue it stands for.
 * @param multiply writes A v into `out`
 */
export function largestEigenvalue(
  multiply: (v: Float64Array, out: Float64Array) => void,
  n: number,
  tolerance = 1e-12,
): number {
  if (n === 0) return 0;
  const random = createRandom(0x1a2b);
  const basis: Float64Array[] = [];
  const diagonal: number[] = [];
  const offDiagonal: number[] = [];
  let v: Float64Array = Float64Array.from({ length: n }, () => random.normal());
  scale(v, 1 / norm(v));
  const w = new Float64Array(n);
  let best = 0;
  for (let k = 1; k <= Math.min(n, MOST_STEPS); k++) {
    basis.push(v);
    multiply(v, w);
    diagonal.push(dot(v, w));
    // Twice is enough (Parlett): rounding left by the first pass goes with the second.
    for (let pass = 0; pass < 2; pass++) for (const u of basis) addScaled(w, -dot(u, w), u);
    const beta = norm(w);
    const last = k === Math.min(n, MOST_STEPS) || !(beta > 1e-300);
    if (last || k % CHECK_EVERY === 0) {
      const { value, tail } = largestOfTridiagonal(diagonal, offDiagonal);
      const residual = beta * tail;
      best = value + residual;
      if (last || residual <= tolerance * Math.abs(value)) return best;
    }
    offDiagonal.push(beta);
    v = w.map((entry) => entry / beta);
  }
  return best;
}

/** Largest eigenvalue of a tridiagonal matrix, and the size of the last entry of its eigenvector. */
function largestOfTridiagonal(diagonal: readonly number[], off: readonly number[]): { value: number; tail: number } {
  const k = diagonal.length;
  const matrix = new Float64Array(k * k);
  for (let i = 0; i < k; i++) {
    matrix[i * k + i] = diagonal[i];
    if (i + 1 < k) {
      matrix[i * k + i + 1] = off[i];
      matrix[(i + 1) * k + i] = off[i];
    }
  }
  const { values, vectors } = symmetricEigen(matrix, k);
  return { value: values[k - 1], tail: Math.abs(vectors[(k - 1) * k + k - 1]) };
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

function norm(a: Float64Array): number {
  return Math.sqrt(dot(a, a));
}

function scale(a: Float64Array, by: number): void {
  for (let i = 0; i < a.length; i++) a[i] *= by;
}

function addScaled(target: Float64Array, by: number, a: Float64Array): void {
  for (let i = 0; i < target.length; i++) target[i] += by * a[i];
}
