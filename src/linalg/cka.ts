/** Columns of a matrix minus their means: `[rows, columns]`, row-major. */
export function centreColumns(x: ArrayLike<number>, rows: number, columns: number): Float64Array {
  const mean = new Float64Array(columns);
  for (let r = 0; r < rows; r++) for (let j = 0; j < columns; j++) mean[j] += x[r * columns + j];
  for (let j = 0; j < columns; j++) mean[j] /= rows;
  const centred = new Float64Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    for (let j = 0; j < columns; j++) centred[r * columns + j] = x[r * columns + j] - mean[j];
  }
  return centred;
}

/** Entries of a product that are held at once. */
const TILE = 64;

/** `|X^T Y|_F^2` of `X [n, dx]` and `Y [n, dy]`, tile by tile: the product is never held. */
function squaredNormOfFeatureProduct(x: Float64Array, dx: number, y: Float64Array, dy: number, n: number): number {
  let total = 0;
  const tile = new Float64Array(TILE * TILE);
  for (let i0 = 0; i0 < dx; i0 += TILE) {
    const height = Math.min(TILE, dx - i0);
    for (let j0 = 0; j0 < dy; j0 += TILE) {
      const width = Math.min(TILE, dy - j0);
      tile.fill(0);
      for (let r = 0; r < n; r++) {
        for (let i = 0; i < height; i++) {
          const value = x[r * dx + i0 + i];
          if (value === 0) continue;
          const at = r * dy + j0;
          for (let j = 0; j < width; j++) tile[i * TILE + j] += value * y[at + j];
        }
      }
      for (let i = 0; i < height; i++) for (let j = 0; j < width; j++) total += tile[i * TILE + j] ** 2;
    }
  }
  return total;
}

/** `<X X^T, Y Y^T>_F`, which equals `|X^T Y|_F^2`, from the rows: for n below the numbers of features. */
function innerProductOfGrams(x: Float64Array, dx: number, y: Float64Array, dy: number, n: number): number {
  let total = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let inX = 0;
      for (let k = 0; k < dx; k++) inX += x[i * dx + k] * x[j * dx + k];
      let inY = 0;
      for (let k = 0; k < dy; k++) inY += y[i * dy + k] * y[j * dy + k];
      total += (i === j ? 1 : 2) * inX * inY;
    }
  }
  return total;
}

/**
 * `|X^T Y|_F^2 = <X X^T, Y Y^T>_F` of two matrices over the same n rows, by whichever side costs less. This is the
 * Hilbert-Schmidt independence criterion of linear kernels, times (n - 1)^2, when both are centred.
 */
export function linearHsic(x: Float64Array, dx: number, y: Float64Array, dy: number, n: number): number {
  const features = dx * dy;
  const rows = (n * (dx + dy)) / 2;
  return features <= rows ? squaredNormOfFeatureProduct(x, dx, y, dy, n) : innerProductOfGrams(x, dx, y, dy, n);
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
