import { leastSquaresSolution } from './least-squares.js';

/** Locally weighted quadratic regression of rows in memory. */
export interface LocalRegression {
  /** Rows that have a weight. */
  readonly neighbours: number;
  /** Value at x [dimensions]; `without` leaves a row out. */
  at(x: ArrayLike<number>, without?: number): number;
}

/**
 * Loess (Cleveland & Devlin 1988), computed at every point anew: the q = floor(span * rows) nearest rows, distances of coordinates
 * over their deviations, have tricube weights (1 - (d / d_q)^3)^3 and a weighted least-squares quadratic, whose value at the
 * point counts. Where the neighbours do not determine a quadratic, a plane; where not even that, their weighted mean.
 *
 * @param x [rows, dimensions] row-major @param y [rows] @param rows which rows take part, with repetitions; all when absent
 */
export function localRegression(
  x: Float64Array,
  y: Float64Array,
  dimensions: number,
  span: number,
  rows?: ArrayLike<number>,
): LocalRegression {
  const d = dimensions;
  const count = rows?.length ?? y.length;
  const points = new Float64Array(count * d);
  const values = new Float64Array(count);
  for (let r = 0; r < count; r++) {
    const row = rows === undefined ? r : rows[r];
    for (let j = 0; j < d; j++) points[r * d + j] = x[row * d + j];
    values[r] = y[row];
  }
  const scale = Float64Array.from({ length: d }, (_, j) => columnDeviation(points, d, j) || 1);
  // The fraction of one row guards the product of a decimal span.
  const q = Math.max(1, Math.min(count, Math.floor(span * count + 1e-5)));
  const squares = new Float64Array(count);
  return {
    neighbours: q,
    at(place, without) {
      for (let r = 0; r < count; r++) {
        let sum = 0;
        for (let j = 0; j < d; j++) sum += ((points[r * d + j] - place[j]) / scale[j]) ** 2;
        squares[r] = r === without ? Number.POSITIVE_INFINITY : sum;
      }
      const sorted = squares.slice().sort();
      const reach = Math.sqrt(sorted[Math.min(q, without === undefined ? count : count - 1) - 1]);
      const near: number[] = [];
      const roots: number[] = [];
      for (let r = 0; r < count; r++) {
        // Rows on the place itself count in full, also where all neighbours are there.
        const share = reach > 0 ? Math.sqrt(squares[r]) / reach : squares[r] === 0 ? 0 : 1;
        if (share >= 1) continue;
        near.push(r);
        roots.push((1 - share ** 3) ** 1.5);
      }
      const offsets = near.map((r) => Float64Array.from(place, (value, j) => (points[r * d + j] - value) / scale[j]));
      for (const degree of [2, 1] as const) {
        const terms = degree === 2 ? ((d + 1) * (d + 2)) / 2 : d + 1;
        if (near.length < terms) continue;
        const design = new Float64Array(near.length * terms);
        const target = new Float64Array(near.length);
        near.forEach((r, i) => {
          weightedFeatures(offsets[i], degree, roots[i], design, i * terms);
          target[i] = roots[i] * values[r];
        });
        const solved = leastSquaresSolution(design, target, near.length, terms);
        if (solved !== undefined) return solved[0];
      }
      const total = roots.reduce((sum, root) => sum + root * root, 0);
      return near.reduce((sum, r, i) => sum + roots[i] ** 2 * values[r], 0) / total;
    },
  };
}

function columnDeviation(points: Float64Array, d: number, j: number): number {
  const count = points.length / d;
  let [sum, squares] = [0, 0];
  for (let r = 0; r < count; r++) sum += points[r * d + j];
  for (let r = 0; r < count; r++) squares += (points[r * d + j] - sum / count) ** 2;
  return Math.sqrt(squares / (count - 1));
}

function weightedFeatures(u: Float64Array, degree: 1 | 2, root: number, into: Float64Array, at: number): void {
  let next = at;
  into[next++] = root;
  for (const value of u) into[next++] = root * value;
  if (degree === 1) return;
  for (let i = 0; i < u.length; i++) for (let j = i; j < u.length; j++) into[next++] = root * u[i] * u[j];
}
