import { multiply } from '../kernels/gemm.js';

/** Columns of a matrix minus their means: `[rows, columns]`, row-major. A constant column becomes exactly zero. */
export function centreColumns(x: ArrayLike<number>, rows: number, columns: number): Float64Array {
  const mean = new Float64Array(columns);
  const constant = new Uint8Array(columns).fill(1);
  for (let r = 0; r < rows; r++) {
    for (let j = 0; j < columns; j++) {
      mean[j] += x[r * columns + j];
      if (x[r * columns + j] !== x[j]) constant[j] = 0;
    }
  }
  for (let j = 0; j < columns; j++) mean[j] = constant[j] === 1 ? x[j] : mean[j] / rows;
  const centred = new Float64Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    for (let j = 0; j < columns; j++) centred[r * columns + j] = x[r * columns + j] - mean[j];
  }
  return centred;
}

/** Columns of X, or rows of both Gram matrices, whose products are held at once. */
const TILE = 256;

/** `|X^T Y|_F^2` of `X [n, dx]` and `Y [n, dy]`, tile by tile: the product is never held. */
function squaredNormOfFeatureProduct(x: Float64Array, dx: number, y: Float64Array, dy: number, n: number): number {
  let total = 0;
  const tile = new Float64Array(Math.min(TILE, dx) * dy);
  for (let start = 0; start < dx; start += TILE) {
    const height = Math.min(TILE, dx - start);
    multiply(x.subarray(start), y, tile, { m: height, n: dy, k: n }, { transposeA: true, strideA: dx });
    for (let i = 0; i < height * dy; i++) total += tile[i] * tile[i];
  }
  return total;
}

/** `<X X^T, Y Y^T>_F`, which equals `|X^T Y|_F^2`, from the rows: for n below the numbers of features. */
function innerProductOfGrams(x: Float64Array, dx: number, y: Float64Array, dy: number, n: number): number {
  let total = 0;
  const height = Math.min(TILE, n);
  const inX = new Float64Array(height * n);
  const inY = new Float64Array(height * n);
  for (let start = 0; start < n; start += TILE) {
    const count = Math.min(TILE, n - start);
    multiply(x.subarray(start * dx), x, inX, { m: count, n, k: dx }, { transposeB: true });
    multiply(y.subarray(start * dy), y, inY, { m: count, n, k: dy }, { transposeB: true });
    for (let i = 0; i < count * n; i++) total += inX[i] * inY[i];
  }
  return total;
}

/**
 * `|X^T Y|_F^2 = <X X^T, Y Y^T>_F` of two matrices over the same n rows, by whichever side costs less. This is the
 * Hilbert-Schmidt independence criterion of linear kernels, times (n - 1)^2, when both are centred.
 */
export function linearHsic(x: Float64Array, dx: number, y: Float64Array, dy: number, n: number): number {
  return dx * dy <= n * (dx + dy) ? squaredNormOfFeatureProduct(x, dx, y, dy, n) : innerProductOfGrams(x, dx, y, dy, n);
}

/**
 * Linear centred kernel alignment `|X^T Y|_F^2 / (|X^T X|_F |Y^T Y|_F)` of features `X [n, dx]` and `Y [n, dy]` of the
 * same inputs, centred here (Kornblith et al. 2019). 1 for features that differ by rotation, scale and shift; NaN when
 * all features of one of them are constant.
 */
export function linearCka(x: ArrayLike<number>, dx: number, y: ArrayLike<number>, dy: number, n: number): number {
  const a = centreColumns(x, n, dx);
  const b = centreColumns(y, n, dy);
  return ckaOfHsic(linearHsic(a, dx, b, dy, n), linearHsic(a, dx, a, dx, n), linearHsic(b, dy, b, dy, n));
}

/** `cross / sqrt(own x own)`; NaN where a set has no variance. */
export function ckaOfHsic(cross: number, ownX: number, ownY: number): number {
  return ownX > 0 && ownY > 0 ? cross / (Math.sqrt(ownX) * Math.sqrt(ownY)) : Number.NaN;
}

/** Pairwise linear CKA `[m, m]` of feature sets over the same n rows; symmetric, with 1 on the diagonal. */
export function pairwiseLinearCka(
  sets: readonly { readonly features: ArrayLike<number>; readonly columns: number }[],
  n: number,
): Float64Array {
  const m = sets.length;
  const centred = sets.map(({ features, columns }) => centreColumns(features, n, columns));
  const own = centred.map((x, i) => linearHsic(x, sets[i].columns, x, sets[i].columns, n));
  const result = new Float64Array(m * m);
  for (let i = 0; i < m; i++) {
    result[i * m + i] = own[i] > 0 ? 1 : Number.NaN;
    for (let j = 0; j < i; j++) {
      const cross = linearHsic(centred[i], sets[i].columns, centred[j], sets[j].columns, n);
      result[i * m + j] = ckaOfHsic(cross, own[i], own[j]);
      result[j * m + i] = result[i * m + j];
    }
  }
  return result;
}
