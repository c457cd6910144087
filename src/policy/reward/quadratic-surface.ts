import { leastSquaresSolution, solveSquare } from '../../linalg/least-squares.js';
import { symmetricEigen } from '../../linalg/symmetric-eigen.js';
import type { DataBox, Surface } from './types.js';

/**
 * A quadratic in n rewards: c_0 + sum b_i u_i + sum q_i u_i^2 + sum_{i<j} r_ij u_i u_j with u = (x - centre) / scale, which
 * keeps the digits of rewards that are far from 0 or of different sizes.
 */
export interface QuadraticSurface extends Surface {
  readonly n: number;
  readonly centre: Float64Array;
  readonly scale: Float64Array;
  /** Of u: 1, u_1..u_n, u_i^2, u_i u_j (i < j). */
  readonly unit: Float64Array;
  /** The same of x: 1, x_1..x_n, x_i^2, x_i x_j (i < j). */
  readonly coefficients: Float64Array;
  /** [n, n], second derivatives in u. */
  readonly unitHessian: Float64Array;
  /** [n], of the Hessian in u, ascending: all negative where the surface has one highest point. */
  readonly eigenvalues: Float64Array;
  readonly negativeDefinite: boolean;
  /** Where the gradient vanishes, [n]; undefined where the Hessian is singular. */
  readonly stationary?: Float64Array;
}

/** Terms of a quadratic in n variables: (n + 1)(n + 2) / 2. */
export const quadraticTerms = (n: number): number => ((n + 1) * (n + 2)) / 2;

/** An eigenvalue within this part of the largest counts as 0. */
const FLAT = 1e-10;

/** 1, u, u^2, u_i u_j (i < j) into `into` from `at` on. */
export function quadraticFeatures(u: ArrayLike<number>, into: Float64Array, at: number): void {
  const n = u.length;
  into[at] = 1;
  for (let i = 0; i < n; i++) {
    into[at + 1 + i] = u[i];
    into[at + 1 + n + i] = u[i] * u[i];
  }
  let next = at + 1 + 2 * n;
  for (let i = 0; i < n; i++) for (let j = i + 1; j < n; j++) into[next++] = u[i] * u[j];
}

/** Coefficients in x of a polynomial in u = (x - centre) / scale. */
function expanded(unit: Float64Array, centre: Float64Array, scale: Float64Array): Float64Array {
  const n = centre.length;
  const result = new Float64Array(unit.length);
  result[0] = unit[0];
  for (let i = 0; i < n; i++) {
    const [linear, square] = [unit[1 + i] / scale[i], unit[1 + n + i] / scale[i] ** 2];
    result[0] += -linear * centre[i] + square * centre[i] ** 2;
    result[1 + i] += linear - 2 * square * centre[i];
    result[1 + n + i] = square;
  }
  let at = 1 + 2 * n;
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) {
      const product = unit[at] / (scale[i] * scale[j]);
      result[0] += product * centre[i] * centre[j];
      result[1 + i] -= product * centre[j];
      result[1 + j] -= product * centre[i];
      result[at++] = product;
    }
  }
  return result;
}

/**
 * Least-squares quadratic of `score` on the columns of `x` [rows, n] at `rows` (a resample may name a row twice). Undefined
 * where the rows do not determine it.
 */
export function fitQuadratic(
  x: Float64Array,
  score: Float64Array,
  n: number,
  box: DataBox,
  rows?: ArrayLike<number>,
): QuadraticSurface | undefined {
  const count = rows?.length ?? score.length;
  const terms = quadraticTerms(n);
  const centre = box.low.map((low, i) => 0.5 * (low + box.high[i]));
  const scale = box.low.map((low, i) => 0.5 * (box.high[i] - low) || 1);
  const design = new Float64Array(count * terms);
  const target = new Float64Array(count);
  const u = new Float64Array(n);
  for (let r = 0; r < count; r++) {
    const row = rows === undefined ? r : rows[r];
    for (let i = 0; i < n; i++) u[i] = (x[row * n + i] - centre[i]) / scale[i];
    quadraticFeatures(u, design, r * terms);
    target[r] = score[row];
  }
  const unit = leastSquaresSolution(design, target, count, terms);
  return unit && quadraticSurface(unit, centre, scale);
}

