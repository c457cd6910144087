import { InputError } from '../errors.js';
import { eachBlock, type FeatureMatrix, type Floats, fitsSingle, loadMatrix } from '../formats/feature-matrix.js';
import { symmetricRankK } from '../kernels/gemm.js';

const SCAN_ROWS = 1024;

/** What a first pass over the rows finds. */
export interface RowScan {
  /** Rows that equal an earlier one. */
  readonly duplicates: number;
}

/**
 * Reads all rows once: refuses NaN and infinite values, and rows of length 0 where rows will be divided by their length;
 * counts duplicates by a 53-bit hash of the bits.
 * @throws InputError with the number of bad rows and the first of them
 */
export async function scanRows(matrix: FeatureMatrix, needsLength: boolean): Promise<RowScan> {
  const hashes = new Float64Array(matrix.rows);
  let zeros = 0;
  let firstZero = -1;
  const precision = fitsSingle(matrix.dtype) ? 'f32' : 'f64';
  await eachBlock(matrix, SCAN_ROWS, precision, (block: Floats, start, count) => {
    // -0 equals 0, and so must its bits.
    for (let i = 0; i < block.length; i++) block[i] += 0;
    const words = new Int32Array(block.buffer, block.byteOffset, block.byteLength / 4);
    const { columns } = matrix;
    const width = words.length / count;
    for (let r = 0; r < count; r++) {
      hashes[start + r] = hashOf(words, r * width, width);
      if (needsLength && isZero(block, r * columns, columns)) {
        if (zeros++ === 0) firstZero = start + r;
      }
    }
  });
  if (zeros > 0) {
    throw new InputError(
      `${matrix.name}: row ${firstZero} is zero and cannot be divided by its length (${zeros} such rows); remove them, ` +
        'or use --kernel rbf',
    );
  }
  return { duplicates: countRepeats(hashes) };
}

function isZero(data: Floats, start: number, count: number): boolean {
  for (let i = start; i < start + count; i++) if (data[i] !== 0) return false;
  return true;
}

/** Two 32-bit hashes of the same words (MurmurHash3's mixing with two seeds) as one 53-bit number. */
function hashOf(words: Int32Array, start: number, count: number): number {
  let a = 0x2f0b4c47;
  let b = 0x51ed270b;
  for (let i = start; i < start + count; i++) {
    const word = Math.imul(words[i], 0xcc9e2d51);
    const turned = Math.imul((word << 15) | (word >>> 17), 0x1b873593);
    a ^= turned;
    a = (Math.imul((a << 13) | (a >>> 19), 5) + 0xe6546b64) | 0;
    b ^= words[i];
    b = Math.imul((b << 11) | (b >>> 21), 0x9e3779b1) | 0;
  }
  return (a >>> 0) * 2097152 + (b >>> 11);
}

function countRepeats(hashes: Float64Array): number {
  hashes.sort();
  let repeats = 0;
  for (let i = 1; i < hashes.length; i++) if (hashes[i] === hashes[i - 1]) repeats++;
  return repeats;
}

/** The rows divided by their Euclidean length. Rows must not be zero. */
export function unitRows(matrix: FeatureMatrix): FeatureMatrix {
  const { columns } = matrix;
  return {
    ...matrix,
    readRows(start, count, target) {
      matrix.readRows(start, count, target);
      for (let r = 0; r < count; r++) {
        const end = (r + 1) * columns;
        let squares = 0;
        for (let i = r * columns; i < end; i++) squares += target[i] * target[i];
        if (!(squares > 1e-250 && squares < 1e250)) squares = rescaleRow(target, r * columns, end);
        const length = Math.sqrt(squares);
        for (let i = r * columns; i < end; i++) target[i] /= length;
      }
    },
  };
}

/** Divides a row by its largest entry, where squares would vanish or overflow; gives the sum of its squares. */
function rescaleRow(row: Floats, start: number, end: number): number {
  let largest = 0;
  for (let i = start; i < end; i++) largest = Math.max(largest, Math.abs(row[i]));
  let squares = 0;
  for (let i = start; i < end; i++) {
    row[i] /= largest;
    squares += row[i] * row[i];
  }
  return squares;
}

/** Some rows of a matrix, in the order given. Neighbouring rows are read together. */
export function rowsOf(matrix: FeatureMatrix, rows: Int32Array): FeatureMatrix {
  const { columns } = matrix;
  return {
    ...matrix,
    rows: rows.length,
    readRows(start, count, target) {
      if (start < 0 || start + count > rows.length) throw new RangeError(`rows ${start}..${start + count}`);
      for (let at = 0; at < count; ) {
        let run = 1;
        while (at + run < count && rows[start + at + run] === rows[start + at] + run) run++;
        matrix.readRows(rows[start + at], run, target.subarray(at * columns, (at + run) * columns));
        at += run;
      }
    },
  };
}

/**
 * Matrices below each other.
 * @throws InputError when they have different numbers of columns
 */
export function stackedRows(matrices: readonly FeatureMatrix[]): FeatureMatrix {
  const [first] = matrices;
  for (const matrix of matrices) {
    if (matrix.columns !== first.columns) {
      throw new InputError(
        `${matrix.name}: has ${matrix.columns} columns, ${first.name} has ${first.columns}; sets that are compared ` +
          'need the same features',
      );
    }
  }
  const ends: number[] = [];
  for (const matrix of matrices) ends.push((ends[ends.length - 1] ?? 0) + matrix.rows);
  return {
    ...first,
    name: matrices.map(({ name }) => name).join(' + '),
    rows: ends[ends.length - 1],
    readRows(start, count, target) {
      let at = start;
      while (at < start + count) {
        const which = ends.findIndex((end) => at < end);
        if (which < 0) throw new RangeError(`row ${at} of ${ends[ends.length - 1]}`);
        const offset = which === 0 ? 0 : ends[which - 1];
        const taken = Math.min(start + count, ends[which]) - at;
        const place = (at - start) * first.columns;
        matrices[which].readRows(at - offset, taken, target.subarray(place, place + taken * first.columns));
        at += taken;
      }
    },
    close() {
      for (const matrix of matrices) matrix.close();
    },
  };
}

/** `K = X X^T` `[n, n]` of unit rows, with a diagonal of exactly 1. The rows are held beside it. */
export async function unitGram(matrix: FeatureMatrix, threads?: number): Promise<Float64Array> {
  const { rows: n, columns } = matrix;
  const k = symmetricRankK(
    loadMatrix(matrix),
    new Float64Array(n * n),
    { n, k: columns },
    {
      ...(threads !== undefined && { threads }),
    },
  );
  for (let i = 0; i < n; i++) {
    k[i * n + i] = 1;
    for (let j = 0; j < i; j++) k[j * n + i] = k[i * n + j];
  }
  return k;
}
