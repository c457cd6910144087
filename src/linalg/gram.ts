import type { Floats } from '../formats/feature-matrix.js';
import { TILE, type TiledProducts } from './tiled-products.js';

/**
 * Squared distances below this share of the squared norms are computed from the differences of the coordinates: the
 * others lose at most four of the sixteen digits of f64.
 */
const NEAR = 1e-4;

/** Visits the tiles of the lower triangle of a matrix of order n, row block by row block. */
export async function eachLowerTile(
  n: number,
  visit: (row: number, rows: number, column: number, columns: number) => Promise<void>,
  tile = TILE,
): Promise<void> {
  for (let row = 0; row < n; row += tile) {
    const rows = Math.min(tile, n - row);
    for (let column = 0; column <= row; column += tile) await visit(row, rows, column, Math.min(tile, n - column));
  }
}

/** Copies a tile into both triangles of a matrix of order n; of a tile on the diagonal the lower triangle counts. */
function placeSymmetric(
  target: Float64Array,
  n: number,
  tile: Float64Array,
  [row, rows, column, columns]: readonly [number, number, number, number],
): void {
  for (let i = 0; i < rows; i++) {
    const last = row === column ? i + 1 : columns;
    for (let j = 0; j < last; j++) {
      const value = tile[i * columns + j];
      target[(row + i) * n + column + j] = value;
      target[(column + j) * n + row + i] = value;
    }
  }
}

/** Inner products `X Xᵀ` `[n, n]` of the rows of `x` `[n, d]`, exactly symmetric. f64. */
export async function gramMatrix(
  x: Float64Array,
  n: number,
  d: number,
  products: TiledProducts,
): Promise<Float64Array> {
  const gram = new Float64Array(n * n);
  const tile = new Float64Array(Math.min(n, TILE) ** 2);
  await eachLowerTile(n, async (row, rows, column, columns) => {
    const a = x.subarray(row * d, (row + rows) * d);
    const b = x.subarray(column * d, (column + columns) * d);
    await products.product(a, rows, b, columns, d, tile);
    placeSymmetric(gram, n, tile, [row, rows, column, columns]);
  });
  return gram;
}

/** The mean of the rows of `x` `[n, d]`, `[d]`. */
export function columnMeans(x: Floats, n: number, d: number): Float64Array {
  const means = new Float64Array(d);
  for (let i = 0; i < n; i++) for (let j = 0; j < d; j++) means[j] += x[i * d + j];
  for (let j = 0; j < d; j++) means[j] /= n;
  return means;
}

/**
 * Squared Euclidean distances `[n, n]` of the rows of `x` `[n, d]`: symmetric, not negative, with a diagonal of exact
 * zeros. By inner products of the centred rows; pairs so near that the products would cancel are computed from their
 * differences, so that a distance keeps at least 11 digits, and equal rows have distance 0.
 */
export async function squaredDistances(
  x: Float64Array,
  n: number,
  d: number,
  products: TiledProducts,
): Promise<Float64Array> {
  const means = columnMeans(x, n, d);
  const centred = new Float64Array(n * d);
  for (let i = 0; i < n; i++) for (let j = 0; j < d; j++) centred[i * d + j] = x[i * d + j] - means[j];
  const distances = await gramMatrix(centred, n, d, products);
  const norms = Float64Array.from({ length: n }, (_, i) => distances[i * n + i]);
  for (let i = 0; i < n; i++) {
    distances[i * n + i] = 0;
    for (let j = 0; j < i; j++) {
      const both = norms[i] + norms[j];
      let squared = both - 2 * distances[i * n + j];
      if (squared < NEAR * both) {
        squared = 0;
        for (let k = 0; k < d; k++) {
          const difference = x[i * d + k] - x[j * d + k];
          squared += difference * difference;
        }
      }
      distances[i * n + j] = squared;
      distances[j * n + i] = squared;
    }
  }
  return distances;
}
