import { eachBlock, type FeatureMatrix } from '../formats/feature-matrix.js';
import { type Standardisation, VARIANCE_FLOOR } from '../linalg/linear-probe.js';
import type { Design } from '../linalg/multinomial-newton.js';

/** Means and scales of the training rows of one member, and how many of its features never change. */
export interface MemberScale extends Standardisation {
  readonly constantFeatures: number;
}

/** Rows of one member, read by ranges. */
export interface MemberRows {
  readonly rows: number;
  readonly columns: number;
  /** Rows start..start+count-1 `[count, columns]`; valid until the next call. */
  read(start: number, count: number): Float64Array;
}

const SCAN_ROWS = 1024;

/**
 * Reads all rows once for values that are not finite, and their means and variances over `wanted` (all rows without it).
 * @throws InputError with the number of such rows, the first and its column
 */
export async function scanMember(matrix: FeatureMatrix, wanted?: Int32Array): Promise<MemberScale> {
  const { rows, columns } = matrix;
  const used = new Uint8Array(rows).fill(wanted ? 0 : 1);
  wanted?.forEach((row) => {
    used[row] = 1;
  });
  const count = wanted?.length ?? rows;
  const mean = new Float64Array(columns);
  const low = new Float64Array(columns).fill(Number.POSITIVE_INFINITY);
  const high = new Float64Array(columns).fill(Number.NEGATIVE_INFINITY);
  await eachBlock(matrix, SCAN_ROWS, 'f64', (block, start, size) => {
    for (let r = 0; r < size; r++) {
      if (used[start + r] === 0) continue;
      for (let j = 0; j < columns; j++) {
        const value = block[r * columns + j];
        mean[j] += value;
        if (value < low[j]) low[j] = value;
        if (value > high[j]) high[j] = value;
      }
    }
  });
  let constantFeatures = 0;
  for (let j = 0; j < columns; j++) {
    const constant = low[j] === high[j];
    if (constant) constantFeatures++;
    mean[j] = constant ? low[j] : mean[j] / count;
  }
  const variance = new Float64Array(columns);
  await eachBlock(matrix, SCAN_ROWS, 'f64', (block, start, size) => {
    for (let r = 0; r < size; r++) {
      if (used[start + r] === 0) continue;
      for (let j = 0; j < columns; j++) variance[j] += (block[r * columns + j] - mean[j]) ** 2;
    }
  });
  for (let j = 0; j < columns; j++) variance[j] /= count;
  return { mean, variance, scale: variance.map((v) => Math.sqrt(v + VARIANCE_FLOOR)), constantFeatures };
}

/**
 * Rows of a matrix, all or those of `wanted` (ascending), standardised when a scale is given.
 * @param hold keep them in memory; otherwise every call reads the file
 */
export function memberRows(
  matrix: FeatureMatrix,
  wanted: Int32Array | undefined,
  scale: MemberScale | undefined,
  hold: boolean,
): MemberRows {
  const { columns } = matrix;
  const rows = wanted?.length ?? matrix.rows;
  let buffer = new Float64Array(0);
  const load = (start: number, count: number, target: Float64Array): void => {
    if (count === 0) return;
    if (wanted === undefined) {
      matrix.readRows(start, count, target);
    } else {
      // The wanted rows lie close together: their whole span is read, and the others are dropped.
      const first = wanted[start];
      const span = wanted[start + count - 1] - first + 1;
      if (buffer.length < span * columns) buffer = new Float64Array(span * columns);
      matrix.readRows(first, span, buffer.subarray(0, span * columns));
      for (let r = 0; r < count; r++) {
        const at = (wanted[start + r] - first) * columns;
        target.set(buffer.subarray(at, at + columns), r * columns);
      }
    }
    if (scale === undefined) return;
    for (let r = 0; r < count; r++) {
      for (let j = 0; j < columns; j++) {
        target[r * columns + j] = (target[r * columns + j] - scale.mean[j]) / scale.scale[j];
      }
    }
  };
  if (hold) {
    const data = new Float64Array(rows * columns);
    for (let start = 0; start < rows; start += SCAN_ROWS) {
      const count = Math.min(SCAN_ROWS, rows - start);
      load(start, count, data.subarray(start * columns, (start + count) * columns));
    }
    buffer = new Float64Array(0);
    return { rows, columns, read: (start, count) => data.subarray(start * columns, (start + count) * columns) };
  }
  let block = new Float64Array(0);
  return {
    rows,
    columns,
    read(start, count) {
      if (block.length < count * columns) block = new Float64Array(count * columns);
      const target = block.subarray(0, count * columns);
      load(start, count, target);
      return target;
    },
  };
}

/** Members side by side, as the features of one fit. They are never joined beyond a block of rows. */
export function designOf(members: readonly MemberRows[]): Design {
  return {
    rows: members[0].rows,
    widths: members.map(({ columns }) => columns),
    part: (index, start, count) => members[index].read(start, count),
  };
}
