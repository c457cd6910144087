import { InputError } from '../errors.js';
import { eachBlock, type FeatureMatrix, type Floats } from '../formats/feature-matrix.js';
import { TILE, type TiledProducts } from './tiled-products.js';

/** Rows of a block of a streamed reduction: fixed, so that bits do not depend on a memory limit. */
const BLOCK_ROWS = 1024;
/** Columns of a panel of a second moment. */
const PANEL = 512;
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

export interface MomentOptions {
  /** Divide every row by its length first. */
  readonly normalise?: boolean;
  /** Weights of the rows `[n]`; 1/n each when absent. */
  readonly weights?: Float64Array;
  /** Subtract the (weighted) mean row. Not together with `normalise`. */
  readonly centre?: boolean;
  /** Arithmetic of the products within a block; blocks are added in f64. Default f64. */
  readonly precision?: 'f32' | 'f64';
  readonly products: TiledProducts;
  /** Called with the rows that are done. */
  readonly onRows?: (rows: number) => void;
}

/**
 * Second moment `Σ p_i x_i x_iᵀ` `[d, d]` of the rows, in one streamed pass (two with `centre`) that holds `[d, d]` and
 * a block of rows. Its non-zero eigenvalues are those of the matrix `√(p_i p_j) x_iᵀx_j`.
 * @throws InputError for a row of length zero under `normalise`, and for rows that are not finite
 */
export async function secondMoment(matrix: FeatureMatrix, options: MomentOptions): Promise<Float64Array> {
  const { rows, columns } = matrix;
  const { weights, normalise = false, centre = false, products, precision = 'f64', onRows } = options;
  if (weights !== undefined && weights.length !== rows)
    throw new RangeError(`${weights.length} weights for ${rows} rows`);
  if (normalise && centre) throw new RangeError('rows are either normalised or centred');
  const means = centre ? await weightedMeans(matrix, weights) : undefined;
  const sums = createMomentSums(columns, products);
  const scaled = precision === 'f32' ? new Float32Array(BLOCK_ROWS * columns) : new Float64Array(BLOCK_ROWS * columns);
  await eachBlock(matrix, BLOCK_ROWS, precision === 'f32' ? 'f32' : 'f64', async (block: Floats, start, count) => {
    for (let r = 0; r < count; r++) {
      const from = r * columns;
      let factor = weights === undefined ? 1 : Math.sqrt(weights[start + r]);
      if (normalise) factor /= rowLength(block, from, columns, matrix, start + r);
      for (let j = 0; j < columns; j++) scaled[from + j] = (block[from + j] - (means?.[j] ?? 0)) * factor;
    }
    await sums.add(scaled, count);
    onRows?.(start + count);
  });
  return sums.finish(weights === undefined ? 1 / rows : 1);
}

function rowLength(block: Floats, from: number, columns: number, matrix: FeatureMatrix, row: number): number {
  let squares = 0;
  for (let j = from; j < from + columns; j++) squares += block[j] * block[j];
  if (squares > 0) return Math.sqrt(squares);
  throw new InputError(
    `${matrix.name}: row ${row} is all zeros and has no direction to compare; drop it or use a kernel of distances`,
  );
}

async function weightedMeans(matrix: FeatureMatrix, weights: Float64Array | undefined): Promise<Float64Array> {
  const { columns } = matrix;
  const means = new Float64Array(columns);
  let total = 0;
  await eachBlock(matrix, BLOCK_ROWS, 'f64', (block: Float64Array, start, count) => {
    for (let r = 0; r < count; r++) {
      const weight = weights?.[start + r] ?? 1;
      total += weight;
      for (let j = 0; j < columns; j++) means[j] += weight * block[r * columns + j];
    }
  });
  for (let j = 0; j < columns; j++) means[j] /= total;
  return means;
}

/** Adds up `Σ x xᵀ` over blocks of rows: products within a block, f64 between blocks. */
export interface MomentSums {
  /** Adds the first `count` rows of `block` `[count, d]`, at most 1,024 for f32. */
  add(block: Floats, count: number): Promise<void>;
  /** The sum times `factor`, `[d, d]`, exactly symmetric. */
  finish(factor: number): Float64Array;
}

export function createMomentSums(d: number, products: TiledProducts): MomentSums {
  const sum = new Float64Array(d * d);
  return {
    async add(block, count) {
      for (let row = 0; row < d; row += PANEL) {
        const height = Math.min(PANEL, d - row);
        const a = panelOf(block, count, d, row, height);
        for (let column = 0; column <= row; column += PANEL) {
          const width = Math.min(PANEL, d - column);
          const b = column === row ? a : panelOf(block, count, d, column, width);
          const tile = await products.multiply('tn', a, b, { m: height, n: width, k: count });
          for (let i = 0; i < height; i++) {
            const to = (row + i) * d + column;
            for (let j = 0; j < width; j++) sum[to + j] += tile[i * width + j];
          }
        }
      }
    },
    finish(factor) {
      for (let i = 0; i < d; i++) {
        for (let j = 0; j <= i; j++) {
          const value = sum[i * d + j] * factor;
          sum[i * d + j] = value;
          sum[j * d + i] = value;
        }
      }
      return sum;
    },
  };
}

/** Columns first..first+width-1 of the rows, `[count, width]`. */
function panelOf(block: Floats, count: number, d: number, first: number, width: number): Floats {
  if (width === d) return block.subarray(0, count * d);
  const panel = block instanceof Float32Array ? new Float32Array(count * width) : new Float64Array(count * width);
  for (let r = 0; r < count; r++) panel.set(block.subarray(r * d + first, r * d + first + width), r * width);
  return panel;
}
