import { InputError } from '../errors.js';
import { openFeatures } from '../features/open-features.js';
import type { FeatureSource } from '../formats/feature-matrix.js';
import { createInputLedger, gunzipChunks, isGzip, peekBytes } from '../formats/inputs.js';
import { type NumericTableOptions, readNumericTable } from '../formats/numeric-table.js';
import { type ColumnStore, type ColumnStoreBuilder, createColumnStore } from './column-store.js';

export interface ColumnSourceOptions {
  /** A column of a text table that is taken as text: the outcome. */
  readonly textColumn?: string;
  /** Which of the feature columns are taken (shards). */
  readonly takes?: (index: number) => boolean;
  readonly maxBytes: number;
  readonly scratchDirectory: string;
}

/** The features by columns, and what stood beside them. */
export interface OpenColumns {
  readonly store: ColumnStore;
  /** Names of the columns of the store. */
  readonly names: readonly string[];
  /** Place of each column of the store among all feature columns. */
  readonly places: Int32Array;
  /** All feature columns, those of other shards included. */
  readonly total: number;
  /** Cells of `textColumn`, one a row. */
  readonly texts?: readonly string[];
}

/** Whether a path names a table that is read as a stream of numbers; its delimiter. */
export function streamedDelimiter(path: string): ',' | '\t' | undefined {
  if (/\.csv(\.gz)?$/i.test(path)) return ',';
  return /\.tsv(\.gz)?$/i.test(path) ? '\t' : undefined;
}

const ROWS_AT_ONCE = 64 << 20;

/**
 * Reads features into a store of columns: CSV and TSV as a stream of numbers, all else through `openFeatures`.
 * @throws InputError for a missing file or column, cells that are no numbers, NaN or infinite, or no rows
 */
export async function openColumns(source: FeatureSource, options: ColumnSourceOptions): Promise<OpenColumns> {
  const delimiter = source.kind === 'file' ? streamedDelimiter(source.path) : undefined;
  if (source.kind === 'file' && delimiter !== undefined) return openTable(source, delimiter, options);
  const matrix = await openFeatures(source);
  const takes = options.takes ?? (() => true);
  const places = Int32Array.from(Array.from({ length: matrix.columns }, (_, j) => j).filter(takes));
  const name = (place: number): string => matrix.columnNames?.[place] ?? `column_${place}`;
  const names = Array.from(places, name);
  const builder = createColumnStore(places.length, storeOptions(matrix.name, names, options));
  try {
    const most = Math.max(1, Math.min(matrix.rows, Math.floor(ROWS_AT_ONCE / (8 * matrix.columns))));
    const rows = new Float64Array(most * matrix.columns);
    const picked = new Float64Array(places.length);
    for (let start = 0; start < matrix.rows; start += most) {
      const count = Math.min(most, matrix.rows - start);
      matrix.readRows(start, count, rows);
      for (let r = 0; r < count; r++) {
        for (let j = 0; j < places.length; j++) picked[j] = rows[r * matrix.columns + places[j]];
        builder.append(picked);
      }
    }
    return { store: builder.finish(), names, places, total: matrix.columns };
  } catch (error) {
    builder.abandon();
    throw error;
  } finally {
    matrix.close();
  }
}

function storeOptions(name: string, names: readonly string[], options: ColumnSourceOptions) {
  const { maxBytes, scratchDirectory } = options;
  return { name, columnName: (column: number) => names[column] ?? String(column), maxBytes, scratchDirectory };
}

async function openTable(
  source: Extract<FeatureSource, { kind: 'file' }>,
  delimiter: ',' | '\t',
  options: ColumnSourceOptions,
): Promise<OpenColumns> {
  const { path } = source;
  const raw = createInputLedger().read(path);
  const { head, chunks } = await peekBytes(raw);
  const table: NumericTableOptions = {
    delimiter,
    ...(options.textColumn !== undefined && { text: [options.textColumn] }),
    ...(source.columns && { columns: source.columns.filter((name) => name !== options.textColumn) }),
    ...(source.except && { except: source.except }),
    ...(options.takes && { takes: options.takes }),
    ...(source.limit !== undefined && { limit: source.limit }),
  };
  let builder: ColumnStoreBuilder | undefined;
  let names: readonly string[] = [];
  let places = new Int32Array(0);
  let total = 0;
  const texts: string[] = [];
  try {
    await readNumericTable(isGzip(head) ? gunzipChunks(chunks, path) : chunks, path, table, {
      onHeader(taken, all) {
        if (all.length === 0) throw new InputError(`${path}: no column is left for the features`);
        names = taken;
        total = all.length;
        places = Int32Array.from(Array.from(all, (_, j) => j).filter((j) => options.takes?.(j) ?? true));
        builder = createColumnStore(taken.length, storeOptions(path, taken, options));
      },
      onRow(values, [text]) {
        builder?.append(values);
        if (options.textColumn !== undefined) texts.push(text);
      },
    });
    const store = (builder as ColumnStoreBuilder | undefined)?.finish();
    if (store === undefined || store.rows === 0) throw new InputError(`${path}: has no rows`);
    return { store, names, places, total, ...(options.textColumn !== undefined && { texts }) };
  } catch (error) {
    builder?.abandon();
    throw error;
  }
}
