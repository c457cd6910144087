import { InputError } from '../errors.js';

export type Floats = Float32Array | Float64Array;

/** A matrix of features `[rows, columns]`, read by ranges of rows. */
export interface FeatureMatrix {
  /** What the user calls it: a path, or a model and a layer. */
  readonly name: string;
  /** Stored element type, for reports: F64, F32, F16, ... */
  readonly dtype: string;
  readonly rows: number;
  readonly columns: number;
  readonly columnNames?: readonly string[];
  /** Extents of one row of an array of more than two axes. */
  readonly rowDims?: readonly number[];
  /**
   * Rows start..start+count-1, row-major, into the first `count * columns` entries of `target`.
   * @throws RangeError for rows that are not there
   */
  readRows(start: number, count: number, target: Floats): void;
  close(): void;
}

/** Where a matrix comes from, so that another thread can open it (`openFeatures` in src/features). */
export type FeatureSource =
  | {
      readonly kind: 'file';
      /** .npy .npz .safetensors, or a table with one column a feature: .csv .tsv .parquet .jsonl (also gzipped text). */
      readonly path: string;
      /** Which array of an .npz or .safetensors file. */
      readonly tensor?: string;
      /** Which columns of a table; all but `except` when absent. */
      readonly columns?: readonly string[];
      /** Columns of a table that hold labels or ids. */
      readonly except?: readonly string[];
      /** Only the first rows. */
      readonly limit?: number;
      /** Arrays of more than two axes are read too: all axes after the first are one row. */
      readonly flatten?: boolean;
    }
  | {
      readonly kind: 'array';
      readonly name: string;
      /** `[rows, columns]` */
      readonly data: Floats;
      readonly rows: number;
      readonly columns: number;
      readonly columnNames?: readonly string[];
    };

/** Stored types whose every value is a single-precision number. */
const SINGLE = new Set(['F32', 'F16', 'BF16', 'F8_E4M3', 'F8_E5M2', 'I16', 'U16', 'I8', 'U8', 'BOOL']);

/** Whether entries of a stored type lose nothing in f32. */
export const fitsSingle = (dtype: string): boolean => SINGLE.has(dtype);

/** A matrix in memory. */
export function arrayMatrix(
  name: string,
  data: Floats,
  rows: number,
  columns: number,
  columnNames?: readonly string[],
): FeatureMatrix {
  if (data.length !== rows * columns) throw new RangeError(`${data.length} entries are no ${rows} x ${columns} matrix`);
  return {
    name,
    dtype: data instanceof Float32Array ? 'F32' : 'F64',
    rows,
    columns,
    ...(columnNames && { columnNames }),
    readRows(start, count, target) {
      if (start < 0 || start + count > rows) throw new RangeError(`rows ${start}..${start + count} of ${rows}`);
      target.set(data.subarray(start * columns, (start + count) * columns));
    },
    close: () => undefined,
  };
}

/** Counts rows that hold NaN or an infinite value, and remembers the first. */
interface FaultyRows {
  count: number;
  row: number;
  column: number;
  value: number;
}

function lookForFaults(data: Floats, columns: number, start: number, count: number, faults: FaultyRows): void {
  for (let r = 0; r < count; r++) {
    // One sum tells whether any entry is not finite; overflow of finite entries is sorted out below.
    let sum = 0;
    for (let i = r * columns; i < (r + 1) * columns; i++) sum += data[i] - data[i];
    if (sum === 0) continue;
    let column = 0;
    while (column < columns && Number.isFinite(data[r * columns + column])) column++;
    if (column === columns) continue;
    if (faults.count++ === 0) {
      faults.row = start + r;
      faults.column = column;
      faults.value = data[r * columns + column];
    }
  }
}

function refuse(matrix: FeatureMatrix, faults: FaultyRows): void {
  if (faults.count === 0) return;
  const column = matrix.columnNames ? `column "${matrix.columnNames[faults.column]}"` : `column ${faults.column}`;
  throw new InputError(
    `${matrix.name}: ${faults.count} of ${matrix.rows} rows hold NaN or an infinite value, the first is row ${faults.row}, ` +
      `${column} (${faults.value}); remove or impute them`,
  );
}

/**
 * Visits all rows in blocks of at most `blockRows`, in order. The block is one buffer that is used anew.
 * @param precision of the buffer; f32 where the entries are stored so and f64 is not needed
 * @throws InputError after the last block when rows held NaN or infinite values, with their number and the first
 */
export async function eachBlock<T extends 'f32' | 'f64'>(
  matrix: FeatureMatrix,
  blockRows: number,
  precision: T,
  visit: (block: T extends 'f32' ? Float32Array : Float64Array, start: number, count: number) => Promise<void> | void,
): Promise<void> {
  const { rows, columns } = matrix;
  const most = Math.max(1, Math.min(blockRows, rows));
  const buffer = precision === 'f32' ? new Float32Array(most * columns) : new Float64Array(most * columns);
  const faults: FaultyRows = { count: 0, row: -1, column: -1, value: Number.NaN };
  for (let start = 0; start < rows; start += most) {
    const count = Math.min(most, rows - start);
    matrix.readRows(start, count, buffer);
    lookForFaults(buffer, columns, start, count, faults);
    // Once a row is bad no figure will be given; only the counting goes on.
    if (faults.count > 0) continue;
    await visit(buffer.subarray(0, count * columns) as Parameters<typeof visit>[0], start, count);
  }
  refuse(matrix, faults);
}

const LOAD_ROWS = 4096;

/**
 * The whole matrix `[rows, columns]`, or its rows `indices` in that order.
 * @throws InputError when rows hold NaN or infinite values, with their number, the first row and its column
 */
export function loadMatrix(matrix: FeatureMatrix, indices?: Int32Array): Float64Array {
  const { rows, columns } = matrix;
  const wanted = indices?.length ?? rows;
  const data = new Float64Array(wanted * columns);
  const faults: FaultyRows = { count: 0, row: -1, column: -1, value: Number.NaN };
  if (indices) {
    indices.forEach((row, i) => {
      const target = data.subarray(i * columns, (i + 1) * columns);
      matrix.readRows(row, 1, target);
      lookForFaults(target, columns, row, 1, faults);
    });
  } else {
    for (let start = 0; start < rows; start += LOAD_ROWS) {
      const count = Math.min(LOAD_ROWS, rows - start);
      const target = data.subarray(start * columns, (start + count) * columns);
      matrix.readRows(start, count, target);
      lookForFaults(target, columns, start, count, faults);
    }
  }
  refuse(matrix, faults);
  return data;
}
