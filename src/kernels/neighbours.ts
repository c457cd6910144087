import { kernelThreads, nativeKernels } from './native.js';
import { countReference, nearestReference } from './neighbours-reference.js';

/** Points `[rows, columns]`, row-major, finite. */
export interface Points {
  readonly data: Float64Array;
  readonly rows: number;
  readonly columns: number;
}

export interface NeighbourOptions {
  readonly threads?: number;
}

export interface NearestNeighbours {
  /** Maximum-norm distance to the k-th nearest other point, [rows]. */
  readonly distances: Float64Array;
  /** The k nearest other points, nearest first, equal distances by index, [rows * k]; any of those at distance 0. */
  readonly neighbours?: Int32Array;
}

function checkPoints({ data, rows, columns }: Points): void {
  if (columns < 1 || data.length !== rows * columns) {
    throw new RangeError(`${data.length} coordinates are not ${rows} points of ${columns}`);
  }
}

/**
 * The k-th nearest other point of every point in the maximum norm: a k-d tree up to 12 dimensions, all pairs in tiles
 * above. The same bits for any number of threads.
 * @param withNeighbours also which points they are
 * @throws RangeError unless 1 <= k < rows
 */
export function nearestNeighbours(
  points: Points,
  k: number,
  options: NeighbourOptions & { readonly withNeighbours?: boolean } = {},
): NearestNeighbours {
  checkPoints(points);
  const { data, rows, columns } = points;
  if (!(Number.isInteger(k) && k >= 1 && k < rows)) throw new RangeError(`${k} neighbours among ${rows} points`);
  const distances = new Float64Array(rows);
  const neighbours = options.withNeighbours ? new Int32Array(rows * k) : undefined;
  const native = nativeKernels();
  if (native === undefined) nearestReference(points, k, distances, neighbours);
  else {
    const threads = kernelThreads(options.threads);
    native.nearestNeighbours(data, rows, columns, k, distances, neighbours ?? null, threads);
  }
  return { distances, ...(neighbours && { neighbours }) };
}

/**
 * Number of other points nearer than `radii[i]` (`strict`), or at most that far, for every point i in the maximum norm,
 * [rows]. One dimension by sorting and binary search.
 */
export function countWithin(
  points: Points,
  radii: Float64Array,
  options: NeighbourOptions & { readonly strict: boolean },
): Int32Array {
  checkPoints(points);
  const { data, rows, columns } = points;
  if (radii.length !== rows) throw new RangeError(`${radii.length} radii for ${rows} points`);
  const counts = new Int32Array(rows);
  const native = nativeKernels();
  if (native === undefined) countReference(points, radii, options.strict, counts);
  else {
    native.countWithin(data, rows, columns, radii, options.strict ? 1 : 0, counts, kernelThreads(options.threads));
  }
  return counts;
}
