import { stringify } from 'csv-stringify';
import { InputError } from '../errors.js';
import { type AtomicFile, type AtomicOptions, createAtomicFile } from '../formats/atomic.js';
import { type TableFormat, tableFormatOf } from './table-format.js';
import { finiteOrName, printJson, toJsonValue } from './values.js';

/** One cell. Token text must have gone through `escapeToken`. */
export type Cell = string | number | bigint | boolean | null | undefined;

/** A table that is written row by row and appears under its name on commit. */
export interface TableWriter {
  readonly file: AtomicFile;
  /** Rows written so far. */
  readonly rows: number;
  /** Cells in the order of the columns. */
  write(cells: readonly Cell[]): void;
  /** Writes what is held back, so that `file.position` is the end of a row. */
  flush(): void;
  /** Writes what is held back and the end of the table; `file.commit()` then gives it its name. */
  finish(): void;
  /** `finish` and commit. */
  commit(): void;
  abort(): void;
}

const FLUSH_CHARACTERS = 1 << 16;

function csvCell(value: Cell): string | null | undefined {
  if (typeof value === 'number') return String(finiteOrName(value));
  return typeof value === 'string' || value === null || value === undefined ? value : String(value);
}

/** Where an interrupted table is taken up: the end of a row. */
export interface TablePosition {
  readonly bytes: number;
  readonly rows: number;
}

interface Encoder {
  row(cells: readonly Cell[]): string;
  end(): string;
}

function csvEncoder(columns: readonly string[], begun: boolean): Encoder {
  // The stringifier works within write(), so its text can be taken right after it.
  const stringifier = stringify({
    record_delimiter: 'unix',
    readableHighWaterMark: 1 << 30,
    writableHighWaterMark: 1 << 20,
  });
  stringifier.setEncoding('utf8');
  let pendingHeader = !begun;
  const take = (): string => (stringifier.read() as string | null) ?? '';
  const header = (): void => {
    if (pendingHeader) stringifier.write([...columns]);
    pendingHeader = false;
  };
  return {
    row(cells) {
      header();
      stringifier.write(cells.map(csvCell));
      return take();
    },
    end() {
      header();
      const rest = take();
      stringifier.destroy();
      return rest;
    },
  };
}

function jsonEncoder(columns: readonly string[], lines: boolean, begun: boolean): Encoder {
  let first = !begun;
  const objectOf = (cells: readonly Cell[]): string => {
    const record: Record<string, unknown> = {};
    for (let i = 0; i < columns.length; i++) record[columns[i]] = toJsonValue(cells[i]) ?? null;
    return lines ? JSON.stringify(record) : printJson(record, '  ');
  };
  return {
    row(cells) {
      if (lines) return `${objectOf(cells)}\n`;
      const lead = first ? '[\n  ' : ',\n  ';
      first = false;
      return lead + objectOf(cells);
    },
    end() {
      if (lines) return '';
      return first ? '[]\n' : '\n]\n';
    },
  };
}

/** A whole table as bytes, as {@link createTable} writes it to `target`. @throws InputError for an unknown extension */
export function tableBytes(target: string, columns: readonly string[], rows: Iterable<readonly Cell[]>): Uint8Array {
  const format = tableFormatOf(target);
  const encoder = format === 'csv' ? csvEncoder(columns, false) : jsonEncoder(columns, format === 'jsonl', false);
  let text = '';
  for (const cells of rows) text += encoder.row(cells);
  return new TextEncoder().encode(text + encoder.end());
}

/**
 * Opens a table. Numbers are printed with the fewest digits that read back to the same f64; non-finite ones as `inf`,
 * `-inf`, `nan`; null and undefined are empty cells (null in JSON).
 * @param options.format overrides the extension of `target`
 * @param options.from takes up the table of an interrupted run at this place (with `resume` and `resumable`)
 * @throws InputError as `createAtomicFile`, and for an unknown extension
 */
export function createTable(
  target: string,
  columns: readonly string[],
  options: AtomicOptions & { readonly format?: TableFormat | undefined; readonly from?: TablePosition } = {},
): TableWriter {
  const format = tableFormatOf(target, options.format);
  const file = createAtomicFile(target, options);
  const from = options.from ?? { bytes: 0, rows: 0 };
  if (file.resumedBytes < from.bytes) {
    file.abort();
    throw new InputError(`${target}: what an interrupted run wrote of it is gone; start again without --resume`);
  }
  if (file.resumedBytes > 0) file.truncate(from.bytes);
  const begun = from.rows > 0;
  const encoder = format === 'csv' ? csvEncoder(columns, begun) : jsonEncoder(columns, format === 'jsonl', begun);
  let held = '';
  let rows = from.rows;
  let finished = false;
  const table: TableWriter = {
    file,
    get rows() {
      return rows;
    },
    write(cells) {
      if (cells.length !== columns.length) throw new RangeError(`${cells.length} cells for ${columns.length} columns`);
      held += encoder.row(cells);
      rows++;
      if (held.length >= FLUSH_CHARACTERS) {
        file.write(held);
        held = '';
      }
    },
    flush() {
      file.write(held);
      held = '';
    },
    finish() {
      if (finished) return;
      finished = true;
      file.write(held + encoder.end());
      held = '';
      file.finish();
    },
    commit() {
      table.finish();
      file.commit();
    },
    abort: () => file.abort(),
  };
  return table;
}
