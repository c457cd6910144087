import { didYouMean, InputError } from '../errors.js';
import { readRecords } from './documents.js';
import { arrayMatrix, type FeatureMatrix } from './feature-matrix.js';
import { placeOf } from './rows.js';

/** Which columns of a table are features. */
export interface FeatureColumns {
  /** All but `except` when absent. */
  readonly columns?: readonly string[];
  readonly except?: readonly string[];
  readonly limit?: number;
}

const MISSING = new Set(['', 'na', 'nan', 'null', 'none']);

/** A cell as a number; NaN where it is missing, undefined where it is no number. */
export function numberOf(cell: unknown): number | undefined {
  if (typeof cell === 'number') return cell;
  if (typeof cell === 'bigint' || typeof cell === 'boolean') return Number(cell);
  if (cell === null || cell === undefined) return Number.NaN;
  if (typeof cell !== 'string') return undefined;
  const text = cell.trim();
  if (MISSING.has(text.toLowerCase())) return Number.NaN;
  if (/^[+-]?inf(inity)?$/i.test(text))
    return text.startsWith('-') ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  const value = Number(text);
  return Number.isNaN(value) ? undefined : value;
}

/** Cells that grow by doubling; the buffer is handed over without a copy where it is full. */
function growing(): { push(value: number): void; take(): Float64Array } {
  let data = new Float64Array(1 << 12);
  let length = 0;
  return {
    push(value) {
      if (length === data.length) {
        const larger = new Float64Array(2 * data.length);
        larger.set(data);
        data = larger;
      }
      data[length++] = value;
    },
    take: () => data.subarray(0, length).slice(),
  };
}

/**
 * A table of numbers (.csv .tsv .parquet .jsonl, text formats also gzipped) as a matrix in memory; a record's field that
 * holds a list of numbers stands for as many columns. Empty cells, `NA` and `nan` become NaN.
 * @throws InputError naming row and column for a cell that is no number, a missing column, rows of another length
 */
export async function readFeatureTable(path: string, options: FeatureColumns = {}): Promise<FeatureMatrix> {
  const cells = growing();
  let fields: string[] | undefined;
  let names: string[] = [];
  let rows = 0;
  const records = readRecords([path], options.limit === undefined ? {} : { limit: options.limit });
  for await (const row of records) {
    const { record } = row;
    const first = fields === undefined;
    fields ??= chooseFields(path, Object.keys(record), options);
    let width = 0;
    for (const field of fields) {
      const cell = record[field];
      const list: ArrayLike<unknown> | undefined =
        Array.isArray(cell) || (ArrayBuffer.isView(cell) && !(cell instanceof DataView))
          ? (cell as unknown as ArrayLike<unknown>)
          : undefined;
      const count = list?.length ?? 1;
      for (let i = 0; i < count; i++) {
        const value = numberOf(list ? list[i] : cell);
        if (value === undefined) {
          throw new InputError(
            `${placeOf(row)}: column "${field}" holds ${JSON.stringify(list ? list[i] : cell)}, which is no number; ` +
              'name the columns that are features with --columns',
          );
        }
        cells.push(value);
        if (first) names.push(list ? `${field}[${i}]` : field);
      }
      width += count;
    }
    if (width !== names.length) {
      throw new InputError(`${placeOf(row)}: holds ${width} features, the first row ${names.length}`);
    }
    rows++;
  }
  if (names.length === 0) names = [];
  return arrayMatrix(path, cells.take(), rows, names.length, names);
}

function chooseFields(path: string, present: readonly string[], options: FeatureColumns): string[] {
  for (const name of [...(options.columns ?? []), ...(options.except ?? [])]) {
    if (!present.includes(name)) throw new InputError(`${path}: no column "${name}"${didYouMean(name, present)}`);
  }
  const except = new Set(options.except ?? []);
  const fields = (options.columns ?? present).filter((name) => !except.has(name));
  if (fields.length === 0) throw new InputError(`${path}: no column is left for the features`);
  return fields;
}
