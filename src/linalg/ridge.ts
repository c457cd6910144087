import { multiply } from '../kernels/gemm.js';
import { choleskyInPlace, invertLower, solveRows } from './blocked-cholesky.js';
import { symmetricEigen } from './symmetric-eigen.js';

export interface RidgeOptions {
  readonly threads?: number;
}

/**
 * Weights `[outputs, d]` with `W (G + decay I) = C`, for a Gram matrix G `[d, d]` (lower triangle) and `C [outputs, d]`,
 * by Cholesky. Undefined when `G + decay I` is singular to rounding.
 */
export function solveRidge(
  gram: Float64Array,
  cross: Float64Array,
  d: number,
  outputs: number,
  decay: number,
  options: RidgeOptions = {},
): Float64Array | undefined {
  const matrix = gram.slice();
  let largest = 0;
  for (let i = 0; i < d; i++) {
    matrix[i * d + i] += decay;
    largest = Math.max(largest, matrix[i * d + i]);
  }
  if (!choleskyInPlace(matrix, d, options)) return undefined;
  // A pivot of the size of the rounding errors says nothing: the features are dependent.
  for (let i = 0; i < d; i++) {
    if (matrix[i * d + i] ** 2 <= d * Number.EPSILON * largest) return undefined;
  }
  return solveRows(invertLower(matrix, d, options), d, cross, outputs, options);
}

/** Above this order one decomposition costs more than a factor for every decay. */
const WIDEST_DECOMPOSED = 700;

/**
 * Ridge solutions for several decays. Up to an order of 700 all come from one eigendecomposition `G = V L V^T`, as
 * `C V (L + decay)^-1 V^T`, in which directions without variance get no weight (the minimum norm, also at decay 0). Wider
 * problems are factored once a decay.
 *
 * @returns for every decay the weights `[outputs, d]`, undefined where `G + decay I` is singular
 */
export function ridgePath(
  gram: Float64Array,
  cross: Float64Array,
  d: number,
  outputs: number,
  decays: readonly number[],
  options: RidgeOptions = {},
): { readonly method: 'eigendecomposition' | 'cholesky'; readonly weights: (Float64Array | undefined)[] } {
  if (d > WIDEST_DECOMPOSED) {
    return {
      method: 'cholesky',
      weights: decays.map((decay) => solveRidge(gram, cross, d, outputs, decay, options)),
    };
  }
  const full = new Float64Array(d * d);
  for (let i = 0; i < d; i++) {
    for (let j = 0; j <= i; j++) {
      full[i * d + j] = gram[i * d + j];
      full[j * d + i] = gram[i * d + j];
    }
  }
  const { values, vectors } = symmetricEigen(full, d);
  const floor = d * Number.EPSILON * Math.max(0, values[d - 1]);
  const sizes = { m: outputs, n: d, k: d };
  const turned = multiply(cross, vectors, new Float64Array(outputs * d), sizes, { transposeB: true, ...options });
  const weights = decays.map((decay) => {
    const scaled = new Float64Array(outputs * d);
    for (let k = 0; k < outputs; k++) {
      for (let i = 0; i < d; i++) {
        if (values[i] > floor) scaled[k * d + i] = turned[k * d + i] / (values[i] + decay);
      }
    }
    return multiply(scaled, vectors, new Float64Array(outputs * d), sizes, options);
  });
  return { method: 'eigendecomposition', weights };
}
