import { solveSquare } from './least-squares.js';

/** Steps at most; each leaves a smaller distance, so that the method ends by itself. */
const MOST_STEPS = 10_000;

/**
 * Distance of a point to the convex hull of others, by Wolfe's method (1976): the nearest point of the affine hull of a few
 * points is sought again and again, until no point of the set lies on the near side of it. Finite and exact but for rounding;
 * O(rows dimensions) a step, for any number of dimensions.
 *
 * @param points [rows, dimensions] row-major, rows >= 1; bring the coordinates to one scale first
 * @returns 0 within rounding for a point of the hull
 */
export function distanceToHull(
  points: Float64Array,
  rows: number,
  dimensions: number,
  query: ArrayLike<number>,
): number {
  const d = dimensions;
  const shifted = points.slice(0, rows * d);
  for (let r = 0; r < rows; r++) for (let j = 0; j < d; j++) shifted[r * d + j] -= query[j];
  const dot = (row: number, z: Float64Array): number => {
    let sum = 0;
    for (let j = 0; j < d; j++) sum += shifted[row * d + j] * z[j];
    return sum;
  };
  let largest = 0;
  let [first, least] = [0, Number.POSITIVE_INFINITY];
  for (let r = 0; r < rows; r++) {
    const norm = dot(r, shifted.subarray(r * d, (r + 1) * d));
    largest = Math.max(largest, norm);
    if (norm < least) [first, least] = [r, norm];
  }
  let corral = [first];
  let weights = [1];
  let z = shifted.slice(first * d, (first + 1) * d);
  for (let step = 0; step < MOST_STEPS; step++) {
    const square = z.reduce((sum, value) => sum + value * value, 0);
    if (square <= 1e-24 * largest) return 0;
    let [entering, lowest] = [-1, square - 1e-12 * Math.max(square, 1e-6 * Math.sqrt(largest * square))];
    for (let r = 0; r < rows; r++) {
      const product = dot(r, z);
      if (product < lowest) [entering, lowest] = [r, product];
    }
    if (entering < 0 || corral.includes(entering)) break;
    corral.push(entering);
    weights.push(0);
    for (;;) {
      const affine = affineMinimum(shifted, d, corral);
      if (affine === undefined) {
        // The corral is dependent to rounding: nothing nearer can be told apart.
        return Math.sqrt(square);
      }
      if (affine.every((weight) => weight > 1e-13)) {
        weights = affine;
        break;
      }
      let share = 1;
      affine.forEach((weight, k) => {
        if (weight <= 1e-13) share = Math.min(share, weights[k] / (weights[k] - weight));
      });
      const moved = weights.map((weight, k) => weight + share * (affine[k] - weight));
      const kept = corral.map((_, k) => k).filter((k) => moved[k] > 1e-13);
      if (kept.length === corral.length) kept.splice(moved.indexOf(Math.min(...moved)), 1);
      corral = kept.map((k) => corral[k]);
      weights = kept.map((k) => moved[k]);
    }
    z = new Float64Array(d);
    corral.forEach((row, k) => {
      for (let j = 0; j < d; j++) z[j] += weights[k] * shifted[row * d + j];
    });
  }
  return Math.hypot(...z);
}

/** Weights, of any sign, of the point of the affine hull that is nearest to 0; undefined for dependent points. */
function affineMinimum(points: Float64Array, d: number, rows: readonly number[]): number[] | undefined {
  const k = rows.length;
  if (k > d + 1) return undefined;
  // Wolfe's (1 1^T + P P^T) u = 1, u scaled to sum 1.
  const matrix = new Float64Array(k * k);
  let scale = 0;
  for (let a = 0; a < k; a++) {
    for (let b = 0; b <= a; b++) {
      let sum = 0;
      for (let j = 0; j < d; j++) sum += points[rows[a] * d + j] * points[rows[b] * d + j];
      matrix[a * k + b] = sum;
      matrix[b * k + a] = sum;
    }
    scale = Math.max(scale, matrix[a * k + a]);
  }
  for (let i = 0; i < matrix.length; i++) matrix[i] += scale || 1;
  const solved = solveSquare(matrix, new Float64Array(k).fill(1), k);
  if (solved === undefined) return undefined;
  const sum = solved.reduce((total, value) => total + value, 0);
  return Array.from(solved, (value) => value / sum);
}
