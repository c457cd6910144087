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
  const near = new Int32Array(count);
  const roots = new Float64Array(count);
  const design = new Float64Array(count * (((d + 1) * (d + 2)) / 2));
  const target = new Float64Array(count);
  const offset = new Float64Array(d);
  /** Fills `near` and the roots of the weights; gives their number. */
  const choose = (place: ArrayLike<number>, without: number | undefined): number => {
    for (let r = 0; r < count; r++) {
      let sum = 0;
      for (let j = 0; j < d; j++) sum += ((points[r * d + j] - place[j]) / scale[j]) ** 2;
      squares[r] = r === without ? Number.POSITIVE_INFINITY : sum;
    }
    const sorted = squares.slice().sort();
    const reach = Math.sqrt(sorted[Math.min(q, without === undefined ? count : count - 1) - 1]);
    let found = 0;
    for (let r = 0; r < count; r++) {
      // Rows on the place itself count in full, also where all neighbours are there.
      const share = reach > 0 ? Math.sqrt(squares[r]) / reach : squares[r] === 0 ? 0 : 1;
      if (share >= 1) continue;
      near[found] = r;
      roots[found++] = (1 - share ** 3) ** 1.5;
    }
    return found;
  };
  return {
    neighbours: q,
    at(place, without) {
      const found = choose(place, without);
      for (const degree of [2, 1] as const) {
        const terms = degree === 2 ? ((d + 1) * (d + 2)) / 2 : d + 1;
        if (found < terms) continue;
        for (let i = 0; i < found; i++) {
          for (let j = 0; j < d; j++) offset[j] = (points[near[i] * d + j] - place[j]) / scale[j];
          weightedFeatures(offset, degree, roots[i], design, i * terms);
          target[i] = roots[i] * values[near[i]];
        }
        const solved = leastSquaresSolution(design, target, found, terms);
        if (solved !== undefined) return solved[0];
      }
      let [sum, total] = [0, 0];
      for (let i = 0; i < found; i++) {
        sum += roots[i] ** 2 * values[near[i]];
        total += roots[i] ** 2;
      }
      return sum / total;
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
  for (let i = 0; i < u.length; i++) into[next++] = root * u[i];
  if (degree === 1) return;
  for (let i = 0; i < u.length; i++) for (let j = i; j < u.length; j++) into[next++] = root * u[i] * u[j];
}
