import { columnMeans } from './gram.js';
import { TILE, type TiledProducts } from './tiled-products.js';

/**
 * The k nearest other rows of every row of `x [n, d]` by Euclidean distance, `[n, k]`, nearest first, equal distances by
 * row number. Distances by inner products of the centred rows, tile by tile: nothing of size n x n is held.
 * @throws RangeError unless 1 <= k < n
 */
export async function nearestNeighbours(
  x: Float64Array,
  n: number,
  d: number,
  k: number,
  products: TiledProducts,
): Promise<Int32Array> {
  if (!(Number.isInteger(k) && k >= 1 && k < n)) throw new RangeError(`${k} neighbours of ${n} rows`);
  const means = columnMeans(x, n, d);
  const centred = x.map((value, i) => value - means[i % d]);
  const norms = new Float64Array(n);
  for (let i = 0; i < n; i++) for (let j = 0; j < d; j++) norms[i] += centred[i * d + j] ** 2;
  const neighbours = new Int32Array(n * k);
  const distances = new Float64Array(n * k).fill(Number.POSITIVE_INFINITY);
  const tile = new Float64Array(Math.min(n, TILE) ** 2);
  for (let row = 0; row < n; row += TILE) {
    const rows = Math.min(TILE, n - row);
    const a = centred.subarray(row * d, (row + rows) * d);
    for (let column = 0; column < n; column += TILE) {
      const columns = Math.min(TILE, n - column);
      await products.product(a, rows, centred.subarray(column * d, (column + columns) * d), columns, d, tile);
      for (let i = 0; i < rows; i++) {
        const own = row + i;
        for (let j = 0; j < columns; j++) {
          const other = column + j;
          if (other === own) continue;
          insert(distances, neighbours, own * k, k, norms[own] + norms[other] - 2 * tile[i * columns + j], other);
        }
      }
    }
  }
  return neighbours;
}

/** Puts an entry into its place in the ascending run at..at+k-1 if it is below the last; rows come in ascending order. */
function insert(distances: Float64Array, rows: Int32Array, at: number, k: number, distance: number, row: number): void {
  let place = at + k - 1;
  if (!(distance < distances[place])) return;
  while (place > at && distances[place - 1] > distance) {
    distances[place] = distances[place - 1];
    rows[place] = rows[place - 1];
    place--;
  }
  distances[place] = distance;
  rows[place] = row;
}
