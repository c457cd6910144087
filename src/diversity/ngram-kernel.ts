import { InputError } from '../errors.js';
import type { SymmetricOperator } from '../linalg/kernel-operator.js';

/** What a gram is made of. `words` are runs of letters, marks, digits and `_`, and every other sign by itself. */
export type NgramUnit = 'words' | 'whitespace' | 'characters';

export const NGRAM_UNITS: readonly NgramUnit[] = ['words', 'whitespace', 'characters'];

export interface NgramOptions {
  /** Lengths whose kernels are averaged; 1, 2, 3 and 4 in the reference. */
  readonly lengths: readonly number[];
  readonly unit: NgramUnit;
  readonly lowercase?: boolean;
  /** Divides the averaged kernel by its diagonal, so that texts shorter than a length may stand. */
  readonly normalize?: boolean;
}

/** Count vectors with unit rows as a sparse matrix in compressed rows, columns ascending within a row. */
export interface SparseRows {
  /** `[rows + 1]` */
  readonly starts: Int32Array;
  readonly columns: Int32Array;
  readonly values: Float64Array;
  readonly width: number;
}

const WORD = /[\p{L}\p{M}\p{N}_]+|[^\s\p{L}\p{M}\p{N}_]/gu;

/** The units of a text, in order. */
export function unitsOf(text: string, unit: NgramUnit, lowercase = false): string[] {
  const read = lowercase ? text.toLowerCase() : text;
  if (unit === 'characters') return Array.from(read);
  if (unit === 'whitespace') return read.split(/\s+/u).filter((word) => word !== '');
  return read.match(WORD) ?? [];
}

/**
 * Rows of n-gram counts divided by their Euclidean norm; a text without such a gram has an empty row.
 * @param units of every text
 */
export function ngramRows(units: readonly (readonly string[])[], length: number): SparseRows {
  const index = new Map<string, number>();
  const starts = new Int32Array(units.length + 1);
  const columns: number[] = [];
  const values: number[] = [];
  units.forEach((words, row) => {
    const counts = new Map<number, number>();
    for (let i = 0; i + length <= words.length; i++) {
      // Words hold no whitespace and characters are one sign each, so the join is unambiguous.
      const gram = words.slice(i, i + length).join('\n');
      let column = index.get(gram);
      if (column === undefined) {
        column = index.size;
        index.set(gram, column);
      }
      counts.set(column, (counts.get(column) ?? 0) + 1);
    }
    let squares = 0;
    for (const count of counts.values()) squares += count * count;
    const scale = 1 / Math.sqrt(squares);
    for (const column of [...counts.keys()].sort((a, b) => a - b)) {
      columns.push(column);
      values.push((counts.get(column) ?? 0) * scale);
    }
    starts[row + 1] = columns.length;
  });
  return { starts, columns: Int32Array.from(columns), values: Float64Array.from(values), width: index.size };
}

/**
 * The averaged n-gram kernel as rows of one feature matrix: `K = X X^T` with the rows of all lengths side by side, each
 * by `sqrt(1 / lengths)`. Rows have length 1; a text shorter than a length is an error unless `normalize`.
 * @throws InputError with the row of a text that has too few units
 */
export function ngramFeatures(texts: readonly string[], options: NgramOptions, name: string): SparseRows {
  const units = texts.map((text) => unitsOf(text, options.unit, options.lowercase));
  const longest = Math.max(...options.lengths);
  units.forEach((words, row) => {
    const needed = options.normalize ? Math.min(...options.lengths) : longest;
    if (words.length >= needed) return;
    const way = options.normalize ? 'leave it out' : 'name shorter lengths with --ngrams, or use --normalize';
    throw new InputError(
      `${name}: text of row ${row} has ${words.length} ${options.unit === 'characters' ? 'characters' : 'words'}, so no ` +
        `${needed}-gram to normalise; ${way}`,
    );
  });
  const blocks = options.lengths.map((length) => ngramRows(units, length));
  const joined = joinRows(blocks, texts.length, 1 / Math.sqrt(options.lengths.length));
  if (options.normalize) unitLength(joined, texts.length);
  return joined;
}

function joinRows(blocks: readonly SparseRows[], rows: number, scale: number): SparseRows {
  const entries = blocks.reduce((sum, block) => sum + block.columns.length, 0);
  const starts = new Int32Array(rows + 1);
  const columns = new Int32Array(entries);
  const values = new Float64Array(entries);
  let at = 0;
  for (let row = 0; row < rows; row++) {
    let offset = 0;
    for (const block of blocks) {
      for (let i = block.starts[row]; i < block.starts[row + 1]; i++) {
        columns[at] = offset + block.columns[i];
        values[at++] = scale * block.values[i];
      }
      offset += block.width;
    }
    starts[row + 1] = at;
  }
  return { starts, columns, values, width: blocks.reduce((sum, block) => sum + block.width, 0) };
}

function unitLength(rows: SparseRows, count: number): void {
  for (let row = 0; row < count; row++) {
    let squares = 0;
    for (let i = rows.starts[row]; i < rows.starts[row + 1]; i++) squares += rows.values[i] ** 2;
    for (let i = rows.starts[row]; i < rows.starts[row + 1]; i++) rows.values[i] /= Math.sqrt(squares);
  }
}

