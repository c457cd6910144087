import { didYouMean, InputError } from '../../errors.js';
import { createInputLedger, expandSources, gunzipChunks, isGzip, peekBytes } from '../../formats/inputs.js';
import { readNumericTable } from '../../formats/numeric-table.js';
import { readParquetRows } from '../../formats/parquet.js';
import { createRowSelection, placeOf } from '../../formats/rows.js';
import type { PanelValues } from '../../kernels/panel-operators.js';
import type { Panel } from './panel.js';

/** From this many values on a panel is stored in single precision unless that is chosen. */
export const SINGLE_PRECISION_FROM = 2e7;

export type PanelFormat = 'long' | 'relatives';
export type Precision = 'float32' | 'float64';

/** Where a panel comes from. */
export interface PanelRequest {
  readonly paths: readonly string[];
  readonly format: PanelFormat;
  readonly dateColumn: string;
  readonly symbolColumn: string;
  /** Columns that become features; all others of the table when absent. */
  readonly features?: readonly string[];
  /** By size when absent: f64 below 2e7 values. */
  readonly precision?: Precision;
}

/** Rows of a long table as they come: numbers of the date and of the symbol, then the features. */
interface LongRows {
  readonly dates: string[];
  readonly symbols: string[];
  readonly features: readonly string[];
  readonly day: Growing;
  readonly symbol: Growing;
  readonly values: Growing;
  /** Row numbers [start, ...) of every file. */
  readonly starts: { readonly path: string; readonly row: number }[];
  rows: number;
}

/** A list of numbers that grows by doubling. */
interface Growing {
  array: Float64Array;
  length: number;
}

const growing = (): Growing => ({ array: new Float64Array(1 << 12), length: 0 });

function append(list: Growing, value: number): void {
  if (list.length === list.array.length) {
    const longer = new Float64Array(2 * list.length);
    longer.set(list.array);
    list.array = longer;
  }
  list.array[list.length++] = value;
}

/** Numbers names by their first appearance. */
function numbering(names: string[]): (name: string) => number {
  const numbers = new Map<string, number>();
  return (name) => {
    let number = numbers.get(name);
    if (number === undefined) {
      number = names.length;
      numbers.set(name, number);
      names.push(name);
    }
    return number;
  };
}

async function* bytesOf(path: string): AsyncGenerator<Uint8Array> {
  const { head, chunks } = await peekBytes(createInputLedger().read(path), 2);
  yield* isGzip(head) ? gunzipChunks(chunks, path) : chunks;
}

async function readLongRows(request: PanelRequest, paths: readonly string[]): Promise<LongRows> {
  const dates: string[] = [];
  const symbols: string[] = [];
  const dayOf = numbering(dates);
  const symbolOf = numbering(symbols);
  let features: readonly string[] | undefined;
  const rows = { day: growing(), symbol: growing(), values: growing(), starts: [] as { path: string; row: number }[] };
  let count = 0;
  const begin = (path: string, names: readonly string[]): void => {
    if (features === undefined) features = names;
    else if (features.join('\n') !== names.join('\n')) {
      throw new InputError(
        `${path}: has the features ${names.join(', ')}, the files before have ${features.join(', ')}`,
      );
    }
    rows.starts.push({ path, row: count });
  };
  const take = (date: string, symbol: string, values: ArrayLike<number>): void => {
    append(rows.day, dayOf(date));
    append(rows.symbol, symbolOf(symbol));
    for (let f = 0; f < values.length; f++) append(rows.values, values[f]);
    count++;
  };
  for (const path of paths) {
    if (/\.parquet$/i.test(path)) await readParquet(request, path, begin, take);
    else {
      await readNumericTable(
        bytesOf(path),
        path,
        {
          delimiter: /\.tsv(\.gz)?$/i.test(path) ? '\t' : ',',
          text: [request.dateColumn, request.symbolColumn],
          ...(request.features && { columns: request.features }),
        },
        {
          onHeader: (names) => begin(path, names),
          onRow(values, [date, symbol], row) {
            if (date === '' || symbol === '') throw new InputError(`${path}, row ${row + 1}: has no date or no symbol`);
            take(date, symbol, values);
          },
        },
      );
    }
  }
  if (features === undefined || count === 0) throw new InputError(`${paths.join(', ')}: no rows`);
  return { ...rows, dates, symbols, features, rows: count };
}

function dateText(value: unknown): string {
  if (value instanceof Date) return value.toISOString().replace(/T00:00:00\.000Z$/, '');
  return value === null || value === undefined ? '' : String(value);
}

async function readParquet(
  request: PanelRequest,
  path: string,
  begin: (path: string, names: readonly string[]) => void,
  take: (date: string, symbol: string, values: ArrayLike<number>) => void,
): Promise<void> {
  let names: readonly string[] | undefined;
  for await (const row of readParquetRows(path, createRowSelection())) {
    const { record } = row;
    if (names === undefined) {
      for (const column of [request.dateColumn, request.symbolColumn, ...(request.features ?? [])]) {
        if (!(column in record)) {
          throw new InputError(`${path}: no column "${column}"${didYouMean(column, Object.keys(record))}`);
        }
      }
      names =
        request.features ??
        Object.keys(record).filter((name) => name !== request.dateColumn && name !== request.symbolColumn);
      begin(path, names);
    }
    const values = names.map((name) => {
      const value = record[name];
      if (value === null || value === undefined) return Number.NaN;
      const number = Number(value);
      if (typeof value === 'string' || (Number.isNaN(number) && typeof value !== 'number')) {
        throw new InputError(
          `${placeOf(row)}: column "${name}" holds "${value}", which is no number; name the features with --features`,
        );
      }
      return number;
    });
    const date = dateText(record[request.dateColumn]);
    const symbol = dateText(record[request.symbolColumn]);
    if (date === '' || symbol === '') throw new InputError(`${placeOf(row)}: has no date or no symbol`);
    take(date, symbol, values);
  }
}

