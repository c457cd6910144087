import type { Floats } from '../formats/feature-matrix.js';
import { addColumnSums, addRowSums, gaussianTile } from '../kernels/kernel-tiles.js';
import { columnMeans } from './gram.js';
import { TILE, type TiledProducts } from './tiled-products.js';

/** Points `[n, d]`, row-major. */
export interface Points {
  readonly data: Floats;
  readonly n: number;
  readonly d: number;
}

export interface TileOptions {
  readonly products: TiledProducts;
  /** Arithmetic of the tiles; sums over tiles are in f64. Default f64. */
  readonly precision?: 'f32' | 'f64';
  /** Called after every row of tiles with the share of the pass that is done. */
  readonly onProgress?: (share: number) => void;
}

/** Points about their mean in units of σ, and half their squared norms: |x_i - x_j|²/2σ² = h_i + h_j - x_i·x_j. */
export interface ScaledPoints<T extends Floats = Floats> {
  readonly data: T;
  readonly halfNorms: T;
  readonly n: number;
  readonly d: number;
}

const copyOf = <T extends Floats>(like: T, length: number): T =>
  (like instanceof Float32Array ? new Float32Array(length) : new Float64Array(length)) as T;

/**
 * Centres the points, which changes no distance and keeps the digits of near ones, and divides them by `sigma`. Norms
 * are those of the rounded coordinates, so that f32 loses only what the products lose.
 */
export function scalePoints(points: Points, sigma: number, precision: 'f32' | 'f64' = 'f64'): ScaledPoints {
  const { data: x, n, d } = points;
  const means = columnMeans(x, n, d);
  const data = precision === 'f32' ? new Float32Array(n * d) : new Float64Array(n * d);
  const halfNorms = copyOf<Floats>(data, n);
  for (let i = 0; i < n; i++) {
    let squares = 0;
    for (let j = 0; j < d; j++) {
      const at = i * d + j;
      data[at] = (x[at] - means[j]) / sigma;
      squares += data[at] * data[at];
    }
    halfNorms[i] = squares / 2;
  }
  return { data, halfNorms, n, d };
}

/** A tile of the kernel: rows row..row+rows-1, columns column..column+columns-1, column <= row. */
export interface GaussianTile {
  readonly data: Floats;
  readonly row: number;
  readonly rows: number;
  readonly column: number;
  readonly columns: number;
}

export interface GaussianPass extends TileOptions {
  /** The q-th power of the kernel, entry by entry. Default 1. */
  readonly power?: number;
  /** `[n]`: grows by the sums of the tiles' own rows. */
  readonly rowSums?: Float64Array;
}

/**
 * Visits the tiles of the lower triangle of `exp(-|x_i - x_j|²/2σ²)`, whose diagonal is exactly 1; the tile's memory is
 * used anew. Holds one tile.
 */
export async function eachGaussianTile(
  points: ScaledPoints,
  pass: GaussianPass,
  visit: (tile: GaussianTile) => Promise<void> | void,
): Promise<void> {
  const { data, halfNorms, n, d } = points;
  const { products, power = 1, rowSums, onProgress } = pass;
  const side = Math.min(TILE, n);
  const tile = copyOf(data, side * side);
  const { threads } = products;
  for (let row = 0; row < n; row += TILE) {
    const rows = Math.min(TILE, n - row);
    const left = data.subarray(row * d, (row + rows) * d);
    const leftNorms = halfNorms.subarray(row, row + rows);
    const sums = rowSums?.subarray(row, row + rows);
    for (let column = 0; column <= row; column += TILE) {
      const columns = Math.min(TILE, n - column);
      await products.product(left, rows, data.subarray(column * d, (column + columns) * d), columns, d, tile);
      const norms = halfNorms.subarray(column, column + columns);
      gaussianTile({ data: tile, rows, columns }, leftNorms, norms, power, { ...(sums && { sums }), threads });
      if (column === row) {
        for (let i = 0; i < rows; i++) {
          if (sums) sums[i] += 1 - tile[i * columns + i];
          tile[i * columns + i] = 1;
        }
      }
      await visit({ data: tile, row, rows, column, columns });
    }
    onProgress?.(((row + rows) / n) ** 2);
  }
}

/** Degrees `Σ_j exp(-|x_i - x_j|²/2σ²)` `[n]`, the point itself counted; one pass over the tiles. */
export async function gaussianDegrees(points: ScaledPoints, options: TileOptions): Promise<Float64Array> {
  const degrees = new Float64Array(points.n);
  const { threads } = options.products;
  await eachGaussianTile(points, { ...options, rowSums: degrees }, (tile) => {
    const { row, column, columns } = tile;
    if (column !== row) addColumnSums(tile, degrees.subarray(column, column + columns), { threads });
  });
  return degrees;
}

/**
 * `Σ_ij w_i w_j K_ij^power` of the Gaussian kernel for weights `[n]`, one pass over the tiles. With w = 1/n and power 2
 * it is the squared Frobenius norm of K/n, the inverse of the Rényi kernel entropy score of order 2.
 */
export async function gaussianPowerSum(
  points: ScaledPoints,
  weights: Float64Array,
  power: number,
  options: TileOptions,
): Promise<number> {
  const { threads } = options.products;
  const sums = new Float64Array(points.n);
  await eachGaussianTile(points, { ...options, power }, (tile) => {
    const { row, rows, column, columns } = tile;
    // Both triangles at once: half of a tile on the diagonal, all of one below it.
    const factor = row === column ? 1 : 2;
    const columnWeights = weights.subarray(column, column + columns).map((weight) => factor * weight);
    addRowSums(tile, sums.subarray(row, row + rows), { weights: columnWeights, threads });
  });
  let total = 0;
  for (let i = 0; i < points.n; i++) total += weights[i] * sums[i];
  return total;
}
