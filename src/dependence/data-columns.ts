import { didYouMean, InputError } from '../errors.js';
import { type DataFormat, readRecords } from '../formats/documents.js';
import type { InputLedger } from '../formats/inputs.js';
import { elementCount, type TensorInfo, type TensorStore } from '../formats/tensor.js';
import { isTensorFile, openTensorFile } from '../formats/tensor-file.js';
import { widenToF64 } from '../kernels/dtypes.js';

/** A column of numbers, or of text as codes into the sorted list of its values. */
export type DataColumn =
  | { readonly name: string; readonly kind: 'numbers'; readonly values: Float64Array }
  | { readonly name: string; readonly kind: 'text'; readonly codes: Int32Array; readonly names: readonly string[] };

export interface ColumnOptions {
  /** Names, or places from 0 where no column has such a name; all columns when absent. */
  readonly columns?: readonly string[];
  /** Columns whose values are text even where all are numbers. */
  readonly text?: readonly string[];
  readonly limit?: number;
  readonly format?: DataFormat;
  readonly ledger?: InputLedger;
}

/** Where the first missing value stands, and how many rows have one. */
interface Missing {
  rows: number;
  row: number;
  column: string;
  value: string;
}

const MISSING = new Set(['', 'na', 'nan', 'null', 'none']);

/** A cell as a number (NaN where it is missing), or undefined where it is text. */
function numberOf(cell: unknown): number | undefined {
  if (typeof cell === 'number') return cell;
  if (cell === null || cell === undefined) return Number.NaN;
  if (typeof cell !== 'string') return undefined;
  const text = cell.trim();
  if (MISSING.has(text.toLowerCase())) return Number.NaN;
  const infinite = /^([+-]?)inf(?:inity)?$/i.exec(text);
  if (infinite) return infinite[1] === '-' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  const value = Number(text);
  return Number.isNaN(value) ? undefined : value;
}

/** Cells of one column as they are read. */
interface Collector {
  readonly name: string;
  /** False where the cell is no value; `text` where a column of numbers meets text. */
  add(cell: unknown): boolean | 'text';
  take(): DataColumn;
}

function growing<T extends Float64Array | Int32Array>(
  make: (length: number) => T,
): {
  push(value: number): void;
  take(): T;
} {
  let data = make(1 << 12);
  let length = 0;
  return {
    push(value) {
      if (length === data.length) {
        const larger = make(2 * data.length);
        larger.set(data);
        data = larger;
      }
      data[length++] = value;
    },
    take: () => data.slice(0, length) as T,
  };
}

function numberCollector(name: string): Collector {
  const cells = growing((length) => new Float64Array(length));
  return {
    name,
    add(cell) {
      const value = numberOf(cell);
      if (value === undefined) return 'text';
      cells.push(value);
      return Number.isFinite(value);
    },
    take: () => ({ name, kind: 'numbers', values: cells.take() }),
  };
}

function textCollector(name: string): Collector {
  const codes = growing((length) => new Int32Array(length));
  const codeOf = new Map<string, number>();
  return {
    name,
    add(cell) {
      const text =
        cell === null || cell === undefined ? '' : typeof cell === 'object' ? JSON.stringify(cell) : String(cell);
      let code = codeOf.get(text);
      if (code === undefined) {
        code = codeOf.size;
        codeOf.set(text, code);
      }
      codes.push(code);
      return text !== '';
    },
    take() {
      const names = [...codeOf.keys()].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
      const place = new Int32Array(names.length);
      names.forEach((text, sorted) => {
        place[codeOf.get(text) ?? 0] = sorted;
      });
      return { name, kind: 'text', codes: codes.take().map((code) => place[code]), names };
    },
  };
}

/** The name that stands for what the user wrote: a name, or the place of one. Throws InputError for neither. */
function resolveName(source: string, wanted: string, present: readonly string[]): string {
  if (present.includes(wanted)) return wanted;
  const place = /^\d+$/.test(wanted) ? Number(wanted) : -1;
  if (place >= 0 && place < present.length) return present[place];
  const known = present.length > 12 ? `${present.slice(0, 12).join(', ')}, ...` : present.join(', ');
  throw new InputError(`${source}: no column "${wanted}"${didYouMean(wanted, present)}; columns: ${known}`);
}

/** Raised within a reading when a column of numbers turns out to hold text: it is then read again as text. */
class HoldsText extends Error {
  constructor(
    readonly column: string,
    readonly source: string,
    readonly cell: unknown,
  ) {
    super(column);
  }
}

async function readTables(
  sources: readonly string[],
  options: ColumnOptions,
  textColumns: ReadonlySet<string>,
): Promise<{ columns: DataColumn[]; missing: Missing }> {
  const { limit, format, ledger } = options;
  let collectors: Collector[] | undefined;
  const missing: Missing = { rows: 0, row: -1, column: '', value: '' };
  let rows = 0;
  const records = readRecords(sources, {
    ...(limit !== undefined && { limit }),
    ...(format !== undefined && { format }),
    ...(ledger && { ledger }),
  });
  for await (const { record, source } of records) {
    collectors ??= chosen(source, Object.keys(record), options).map((name) =>
      textColumns.has(name) ? textCollector(name) : numberCollector(name),
    );
    let whole = true;
    for (const collector of collectors) {
      const cell = record[collector.name];
      const found = collector.add(cell);
      if (found === 'text') throw new HoldsText(collector.name, source, cell);
      if (found) continue;
      if (whole && missing.rows++ === 0)
        Object.assign(missing, { row: rows, column: collector.name, value: String(cell ?? '') });
      whole = false;
    }
    rows++;
  }
  return { columns: (collectors ?? []).map((collector) => collector.take()), missing };
}

