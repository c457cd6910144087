import { readFileSync } from 'node:fs';
import { didYouMean, InputError } from '../errors.js';
import { readCsvRows } from '../formats/csv.js';
import { createInputLedger } from '../formats/inputs.js';
import { readJsonLines } from '../formats/jsonl.js';
import { createRowSelection, placeOf, type Row } from '../formats/rows.js';
import type { Cell } from './csv.js';
import { type TableFormat, tableFormatOf } from './table-format.js';

/** The rows of one part, read as they are needed. */
interface Part {
  readonly path: string;
  readonly rows: AsyncIterator<Row>;
  /** Known from the header, or from the first row where there is no header. */
  columns: readonly string[] | undefined;
  current: Row | undefined;
  key: number;
}

/** All tables, with their common columns, ready to be read in merged order. */
export interface MergedTable {
  readonly columns: readonly string[];
  rows(): AsyncGenerator<readonly Cell[], void, undefined>;
}

async function* readJsonTable(path: string): AsyncGenerator<Row, void, undefined> {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new InputError(`${path}: is not readable as JSON (${(error as Error).message.split('\n')[0]})`);
  }
  if (!Array.isArray(value)) throw new InputError(`${path}: is no table; a list of objects is needed`);
  for (const [index, record] of value.entries())
    yield { record: record as Record<string, unknown>, source: path, index };
}

function openPart(path: string, format: TableFormat): Part {
  const state: Omit<Part, 'rows'> = { path, columns: undefined, current: undefined, key: -1 };
  const noteHeader = (columns: readonly string[]): void => {
    state.columns = columns;
  };
  const open = (): AsyncIterator<Row> => {
    if (format === 'json') return readJsonTable(path);
    const chunks = createInputLedger().read(path);
    const selection = createRowSelection();
    return format === 'csv'
      ? readCsvRows(chunks, path, selection, ',', noteHeader)
      : readJsonLines(chunks, path, selection);
  };
  return Object.assign(state, { rows: open() });
}

/** Goes on to the next row and its key. The key may not fall within a part: parts are written in document order. */
async function advance(part: Part, keyColumn: string): Promise<void> {
  const step = await part.rows.next();
  part.current = step.done ? undefined : step.value;
  if (!part.current) return;
  const { record } = part.current;
  part.columns ??= Object.keys(record);
  if (!Object.hasOwn(record, keyColumn)) {
    throw new InputError(
      `${placeOf(part.current)}: no column "${keyColumn}"${didYouMean(keyColumn, Object.keys(record))}`,
    );
  }
  const key = Number(record[keyColumn]);
  if (!Number.isInteger(key) || record[keyColumn] === '') {
    throw new InputError(
      `${placeOf(part.current)}: column "${keyColumn}" holds ${JSON.stringify(record[keyColumn])}, an index is needed`,
    );
  }
  if (key < part.key)
    throw new InputError(
      `${placeOf(part.current)}: "${keyColumn}" falls from ${part.key} to ${key}; the rows are not in order`,
    );
  part.key = key;
}

/**
 * Opens the tables that shards wrote and unites them by the index column: a merge of sorted streams, one row of each
 * part in memory.
 * @throws InputError when columns differ, a part is out of order, or an index stands in two parts
 */
export async function openMergedTable(
  paths: readonly string[],
  format: TableFormat | undefined,
  keyColumn: string,
): Promise<MergedTable> {
  const parts = paths.map((path) => openPart(path, tableFormatOf(path, format)));
  for (const part of parts) await advance(part, keyColumn);
  const known = parts.filter((part) => part.columns !== undefined);
  const columns = known[0]?.columns ?? [];
  for (const part of known) {
    if (part.columns?.join('\n') !== columns.join('\n')) {
      throw new InputError(`${known[0].path} and ${part.path} have different columns; unite tables of one run`);
    }
  }
  async function* rows(): AsyncGenerator<readonly Cell[], void, undefined> {
    for (;;) {
      let least: Part | undefined;
      for (const part of parts) {
        if (!part.current) continue;
        if (least && part.key === least.key) {
          throw new InputError(`${least.path} and ${part.path} both hold ${keyColumn} ${part.key}; the parts overlap`);
        }
        if (!least || part.key < least.key) least = part;
      }
      if (!least) return;
      // All rows of one document stand together in the part that scored it.
      for (const key = least.key; least.current && least.key === key; await advance(least, keyColumn)) {
        const { record } = least.current;
        yield columns.map((name) => record[name] as Cell);
      }
    }
  }
  return { columns, rows };
}
