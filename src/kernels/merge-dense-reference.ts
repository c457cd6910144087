import { DTYPE_BYTES } from '../formats/tensor.js';
import { computeRounding, loadElements, type MergeElementType, storeElements } from './merge-elements-reference.js';

/** Stored elements of one type: little-endian, any alignment. */
export interface StoredElements {
  readonly dtype: MergeElementType;
  readonly bytes: Uint8Array;
}

/**
 * Which elements go together: all, those of a row, or those of a column of a row-major [rows, columns] matrix. The
 * number of groups is 1, rows or columns.
 */
export interface ElementGroups {
  readonly rows: number;
  readonly columns: number;
  readonly along: 'all' | 'rows' | 'columns';
}

export function groupCount(groups: ElementGroups): number {
  return groups.along === 'all' ? 1 : groups.along === 'rows' ? groups.rows : groups.columns;
}

/** Elements of a block of a sum, and the sums of a block that run beside each other. */
export const GRAM_BLOCK = 1 << 14;
const LANES = 8;
const CHUNK = 1024;
/** Distances of nearswap count as no less. */
const LEAST_DISTANCE = 1e-6;

/** Chunks of every input as f64; with `relative` those after the first minus the first, rounded as task vectors are. */
function chunkReader(
  inputs: readonly StoredElements[],
  relative: boolean,
): (from: number, count: number) => readonly Float64Array[] {
  const round = computeRounding(inputs.map((input) => input.dtype));
  const chunks = inputs.map(() => new Float64Array(CHUNK));
  return (from, count) => {
    inputs.forEach((input, i) => {
      const x = chunks[i];
      loadElements(input.bytes, input.dtype, from, count, x);
      if (!relative || i === 0) return;
      for (let k = 0; k < count; k++) x[k] = round(x[k] - chunks[0][k]);
    });
    return chunks;
  };
}

/** `combineElements` in plain TypeScript: the same bits. */
export function combineElementsReference(
  inputs: readonly StoredElements[],
  coefficients: Float64Array,
  output: StoredElements,
  groups: ElementGroups,
  relative: boolean,
): void {
  const { rows, columns, along } = groups;
  const read = chunkReader(inputs, relative);
  const sum = new Float64Array(CHUNK);
  const stride = groupCount(groups);
  const total = rows * columns;
  for (let from = 0; from < total; from += CHUNK) {
    const count = Math.min(CHUNK, total - from);
    read(from, count).forEach((x, i) => {
      for (let k = 0; k < count; k++) {
        const group = along === 'all' ? 0 : along === 'rows' ? Math.floor((from + k) / columns) : (from + k) % columns;
        const term = coefficients[i * stride + group] * x[k];
        sum[k] = i === 0 ? term : sum[k] + term;
      }
    });
    storeElements(sum, output.dtype, from, count, output.bytes);
  }
}

/** Number of different pairs of `vectors` vectors, each with itself among them. */
export function pairCount(vectors: number): number {
  return (vectors * (vectors + 1)) / 2;
}

/** Dot products of one block, eight sums beside each other that are added in halves. */
function gramOfBlock(
  read: (from: number, count: number) => readonly Float64Array[],
  relative: boolean,
  begin: number,
  end: number,
  target: Float64Array,
): void {
  const lanes = new Float64Array(LANES * target.length);
  for (let from = begin; from < end; from += CHUNK) {
    const count = Math.min(CHUNK, end - from);
    const x = read(from, count).slice(relative ? 1 : 0);
    let pair = 0;
    for (let i = 0; i < x.length; i++) {
      for (let j = i; j < x.length; j++, pair++) {
        for (let k = 0; k < count; k++) lanes[LANES * pair + (k % LANES)] += x[i][k] * x[j][k];
      }
    }
  }
  for (let pair = 0; pair < target.length; pair++) {
    const of = lanes.subarray(LANES * pair, LANES * (pair + 1));
    for (let width = LANES / 2; width >= 1; width /= 2) {
      for (let lane = 0; lane < width; lane++) of[lane] += of[lane + width];
    }
    target[pair] = of[0];
  }
}

/** Reads sum over i of c_i x_i in place of the vectors x; the base of relative ones stays in front. */
function combinedReader(
  read: (from: number, count: number) => readonly Float64Array[],
  relative: boolean,
  combination: Float64Array,
): (from: number, count: number) => readonly Float64Array[] {
  const sum = new Float64Array(CHUNK);
  const first = relative ? 1 : 0;
  return (from, count) => {
    const x = read(from, count);
    for (let k = 0; k < count; k++) {
      let total = combination[0] * x[first][k];
      for (let i = 1; i < combination.length; i++) total += combination[i] * x[first + i][k];
      sum[k] = total;
    }
    return relative ? [x[0], sum] : [sum];
  };
}

/**
 * Dot products of blocks [groups, blocks of a group, pairs]; a group is everything or a row. With a combination: the
 * square of that one vector.
 */
export function gramBlocksReference(
  inputs: readonly StoredElements[],
  groups: number,
  length: number,
  relative: boolean,
  combination: Float64Array | undefined,
  target: Float64Array,
): void {
  const plain = chunkReader(inputs, relative);
  const read = combination === undefined ? plain : combinedReader(plain, relative, combination);
  const pairs = combination === undefined ? pairCount(inputs.length - (relative ? 1 : 0)) : 1;
  const blocks = Math.ceil(length / GRAM_BLOCK);
  for (let group = 0; group < groups; group++) {
    for (let block = 0; block < blocks; block++) {
      const begin = group * length + block * GRAM_BLOCK;
      const end = Math.min(begin + GRAM_BLOCK, (group + 1) * length);
      const at = (group * blocks + block) * pairs;
      gramOfBlock(read, relative, begin, end, target.subarray(at, at + pairs));
    }
  }
}

/** Dot products of columns [columns, pairs], rows added one after the other. */
export function gramColumnsReference(
  inputs: readonly StoredElements[],
  rows: number,
  columns: number,
  relative: boolean,
  target: Float64Array,
): void {
  const read = chunkReader(inputs, relative);
  const pairs = pairCount(inputs.length - (relative ? 1 : 0));
  target.fill(0);
  for (let from = 0; from < rows * columns; from += CHUNK) {
    const count = Math.min(CHUNK, rows * columns - from);
    const x = read(from, count).slice(relative ? 1 : 0);
    let pair = 0;
    for (let i = 0; i < x.length; i++) {
      for (let j = i; j < x.length; j++, pair++) {
        for (let k = 0; k < count; k++) target[((from + k) % columns) * pairs + pair] += x[i][k] * x[j][k];
      }
    }
  }
}

/** `swapNear` in plain TypeScript: the same bits. */
export function swapNearReference(a: StoredElements, b: StoredElements, t: number, output: StoredElements): void {
  const round = computeRounding([a.dtype, b.dtype]);
  const read = chunkReader([a, b], false);
  const mixed = new Float64Array(CHUNK);
  const total = output.bytes.length / DTYPE_BYTES[output.dtype];
  for (let from = 0; from < total; from += CHUNK) {
    const count = Math.min(CHUNK, total - from);
    const [x, y] = read(from, count);
    for (let k = 0; k < count; k++) {
      const wanted = t / Math.max(Math.abs(round(x[k] - y[k])), LEAST_DISTANCE);
      const part = wanted > 0 ? Math.min(wanted, 1) : 0;
      mixed[k] = part * y[k] + (1 - part) * x[k];
    }
    storeElements(mixed, output.dtype, from, count, output.bytes);
  }
}