function chosen(source: string, present: readonly string[], { columns, text = [] }: ColumnOptions): string[] {
  for (const name of text) resolveName(source, name, present);
  return columns === undefined ? [...present] : columns.map((name) => resolveName(source, name, present));
}

/** Reads a stored array as numbers, row-major. */
function numbersOf(store: TensorStore, info: TensorInfo): Float64Array {
  const bytes = new Uint8Array(info.byteLength);
  store.readInto(info, 0, bytes.length, bytes);
  const values = new Float64Array(elementCount(info.shape));
  // Block types of GGUF do not occur in the formats that come here.
  widenToF64(bytes, info.dtype as Parameters<typeof widenToF64>[1], values);
  return values;
}

/** Columns of stored arrays: a vector is one column with the array's name, a matrix `name[0]`, `name[1]`, ... */
function readArrays(path: string, options: ColumnOptions): { columns: DataColumn[]; missing: Missing } {
  const store = openTensorFile(path);
  try {
    const single = store.tensors.size === 1;
    const places = new Map<string, { info: TensorInfo; column: number; width: number }>();
    for (const info of store.tensors.values()) {
      if (info.shape.length === 0 || info.shape.length > 2) continue;
      const width = info.shape[1] ?? 1;
      if (info.shape.length === 1) places.set(single ? '0' : info.name, { info, column: 0, width });
      else
        for (let j = 0; j < width; j++)
          places.set(single ? String(j) : `${info.name}[${j}]`, { info, column: j, width });
    }
    const present = [...places.keys()];
    if (present.length === 0) throw new InputError(`${path}: holds no array [rows] or [rows, columns]`);
    const names = chosen(path, present, options);
    const held = new Map<string, Float64Array>();
    const missing: Missing = { rows: 0, row: -1, column: '', value: '' };
    let faulty = new Uint8Array(0);
    const columns = names.map((name): DataColumn => {
      const { info, column, width } = places.get(name) ?? fail(path, name);
      let values = held.get(info.name);
      if (values === undefined) {
        values = numbersOf(store, info);
        held.set(info.name, values);
      }
      const rows = Math.min(info.shape[0], options.limit ?? Number.POSITIVE_INFINITY);
      const own = new Float64Array(rows);
      if (faulty.length < rows) {
        const larger = new Uint8Array(rows);
        larger.set(faulty);
        faulty = larger;
      }
      for (let i = 0; i < rows; i++) {
        own[i] = values[i * width + column];
        if (Number.isFinite(own[i])) continue;
        if (faulty[i] === 0) missing.rows++;
        faulty[i] = 1;
        if (missing.row < 0 || i < missing.row) Object.assign(missing, { row: i, column: name, value: String(own[i]) });
      }
      return { name, kind: 'numbers', values: own };
    });
    const texts = new Set((options.text ?? []).map((name) => resolveName(path, name, present)));
    return { columns: columns.map((column) => (texts.has(column.name) ? asText(column) : column)), missing };
  } finally {
    store.close();
  }
}

function fail(path: string, name: string): never {
  throw new InputError(`${path}: no column "${name}"`);
}

function asText(column: DataColumn): DataColumn {
  if (column.kind === 'text') return column;
  const collector = textCollector(column.name);
  for (const value of column.values) collector.add(String(value));
  return collector.take();
}

/** Number of rows of a column. */
export function columnLength(column: DataColumn): number {
  return column.kind === 'numbers' ? column.values.length : column.codes.length;
}

/**
 * Columns of tables (.csv .tsv .jsonl .parquet; text formats also gzipped) or of one file of arrays (.npy .npz
 * .safetensors), whole, in memory. A column is numbers when every value is one, else text.
 * @throws InputError for a column that is not there, columns of different lengths, and for rows that hold NaN, an infinite
 *   number or nothing: their number, the first of them and its column
 */
export async function readColumns(sources: readonly string[], options: ColumnOptions = {}): Promise<DataColumn[]> {
  const [first] = sources;
  let found: { columns: DataColumn[]; missing: Missing };
  if (sources.some(isTensorFile)) {
    if (sources.length > 1) throw new InputError(`${first}: files of arrays are read one at a time`);
    options.ledger?.note(first);
    found = readArrays(first, options);
  } else {
    const texts = new Set(options.text ?? []);
    for (;;) {
      try {
        found = await readTables(sources, options, texts);
        break;
      } catch (error) {
        if (!(error instanceof HoldsText)) throw error;
        if (texts.has(error.column) || error.source === '-') {
          throw new InputError(
            `${error.source === '-' ? 'standard input' : error.source}: column "${error.column}" holds ${JSON.stringify(error.cell)} beside numbers; name it with --text`,
          );
        }
        texts.add(error.column);
      }
    }
  }
  const { columns, missing } = found;
  const [head] = columns;
  for (const column of columns) {
    if (columnLength(column) === columnLength(head)) continue;
    throw new InputError(
      `${first}: column "${column.name}" has ${columnLength(column)} rows, column "${head.name}" ${columnLength(head)}; they must have the same`,
    );
  }
  if (missing.rows > 0) {
    throw new InputError(
      `${sources.join(', ')}: ${missing.rows} of ${columnLength(head)} rows hold NaN, an infinite number or nothing, the first is row ${missing.row}, ` +
        `column "${missing.column}" (${missing.value === '' ? 'empty' : missing.value}); remove or impute them`,
    );
  }
  return columns;
}