/** A surface from coefficients of u. */
export function quadraticSurface(unit: Float64Array, centre: Float64Array, scale: Float64Array): QuadraticSurface {
  const n = centre.length;
  const unitHessian = new Float64Array(n * n);
  for (let i = 0; i < n; i++) unitHessian[i * n + i] = 2 * unit[1 + n + i];
  let at = 1 + 2 * n;
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) {
      unitHessian[i * n + j] = unit[at];
      unitHessian[j * n + i] = unit[at++];
    }
  }
  const eigenvalues = symmetricEigen(unitHessian, n).values;
  const largest = Math.max(...eigenvalues.map(Math.abs));
  const solved = solveSquare(
    unitHessian,
    unit.subarray(1, 1 + n).map((slope) => -slope),
    n,
  );
  const features = new Float64Array(unit.length);
  const place = new Float64Array(n);
  return {
    n,
    centre,
    scale,
    unit,
    coefficients: expanded(unit, centre, scale),
    unitHessian,
    eigenvalues,
    negativeDefinite: eigenvalues[n - 1] < -FLAT * largest,
    ...(solved && { stationary: solved.map((value, i) => centre[i] + scale[i] * value) }),
    predict(x) {
      for (let i = 0; i < n; i++) place[i] = (x[i] - centre[i]) / scale[i];
      quadraticFeatures(place, features, 0);
      let sum = 0;
      for (let k = 0; k < features.length; k++) sum += features[k] * unit[k];
      return sum;
    },
  };
}

/** Up to this number of rewards all 3^n faces of the box are looked at. */
export const MOST_FACE_REWARDS = 8;

/**
 * The highest point of a quadratic on a box, exactly: it is the stationary point of the face that holds it in its interior, so
 * that the best of the stationary points of all 3^n faces that lie on their faces is the maximum (a face on which the Hessian is
 * singular has its maximum also on its border). For up to 8 rewards.
 */
export function quadraticMaximumOnBox(surface: QuadraticSurface, box: DataBox): Float64Array {
  const { n, unit, unitHessian, centre, scale } = surface;
  const low = box.low.map((value, i) => (value - centre[i]) / scale[i]);
  const high = box.high.map((value, i) => (value - centre[i]) / scale[i]);
  const at = (u: Float64Array): Float64Array => u.map((value, i) => centre[i] + scale[i] * value);
  let best: Float64Array = at(low);
  let most = Number.NEGATIVE_INFINITY;
  for (let code = 0; code < 3 ** n; code++) {
    const u = new Float64Array(n);
    const free: number[] = [];
    for (let i = 0, rest = code; i < n; i++, rest = Math.floor(rest / 3)) {
      if (rest % 3 === 2) free.push(i);
      else u[i] = rest % 3 === 0 ? low[i] : high[i];
    }
    const k = free.length;
    if (k > 0) {
      const hessian = new Float64Array(k * k);
      const slope = new Float64Array(k);
      free.forEach((i, a) => {
        slope[a] = -unit[1 + i];
        for (let j = 0; j < n; j++) slope[a] -= unitHessian[i * n + j] * u[j];
        free.forEach((j, b) => {
          hessian[a * k + b] = unitHessian[i * n + j];
        });
      });
      const solved = solveSquare(hessian, slope, k);
      if (solved === undefined || free.some((i, a) => !(solved[a] >= low[i] && solved[a] <= high[i]))) continue;
      free.forEach((i, a) => {
        u[i] = solved[a];
      });
    }
    const x = at(u);
    for (let i = 0; i < n; i++) x[i] = Math.min(box.high[i], Math.max(box.low[i], x[i]));
    const value = surface.predict(x);
    if (value > most) [best, most] = [x, value];
  }
  return best;
}
