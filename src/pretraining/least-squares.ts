import { multiply, symmetricRankK } from '../kernels/gemm.js';
import { choleskyInPlace, invertLower, solveRows } from '../linalg/blocked-cholesky.js';
import { thinSvd } from '../linalg/svd.js';

/** Work of a singular value decomposition that is still quick. */
const MOST_SVD_WORK = 3e8;
/** Of the trace, added to the diagonal where larger problems are factored. */
const LARGE_RIDGE = 1e-12;

export interface LeastSquaresOptions {
  /** Largest norm of the weights; solutions beyond it are shrunk along the ridge path. */
  readonly normBound?: number;
}

/** Weights of norm `bound` on the ridge path `s u^T y / (s^2 + t)`, or those at t = 0 when they are short enough. */
function bounded(values: Float64Array, projected: Float64Array, floor: number, bound: number): Float64Array {
  const at = (ridge: number): Float64Array =>
    values.map((s, i) => (s > floor ? (s * projected[i]) / (s * s + ridge) : 0));
  const norm = (weights: Float64Array): number => Math.sqrt(weights.reduce((sum, w) => sum + w * w, 0));
  const free = at(0);
  if (norm(free) <= bound) return free;
  let low = 0;
  let high = values[0] * values[0] || 1;
  while (norm(at(high)) > bound) high *= 4;
  for (let step = 0; step < 200 && high - low > 1e-14 * high; step++) {
    const middle = 0.5 * (low + high);
    if (norm(at(middle)) > bound) low = middle;
    else high = middle;
  }
  return at(high);
}

/**
 * Least squares of y on `x [n, d]` without an intercept; of all solutions the one of least norm. By singular values,
 * where those below `max(n, d) eps` of the largest are zero; problems too large for that by Cholesky on the smaller side,
 * with 1e-12 of the trace added.
 * @returns weights `[d]`
 */
export function leastSquares(
  x: Float64Array,
  y: ArrayLike<number>,
  n: number,
  d: number,
  options: LeastSquaresOptions = {},
): Float64Array {
  const { normBound = Number.POSITIVE_INFINITY } = options;
  const few = Math.min(n, d);
  if (n * d * few > MOST_SVD_WORK && normBound === Number.POSITIVE_INFINITY) return largeLeastSquares(x, y, n, d);
  const { left, values, right } = thinSvd(x, n, d);
  const projected = new Float64Array(few);
  for (let r = 0; r < n; r++) for (let k = 0; k < few; k++) projected[k] += left[r * few + k] * y[r];
  const floor = Math.max(n, d) * Number.EPSILON * values[0];
  const along = bounded(values, projected, floor, normBound);
  const weights = new Float64Array(d);
  for (let j = 0; j < d; j++) for (let k = 0; k < few; k++) weights[j] += right[j * few + k] * along[k];
  return weights;
}

function largeLeastSquares(x: Float64Array, y: ArrayLike<number>, n: number, d: number): Float64Array {
  const order = Math.min(n, d);
  const gram = new Float64Array(order * order);
  symmetricRankK(x, gram, n < d ? { n, k: d } : { n: d, k: n }, { transpose: n >= d });
  let trace = 0;
  for (let i = 0; i < order; i++) trace += gram[i * order + i];
  for (let i = 0; i < order; i++) gram[i * order + i] += LARGE_RIDGE * trace;
  if (!choleskyInPlace(gram, order)) throw new RangeError('least squares: features are not finite');
  const inverse = invertLower(gram, order);
  const targets = Float64Array.from({ length: n }, (_, r) => y[r]);
  if (n < d) {
    const dual = solveRows(inverse, n, targets, 1);
    return multiply(dual, x, new Float64Array(d), { m: 1, n: d, k: n });
  }
  const cross = multiply(targets, x, new Float64Array(d), { m: 1, n: d, k: n });
  return solveRows(inverse, d, cross, 1);
}

/** Predictions `x w` of rows `[n, d]`, cut to `[-bound, bound]` where a bound is given. */
export function linearPredictions(
  x: ArrayLike<number>,
  weights: Float64Array,
  n: number,
  bound = Number.POSITIVE_INFINITY,
): Float64Array {
  const d = weights.length;
  return Float64Array.from({ length: n }, (_, r) => {
    let sum = 0;
    for (let j = 0; j < d; j++) sum += weights[j] * x[r * d + j];
    return Math.min(bound, Math.max(-bound, sum));
  });
}
