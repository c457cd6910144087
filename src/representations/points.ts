import { eachBlock, type FeatureMatrix, type Floats, loadMatrix } from '../formats/feature-matrix.js';
import { columnMeans } from '../linalg/gram.js';
import type { TiledProducts } from '../linalg/tiled-products.js';
import { createRandom } from '../random.js';

/** Points `[n, d]`, row-major, in memory. */
export interface PointCloud {
  readonly data: Floats;
  readonly n: number;
  readonly d: number;
}

/** What a matrix of features was found to hold. */
export interface LoadedPoints {
  readonly points: PointCloud;
  /** Rows that were taken where there are more than wanted, ascending; null for all. */
  readonly indices: Int32Array | null;
  /** Columns that hold one value in all rows of the file. */
  readonly constantColumns: number;
  /** Rows, among those taken, that equal an earlier one. */
  readonly duplicates: number;
}

const SUBSAMPLE_STREAM = 0x73_73;

/** Seeded rows, ascending, when there are more than `most`; null when all are taken. */
export function subsampleRows(rows: number, most: number, seed: number): Int32Array | null {
  if (rows <= most) return null;
  return createRandom(seed).fork(SUBSAMPLE_STREAM).permutation(rows).slice(0, most).sort();
}

const SCAN_ROWS = 4096;

/**
 * Reads all rows once, for faults and constant columns, and keeps those that are wanted.
 * @param most rows that are kept; a seeded subsample of more
 * @param precision f64, or f32 to hold large samples of narrow types in half the memory
 * @throws InputError when any row holds NaN or an infinite value, with their number and the first
 */
export async function loadPoints(
  matrix: FeatureMatrix,
  most: number,
  seed: number,
  precision: 'f32' | 'f64',
): Promise<LoadedPoints> {
  const { rows, columns: d } = matrix;
  const indices = subsampleRows(rows, most, seed);
  const n = indices?.length ?? rows;
  const data = precision === 'f32' ? new Float32Array(n * d) : new Float64Array(n * d);
  const first = new Float64Array(d);
  const varies = new Uint8Array(d);
  let kept = 0;
  await eachBlock(matrix, SCAN_ROWS, precision, (block: Floats, start, count) => {
    if (start === 0) first.set(block.subarray(0, d));
    for (let r = 0; r < count; r++) {
      for (let j = 0; j < d; j++) if (block[r * d + j] !== first[j]) varies[j] = 1;
      if (indices !== null && indices[kept] !== start + r) continue;
      data.set(block.subarray(r * d, (r + 1) * d), kept * d);
      kept++;
    }
  });
  const points = { data, n, d };
  const constantColumns = varies.reduce((sum, varying) => sum + (varying ? 0 : 1), 0);
  return { points, indices, constantColumns, duplicates: duplicateRows(points) };
}

/** All rows of a matrix, unless `indices` says which. f64. */
export function pointsOf(matrix: FeatureMatrix, indices?: Int32Array): PointCloud {
  return { data: loadMatrix(matrix, indices), n: indices?.length ?? matrix.rows, d: matrix.columns };
}

/** Some rows of a cloud, in its precision. */
export function takePoints({ data, d }: PointCloud, rows: Int32Array): PointCloud {
  const size = rows.length * d;
  const taken = data instanceof Float32Array ? new Float32Array(size) : new Float64Array(size);
  rows.forEach((row, i) => {
    taken.set(data.subarray(row * d, (row + 1) * d), i * d);
  });
  return { data: taken, n: rows.length, d };
}

/** The cloud's data as f64, copied only where it is narrower. */
export function doubles({ data }: PointCloud): Float64Array {
  return data instanceof Float64Array ? data : Float64Array.from(data);
}

/** Points `[n, d]` minus their mean, f64. */
export function centredPoints(data: Floats, n: number, d: number): Float64Array {
  const means = columnMeans(data, n, d);
  const centred = new Float64Array(n * d);
  for (let i = 0; i < n; i++) for (let j = 0; j < d; j++) centred[i * d + j] = data[i * d + j] - means[j];
  return centred;
}

/** Number of rows that equal an earlier one, entry by entry. */
export function duplicateRows({ data, n, d }: PointCloud): number {
  const scratch = new Float64Array(1);
  const words = new Uint32Array(scratch.buffer);
  const byHash = new Map<number, number[]>();
  const equal = (a: number, b: number): boolean => {
    for (let j = 0; j < d; j++) if (data[a * d + j] !== data[b * d + j]) return false;
    return true;
  };
  let duplicates = 0;
  for (let r = 0; r < n; r++) {
    let hash = 0x811c9dc5;
    for (let j = 0; j < d; j++) {
      // Adding 0 makes the two zeros one.
      scratch[0] = data[r * d + j] + 0;
      hash = Math.imul(hash ^ words[0], 0x01000193);
      hash = Math.imul(hash ^ words[1], 0x01000193);
    }
    const same = byHash.get(hash);
    if (same === undefined) byHash.set(hash, [r]);
    else if (same.some((other) => equal(other, r))) duplicates++;
    else same.push(r);
  }
  return duplicates;
}

/** Squared distances `[m, n]` between some rows of a cloud and all of them; a row has the distance 0 to itself. */
export async function distancesToAll(
  cloud: PointCloud,
  rows: Int32Array,
  products: TiledProducts,
): Promise<Float64Array> {
  const { n, d } = cloud;
  const centred = centredPoints(cloud.data, n, d);
  const own = takePoints({ data: centred, n, d }, rows);
  const norms = new Float64Array(n);
  for (let i = 0; i < n; i++) for (let j = 0; j < d; j++) norms[i] += centred[i * d + j] ** 2;
  const squared = await products.product(own.data as Float64Array, rows.length, centred, n, d);
  rows.forEach((row, i) => {
    for (let j = 0; j < n; j++) squared[i * n + j] = Math.max(0, norms[row] + norms[j] - 2 * squared[i * n + j]);
    squared[i * n + row] = 0;
  });
  return squared;
}
