import { kernelThreads, nativeKernels } from './native.js';

/** Partial sums of a row that run beside each other: entry j belongs to lane j mod 8. */
const LANES = 8;

/** Figures of each row, and of each group of columns in it. */
export interface RowMoments {
  /** [rows, 6]: finite entries, largest magnitude, and sums of first to fourth powers of the finite entries. */
  readonly moments: Float64Array;
  /** [rows, groups]: sums of squares of the finite entries of each group; the last group may be shorter. */
  readonly energies: Float64Array;
}

/** Adds lanes in a fixed tree. */
function reduceLanes(lanes: Float64Array): number {
  return lanes[0] + lanes[4] + (lanes[2] + lanes[6]) + (lanes[1] + lanes[5] + (lanes[3] + lanes[7]));
}

function groupEnergy(group: Float32Array | Float64Array, lanes: Float64Array): number {
  lanes.fill(0);
  for (let j = 0; j < group.length; j++) {
    const x = Number.isFinite(group[j]) ? group[j] : 0;
    lanes[j % LANES] += x * x;
  }
  return reduceLanes(lanes);
}

function momentsOf(row: Float32Array | Float64Array, lanes: readonly Float64Array[], into: Float64Array): void {
  for (const lane of lanes) lane.fill(0);
  let count = 0;
  let largest = 0;
  for (let j = 0; j < row.length; j++) {
    const finite = Number.isFinite(row[j]);
    const x = finite ? row[j] : 0;
    const square = x * x;
    const lane = j % LANES;
    if (finite) count++;
    largest = Math.max(largest, Math.abs(x));
    lanes[0][lane] += x;
    lanes[1][lane] += square;
    lanes[2][lane] += square * x;
    lanes[3][lane] += square * square;
  }
  into[0] = count;
  into[1] = largest;
  for (let p = 0; p < 4; p++) into[2 + p] = reduceLanes(lanes[p]);
}

/**
 * Power sums of every row of x [rows, columns] and energies of its groups of `groupLength` columns, in double. The same
 * bits whatever the number of threads and the instruction set.
 * @throws RangeError when x does not hold [rows, columns], or groups have no length
 */
export function rowMoments(
  x: Float32Array | Float64Array,
  rows: number,
  columns: number,
  groupLength: number,
  threads?: number,
): RowMoments {
  if (![rows, columns].every((size) => Number.isInteger(size) && size >= 0) || x.length !== rows * columns) {
    throw new RangeError(`${x.length} entries are no ${rows} rows of ${columns}`);
  }
  if (!Number.isInteger(groupLength) || groupLength < 1) throw new RangeError(`no group has ${groupLength} columns`);
  const groups = Math.ceil(columns / groupLength);
  const moments = new Float64Array(rows * 6);
  const energies = new Float64Array(rows * groups);
  const native = nativeKernels();
  if (native !== undefined) {
    native.rowMoments(x, rows, columns, groupLength, moments, energies, kernelThreads(threads));
    return { moments, energies };
  }
  const lanes = Array.from({ length: 4 }, () => new Float64Array(LANES));
  for (let r = 0; r < rows; r++) {
    const row = x.subarray(r * columns, (r + 1) * columns);
    momentsOf(row, lanes, moments.subarray(6 * r, 6 * (r + 1)));
    for (let g = 0; g < groups; g++) {
      const group = row.subarray(g * groupLength, (g + 1) * groupLength);
      energies[r * groups + g] = groupEnergy(group, lanes[0]);
    }
  }
  return { moments, energies };
}