/** Entries by columns, rows ascending within a column. */
interface SparseColumns {
  readonly starts: Int32Array;
  readonly rowOf: Int32Array;
  readonly values: Float64Array;
}

function byColumns(rows: SparseRows): SparseColumns {
  const starts = new Int32Array(rows.width + 1);
  for (const column of rows.columns) starts[column + 1]++;
  for (let c = 0; c < rows.width; c++) starts[c + 1] += starts[c];
  const next = starts.slice();
  const rowOf = new Int32Array(rows.columns.length);
  const values = new Float64Array(rows.columns.length);
  for (let row = 0; row + 1 < rows.starts.length; row++) {
    for (let i = rows.starts[row]; i < rows.starts[row + 1]; i++) {
      const at = next[rows.columns[i]]++;
      rowOf[at] = row;
      values[at] = rows.values[i];
    }
  }
  return { starts, rowOf, values };
}

/** Adds the similarities of item i with items 0..i to `target`. */
function addGramRow(rows: SparseRows, { starts, rowOf, values }: SparseColumns, i: number, target: Float64Array): void {
  for (let e = rows.starts[i]; e < rows.starts[i + 1]; e++) {
    const column = rows.columns[e];
    const value = rows.values[e];
    for (let s = starts[column]; s < starts[column + 1] && rowOf[s] <= i; s++) target[rowOf[s]] += value * values[s];
  }
}

/**
 * `K = X X^T` `[n, n]` of sparse rows with length 1: a row is the sum over its columns, so the work is that of the pairs
 * of texts that share a gram.
 */
export function sparseGram(rows: SparseRows): Float64Array {
  const n = rows.starts.length - 1;
  const k = new Float64Array(n * n);
  const transposed = byColumns(rows);
  for (let i = 0; i < n; i++) {
    const target = k.subarray(i * n, (i + 1) * n);
    addGramRow(rows, transposed, i, target);
    target[i] = 1;
    for (let j = 0; j < i; j++) k[j * n + i] = target[j];
  }
  return k;
}

/**
 * `K = X X^T` of sparse rows by its products, each scaled: `factors_i K_ij factors_j`. Vectors are rows `[b, n]`.
 */
export function sparseOperator(rows: SparseRows, factors: Float64Array): SymmetricOperator {
  const n = rows.starts.length - 1;
  return {
    n,
    precision: 'f64',
    trace: async () => factors.reduce((sum, factor) => sum + factor * factor, 0),
    async multiply(v, b, out) {
      const middle = new Float64Array(rows.width);
      for (let k = 0; k < b; k++) {
        const [from, to] = [k * n, (k + 1) * n];
        middle.fill(0);
        for (let row = 0; row < n; row++) {
          const value = factors[row] * v[from + row];
          for (let e = rows.starts[row]; e < rows.starts[row + 1]; e++)
            middle[rows.columns[e]] += rows.values[e] * value;
        }
        out.fill(0, from, to);
        for (let row = 0; row < n; row++) {
          let sum = 0;
          for (let e = rows.starts[row]; e < rows.starts[row + 1]; e++) sum += rows.values[e] * middle[rows.columns[e]];
          out[from + row] = factors[row] * sum;
        }
      }
    },
  };
}

/** Some of the rows. */
export function takeSparseRows(rows: SparseRows, taken: Int32Array): SparseRows {
  const starts = new Int32Array(taken.length + 1);
  taken.forEach((row, i) => {
    starts[i + 1] = starts[i] + rows.starts[row + 1] - rows.starts[row];
  });
  const columns = new Int32Array(starts[taken.length]);
  const values = new Float64Array(starts[taken.length]);
  taken.forEach((row, i) => {
    columns.set(rows.columns.subarray(rows.starts[row], rows.starts[row + 1]), starts[i]);
    values.set(rows.values.subarray(rows.starts[row], rows.starts[row + 1]), starts[i]);
  });
  return { starts, columns, values, width: rows.width };
}

/** Similarity of two texts from their rows. */
export function sparseDot(rows: SparseRows, i: number, j: number): number {
  const { starts, columns, values } = rows;
  let a = starts[i];
  let b = starts[j];
  let sum = 0;
  while (a < starts[i + 1] && b < starts[j + 1]) {
    if (columns[a] === columns[b]) sum += values[a++] * values[b++];
    else if (columns[a] < columns[b]) a++;
    else b++;
  }
  return sum;
}

/** `sum_ij w_i w_j K_ij^q` of `K = X X^T`, row by row; nothing of n x n is held. */
export function sparsePowerSum(rows: SparseRows, weights: Float64Array, q: number): number {
  const n = rows.starts.length - 1;
  const transposed = byColumns(rows);
  const row = new Float64Array(n);
  let total = 0;
  for (let i = 0; i < n; i++) {
    addGramRow(rows, transposed, i, row);
    let sum = 0;
    for (let j = 0; j < i; j++) sum += weights[j] * row[j] ** q;
    total += weights[i] * (2 * sum + weights[i]);
    row.fill(0, 0, i + 1);
  }
  return total;
}
