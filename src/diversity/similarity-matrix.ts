import { InputError } from '../errors.js';

/** How far two entries of a symmetric matrix, or an entry of its diagonal and 1, may lie apart. */
export const SYMMETRY_TOLERANCE = 1e-8;
export const DIAGONAL_TOLERANCE = 1e-6;

/**
 * Holds a similarity matrix K `[n, n]` to what scores need: finite, symmetric, and with a diagonal of 1 unless
 * `normalize` divides `K_ij` by `sqrt(K_ii K_jj)`, which changes K in place.
 * @param tolerance for `|K_ij - K_ji|`, relative to the largest entry; default `SYMMETRY_TOLERANCE`
 * @throws InputError with the place and size of what does not hold
 */
export function checkSimilarity(
  k: Float64Array,
  n: number,
  options: { readonly name: string; readonly normalize?: boolean; readonly tolerance?: number },
): void {
  const { name, normalize = false, tolerance = SYMMETRY_TOLERANCE } = options;
  if (k.length !== n * n)
    throw new InputError(`${name}: ${k.length} entries are no ${n} x ${n} matrix; a similarity matrix is square`);
  let largest = 0;
  let worst = 0;
  let at = [0, 0];
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      const entry = k[i * n + j];
      const mirrored = k[j * n + i];
      if (!Number.isFinite(entry) || !Number.isFinite(mirrored)) {
        const [row, column] = Number.isFinite(entry) ? [j, i] : [i, j];
        throw new InputError(`${name}: the similarity in row ${row}, column ${column} is ${k[row * n + column]}`);
      }
      largest = Math.max(largest, Math.abs(entry));
      if (Math.abs(entry - mirrored) > worst) {
        worst = Math.abs(entry - mirrored);
        at = [i, j];
      }
    }
  }
  if (worst > tolerance * largest) {
    const [i, j] = at;
    throw new InputError(
      `${name}: is not symmetric: the largest |K_ij - K_ji| is ${worst.toPrecision(6)}, at i=${i}, j=${j} ` +
        `(${k[i * n + j]} and ${k[j * n + i]}); a similarity matrix must be symmetric`,
    );
  }
  if (normalize) normalizeSimilarity(k, n, name);
  else checkDiagonal(k, n, name);
}

function checkDiagonal(k: Float64Array, n: number, name: string): void {
  let worst = 0;
  for (let i = 0; i < n; i++) if (Math.abs(k[i * n + i] - 1) > Math.abs(k[worst * n + worst] - 1)) worst = i;
  const entry = k[worst * n + worst];
  if (Math.abs(entry - 1) > DIAGONAL_TOLERANCE) {
    throw new InputError(
      `${name}: the diagonal is not 1: K_ii = ${entry} at i=${worst}; --normalize divides K_ij by sqrt(K_ii K_jj)`,
    );
  }
}

/** `K_ij / sqrt(K_ii K_jj)` in place. Throws InputError for a diagonal entry that is not positive. */
export function normalizeSimilarity(k: Float64Array, n: number, name: string): void {
  const scale = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const entry = k[i * n + i];
    if (!(entry > 0)) {
      throw new InputError(`${name}: K_ii = ${entry} at i=${i} is not positive: this item cannot be normalised`);
    }
    scale[i] = 1 / Math.sqrt(entry);
  }
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) k[i * n + j] *= scale[i] * scale[j];
  for (let i = 0; i < n; i++) k[i * n + i] = 1;
}

/**
 * `sqrt(p_i) K_ij sqrt(p_j)`, the matrix whose eigenvalues a weighted score takes; K/n without weights. Only rows and
 * columns `rows` of K where they are given; their weights are divided by their sum.
 * @param k `[n, n]`; not changed
 * @param weights `[n]`, with sum 1
 */
export function scaledSimilarity(
  k: Float64Array,
  n: number,
  options: { readonly rows?: Int32Array; readonly weights?: Float64Array } = {},
): Float64Array {
  const { rows, weights } = options;
  const m = rows?.length ?? n;
  const factor = new Float64Array(m).fill(1 / Math.sqrt(m));
  if (weights) {
    let total = rows === undefined ? 1 : 0;
    if (rows) for (const row of rows) total += weights[row];
    for (let i = 0; i < m; i++) factor[i] = Math.sqrt(weights[rows?.[i] ?? i] / total);
  }
  const scaled = new Float64Array(m * m);
  for (let i = 0; i < m; i++) {
    const row = (rows?.[i] ?? i) * n;
    for (let j = 0; j < m; j++) scaled[i * m + j] = factor[i] * k[row + (rows?.[j] ?? j)] * factor[j];
  }
  return scaled;
}
