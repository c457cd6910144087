import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { type FileMetaData, parquetMetadataAsync, parquetReadObjects } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { InputError } from '../errors.js';
import type { Row, RowSelection } from './rows.js';

/** No codec of Parquet expands honest data further than this; a page that claims more is damaged or hostile. */
const MAX_EXPANSION = 65536;
const MAX_PAGE_BYTES = 2 ** 31 - 1;

interface FileReader {
  readonly byteLength: number;
  slice(start: number, end?: number): ArrayBuffer;
}

/** Random access to an open file. A range outside of it is refused before anything is allocated. */
function fileReader(descriptor: number): FileReader {
  const byteLength = fstatSync(descriptor).size;
  return {
    byteLength,
    slice(start, end = byteLength) {
      if (!(start >= 0 && end >= start && end <= byteLength))
        throw new Error(`bytes ${start} to ${end} are not in the file`);
      const bytes = new Uint8Array(end - start);
      for (let done = 0; done < bytes.length; ) {
        const count = readSync(descriptor, bytes, done, bytes.length - done, start + done);
        if (count === 0) throw new Error('the file became shorter while it was read');
        done += count;
      }
      return bytes.buffer;
    },
  };
}

type Decompress = (input: Uint8Array, outputLength: number) => Uint8Array;

/** Decompressors that refuse an output out of proportion to their input. */
const boundedCompressors: Record<string, Decompress> = Object.fromEntries(
  Object.entries(compressors).map(([codec, decompress]): [string, Decompress] => [
    codec,
    (input, outputLength) => {
      if (!(outputLength >= 0 && outputLength <= Math.min(MAX_PAGE_BYTES, input.length * MAX_EXPANSION))) {
        throw new Error(`a ${codec} page of ${input.length} bytes claims ${outputLength} bytes`);
      }
      return decompress(input, outputLength);
    },
  ]),
);

/** 64-bit integers as numbers where a number holds them; lists and structs likewise. */
function plainValue(value: unknown): unknown {
  if (typeof value === 'bigint') {
    return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
  }
  if (Array.isArray(value)) return value.map(plainValue);
  if (value instanceof BigInt64Array || value instanceof BigUint64Array) return Array.from(value, plainValue);
  return value;
}

function checkMetadata(metadata: FileMetaData, byteLength: number): void {
  let rows = 0n;
  for (const [i, group] of metadata.row_groups.entries()) {
    if (
      group.num_rows < 0n ||
      group.num_rows > BigInt(byteLength) * BigInt(MAX_EXPANSION) ||
      group.num_rows > 0xffffffffn
    ) {
      throw new Error(`row group ${i} claims ${group.num_rows} rows`);
    }
    for (const column of group.columns) {
      const stored = column.meta_data?.total_compressed_size ?? 0n;
      if (stored < 0n || stored > BigInt(byteLength))
        throw new Error(`row group ${i} claims ${stored} bytes in a column`);
    }
    rows += group.num_rows;
  }
  if (rows !== metadata.num_rows)
    throw new Error(`the row groups hold ${rows} rows, the footer says ${metadata.num_rows}`);
}

const asInputError = (path: string, error: unknown): InputError =>
  new InputError(`${path}: not a readable Parquet file (${(error as Error).message})`);

/**
 * Rows of a Parquet file. One row group is in memory at a time; groups without a wanted row are not read. Codecs:
 * snappy, gzip, brotli, lz4, zstd. Integers of 64 bits come as numbers where these hold them, else as bigint.
 * Throws InputError when the file is not Parquet or is damaged.
 */
export async function* readParquetRows(path: string, selection: RowSelection): AsyncGenerator<Row, void, undefined> {
  const descriptor = openSync(path, 'r');
  try {
    const file = fileReader(descriptor);
    let metadata: FileMetaData;
    try {
      metadata = await parquetMetadataAsync(file);
      checkMetadata(metadata, file.byteLength);
    } catch (error) {
      throw asInputError(path, error);
    }
    let groupStart = 0;
    for (const group of metadata.row_groups) {
      const groupRows = Number(group.num_rows);
      if (!selection.wantsAny(groupRows)) {
        selection.pass(groupRows);
        groupStart += groupRows;
        continue;
      }
      let rows: Record<string, unknown>[];
      try {
        rows = await parquetReadObjects({
          file,
          metadata,
          compressors: boundedCompressors,
          rowStart: groupStart,
          rowEnd: groupStart + groupRows,
        });
      } catch (error) {
        throw asInputError(path, error);
      }
      groupStart += groupRows;
      for (const row of rows) {
        const choice = selection.next();
        if (choice === 'stop') return;
        if (choice === 'skip') continue;
        const record: Record<string, unknown> = {};
        for (const [name, value] of Object.entries(row)) record[name] = plainValue(value);
        yield { record, source: path, index: selection.index };
      }
    }
  } finally {
    closeSync(descriptor);
  }
}
