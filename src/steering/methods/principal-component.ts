import { InputError } from '../../errors.js';
import { multiply } from '../../kernels/gemm.js';
import { leadingEigenvectors } from '../../linalg/leading-eigenvectors.js';
import { meanRow, norm, projections } from '../vector-measures.js';
import { squaredSum } from './contrast.js';

/** An eigenvector has about half as many correct digits as its eigenvalue has settled ones. */
const EIGENVALUE_TOLERANCE = 1e-15;

export interface PrincipalComponent {
  /** Length 1; the row with the largest projection in magnitude lies on its positive side (scikit-learn's older sign). */
  readonly vector: Float64Array;
  /** First squared singular value over the sum of all. */
  readonly explainedVarianceRatio: number;
}

/** Rows minus a row `[width]`. */
export function centred(
  rows: ArrayLike<number>,
  width: number,
  centre: Float64Array = meanRow(rows, width),
): Float64Array {
  return Float64Array.from(rows, (value, at) => value - centre[at % width]);
}

/** The vector or its negative, so that the largest projection in magnitude is positive. */
function signed(vector: Float64Array, rows: Float64Array): Float64Array {
  const largest = projections(rows, vector.length, vector).reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0);
  return largest < 0 ? vector.map((value) => -value) : vector;
}

/**
 * First right singular vector of rows `[n, width]` as they are: the caller centres. The smaller of the two Gram matrices
 * is decomposed.
 * @param what names the rows when all of them are zero
 * @throws InputError when they are
 */
export function firstComponent(rows: Float64Array, width: number, what: string, threads?: number): PrincipalComponent {
  const n = rows.length / width;
  const total = squaredSum(rows);
  const scale = rows.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  if (scale === 0) throw new InputError(`${what} are all zero: they have no first component`);
  const own = threads === undefined ? {} : { threads };
  const precise = { ...own, tolerance: EIGENVALUE_TOLERANCE };
  // Singular values relative to the largest entry: squares of half-precision activations stay in range.
  const scaled = rows.map((value) => value / scale);
  const ratio = (value: number): number => Math.min(1, (value * scale * scale) / total);
  if (n < width) {
    const gram = multiply(scaled, scaled, new Float64Array(n * n), { m: n, n, k: width }, { transposeB: true, ...own });
    const { values, vectors } = leadingEigenvectors(gram, n, 1, precise);
    const vector = multiply(vectors, scaled, new Float64Array(width), { m: 1, n: width, k: n }, own);
    const length = norm(vector);
    return {
      vector: signed(
        vector.map((value) => value / length),
        scaled,
      ),
      explainedVarianceRatio: ratio(values[0]),
    };
  }
  const moments = multiply(
    scaled,
    scaled,
    new Float64Array(width * width),
    { m: width, n: width, k: n },
    { transposeA: true, ...own },
  );
  const { values, vectors } = leadingEigenvectors(moments, width, 1, precise);
  return { vector: signed(vectors.slice(0, width), scaled), explainedVarianceRatio: ratio(values[0]) };
}
