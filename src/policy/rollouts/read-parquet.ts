import { InputError } from '../../errors.js';
import { readParquetRows } from '../../formats/parquet.js';
import { createRowSelection } from '../../formats/rows.js';
import type { DumpRow } from './dump-rows.js';

const BATCH_ROWS = 256;

/** Rows of a Parquet file with list columns, in batches. @throws InputError when it is damaged */
export async function* readParquetDump(
  path: string,
  name: string,
  source: number,
  limit: number | undefined,
): AsyncGenerator<DumpRow[], void, undefined> {
  let batch: DumpRow[] = [];
  let row = 0;
  try {
    for await (const { record } of readParquetRows(path, createRowSelection(limit))) {
      batch.push({ source, line: ++row, fields: new Map(Object.entries(record)) });
      if (batch.length < BATCH_ROWS) continue;
      yield batch;
      batch = [];
    }
  } catch (error) {
    throw error instanceof InputError && path !== name ? new InputError(error.message.replaceAll(path, name)) : error;
  }
  if (batch.length > 0) yield batch;
}
