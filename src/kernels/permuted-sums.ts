import { kernelThreads, nativeKernels } from './native.js';

type Reals = Float32Array | Float64Array;

/** Partial sums that run beside each other: entry j belongs to lane j mod 8. */
const LANES = 8;

/** A row-major matrix whose rows and columns are taken in another order. */
export interface PermutedMatrix {
  readonly rows: number;
  readonly columns: number;
  /** Row, and column, of the operand for every one of the result; default as they lie. */
  readonly rowOrder?: Int32Array;
  readonly columnOrder?: Int32Array;
}

/** @throws RangeError when an array or an order does not fit the matrix */
function checkFits(matrix: PermutedMatrix, arrays: readonly Reals[]): void {
  const { rows, columns, rowOrder, columnOrder } = matrix;
  for (const { length } of arrays) {
    if (length !== rows * columns) throw new RangeError(`${length} entries are no [${rows}, ${columns}] matrix`);
  }
  for (const [order, size] of [
    [rowOrder, rows],
    [columnOrder, columns],
  ] as const) {
    if (order === undefined) continue;
    if (order.length !== size) throw new RangeError(`an order of ${order.length}, not ${size}`);
    for (const place of order)
      if (place < 0 || place >= size) throw new RangeError(`an order of ${size} holds ${place}`);
  }
}

/**
 * sum[i, j] += weight * x[rowOrder[i], columnOrder[j]], product and sum rounded one after the other.
 * @param options overwrite: = in place of +=, which also forgets what the sum held
 * @throws RangeError when an array or an order does not fit the matrix
 */
export function addWeighted(
  sum: Float64Array,
  x: Reals,
  matrix: PermutedMatrix,
  weight: number,
  options: { readonly overwrite?: boolean; readonly threads?: number } = {},
): void {
  checkFits(matrix, [sum, x]);
  const { rows, columns, rowOrder, columnOrder } = matrix;
  const { overwrite = false, threads } = options;
  const native = nativeKernels();
  if (native !== undefined) {
    const [down, across] = [rowOrder ?? null, columnOrder ?? null];
    native.addWeighted(sum, x, rows, columns, down, across, weight, overwrite ? 1 : 0, kernelThreads(threads));
    return;
  }
  for (let i = 0; i < rows; i++) {
    const from = (rowOrder === undefined ? i : rowOrder[i]) * columns;
    const to = i * columns;
    for (let j = 0; j < columns; j++) {
      const term = weight * x[from + (columnOrder === undefined ? j : columnOrder[j])];
      sum[to + j] = overwrite ? term : sum[to + j] + term;
    }
  }
}

/**
 * target = sum / divisor, rounded to the target's precision.
 * @returns target
 * @throws RangeError when the lengths differ
 */
export function divideSum<T extends Reals>(sum: Float64Array, divisor: number, target: T, threads?: number): T {
  if (sum.length !== target.length) throw new RangeError(`${sum.length} sums and ${target.length} places`);
  const native = nativeKernels();
  if (native !== undefined) native.divideSum(sum, divisor, target, kernelThreads(threads));
  else for (let i = 0; i < sum.length; i++) target[i] = sum[i] / divisor;
  return target;
}

/**
 * Squared distance of a and the permuted b, sum over all entries of (a[i, j] - b[rowOrder[i], columnOrder[j]])^2, in double
 * and the same bits whatever the number of threads. Both are of one precision.
 * @throws RangeError when an array or an order does not fit the matrix
 */
export function squaredDistance<T extends Reals>(a: T, b: T, matrix: PermutedMatrix, threads?: number): number {
  checkFits(matrix, [a, b]);
  const { rows, columns, rowOrder, columnOrder } = matrix;
  const distances = new Float64Array(rows);
  const native = nativeKernels();
  if (native !== undefined) {
    const [down, across] = [rowOrder ?? null, columnOrder ?? null];
    native.squaredRowDistances(a, b, rows, columns, down, across, distances, kernelThreads(threads));
  } else {
    const lanes = new Float64Array(LANES);
    for (let i = 0; i < rows; i++) {
      const from = (rowOrder === undefined ? i : rowOrder[i]) * columns;
      lanes.fill(0);
      for (let j = 0; j < columns; j++) {
        const difference = a[i * columns + j] - b[from + (columnOrder === undefined ? j : columnOrder[j])];
        lanes[j % LANES] += difference * difference;
      }
      distances[i] = lanes[0] + lanes[4] + (lanes[2] + lanes[6]) + (lanes[1] + lanes[5] + (lanes[3] + lanes[7]));
    }
  }
  let total = 0;
  for (const distance of distances) total += distance;
  return total;
}