/** Dates in ascending order: integers by value, ISO dates by their text. */
function sortDates(dates: readonly string[], path: string): number[] {
  const order = dates.map((_, i) => i);
  if (dates.every((date) => /^\d+$/.test(date))) return order.sort((a, b) => Number(dates[a]) - Number(dates[b]));
  const odd = dates.find((date) => !/^\d{4}-\d{2}-\d{2}/.test(date));
  if (odd !== undefined) {
    throw new InputError(
      `${path}: the date "${odd}" is neither an integer nor YYYY-MM-DD; only those can be put in order`,
    );
  }
  return order.sort((a, b) => (dates[a] < dates[b] ? -1 : 1));
}

function storageOf(size: number, precision: Precision | undefined): (length: number) => PanelValues {
  const single = precision === undefined ? size >= SINGLE_PRECISION_FROM : precision === 'float32';
  return (length) => (single ? new Float32Array(length) : new Float64Array(length)).fill(Number.NaN);
}

/** Turns rows into days x stocks a feature. Stocks are in the order of their names. */
function pivot(rows: LongRows, request: PanelRequest): Panel {
  const days = rows.dates.length;
  const stocks = rows.symbols.length;
  const dayOrder = sortDates(rows.dates, request.paths[0]);
  const symbolOrder = rows.symbols.map((_, i) => i).sort((a, b) => (rows.symbols[a] < rows.symbols[b] ? -1 : 1));
  const dayPlace = new Int32Array(days);
  const symbolPlace = new Int32Array(stocks);
  dayOrder.forEach((from, to) => {
    dayPlace[from] = to;
  });
  symbolOrder.forEach((from, to) => {
    symbolPlace[from] = to;
  });
  const width = rows.features.length;
  const allocate = storageOf(days * stocks * width, request.precision);
  const values = rows.features.map(() => allocate(days * stocks));
  const seen = new Int32Array(days * stocks);
  for (let r = 0; r < rows.rows; r++) {
    const cell = dayPlace[rows.day.array[r]] * stocks + symbolPlace[rows.symbol.array[r]];
    if (seen[cell] > 0) {
      throw new InputError(
        `${rowPlace(rows, seen[cell] - 1)} and ${rowPlace(rows, r)} both hold ${rows.dates[rows.day.array[r]]}, ` +
          `${rows.symbols[rows.symbol.array[r]]}; keep one of them`,
      );
    }
    seen[cell] = r + 1;
    for (let f = 0; f < width; f++) values[f][cell] = rows.values.array[r * width + f];
  }
  return {
    dates: dayOrder.map((i) => rows.dates[i]),
    symbols: symbolOrder.map((i) => rows.symbols[i]),
    features: rows.features.map((name) => name.toLowerCase()),
    values,
  };
}

/** `file, row N`, from 1 below the header. */
function rowPlace(rows: LongRows, row: number): string {
  const start = rows.starts.filter((one) => one.row <= row).at(-1);
  return `${start?.path}, row ${row - (start?.row ?? 0) + 1}`;
}

/** Price relatives x_t / x_{t-1} as a matrix: closes are their products, from 1 before the first row. */
async function readRelatives(request: PanelRequest, path: string): Promise<Panel> {
  let symbols: readonly string[] = [];
  const rows: Float64Array[] = [];
  await readNumericTable(
    bytesOf(path),
    path,
    { delimiter: /\.tsv(\.gz)?$/i.test(path) ? '\t' : ',' },
    {
      onHeader(names) {
        symbols = [...names];
      },
      onRow(values, _texts, row) {
        const price = new Float64Array(values.length);
        for (let s = 0; s < values.length; s++) {
          if (values[s] < 0)
            throw new InputError(`${path}, row ${row + 1}: the price relative ${values[s]} is negative`);
          const before = row === 0 ? 1 : rows[row - 1][s];
          price[s] = before * values[s];
        }
        rows.push(price);
      },
    },
  );
  if (rows.length === 0) throw new InputError(`${path}: no rows`);
  const stocks = symbols.length;
  const close = storageOf(rows.length * stocks, request.precision)(rows.length * stocks);
  rows.forEach((row, t) => {
    close.set(row, t * stocks);
  });
  return { dates: rows.map((_, t) => String(t + 1)), symbols, features: ['close'], values: [close] };
}

/**
 * Reads a panel: a long table (date, symbol, features; CSV, TSV or Parquet, several files), or one matrix of price relatives.
 * Dates are put in order; what is not there is NaN.
 * @throws InputError for duplicates (naming both rows), dates that have no order, columns that are missing or no numbers
 */
export async function readPanel(request: PanelRequest): Promise<Panel> {
  const paths = await expandSources(request.paths);
  if (request.format === 'relatives') {
    if (paths.length !== 1) throw new InputError(`price relatives come as one matrix, not ${paths.length} files`);
    return readRelatives(request, paths[0]);
  }
  return pivot(await readLongRows(request, paths), request);
}
