import { didYouMean, InputError } from '../errors.js';
import { createInputLedger, expandSources, gunzipChunks, type InputLedger, isGzip, peekBytes } from './inputs.js';
import { createRowSelection, placeOf, type Row, type RowSelection, type Shard } from './rows.js';
import type { TextSplit } from './text.js';

export type { Row, Shard } from './rows.js';
export type { TextSplit } from './text.js';

/** How the bytes of an input are read. `npy` holds already tokenised rows. */
export type DataFormat = 'txt' | 'jsonl' | 'csv' | 'tsv' | 'parquet' | 'npy';

export const DATA_FORMATS: readonly DataFormat[] = ['txt', 'jsonl', 'csv', 'tsv', 'parquet', 'npy'];
export const TEXT_SPLITS: readonly TextSplit[] = ['file', 'line', 'block'];

const FORMAT_BY_EXTENSION: Readonly<Record<string, DataFormat>> = {
  txt: 'txt',
  text: 'txt',
  md: 'txt',
  jsonl: 'jsonl',
  ndjson: 'jsonl',
  csv: 'csv',
  tsv: 'tsv',
  parquet: 'parquet',
  npy: 'npy',
};

export interface RecordOptions {
  /** Overrides the file name's extension; standard input is recognised by its first bytes when this is not given. */
  readonly format?: DataFormat;
  /** What one record of a plain text is; default `file`. */
  readonly textSplit?: TextSplit;
  /** Field under which a plain text's content appears; default `text`. */
  readonly textField?: string;
  /** Field with token ids; default `input_ids`. Rows of an .npy array appear under it. */
  readonly inputIdsField?: string;
  /** Only the first `limit` records over all inputs. */
  readonly limit?: number;
  /** Only the records of this shard; `index` still counts over all. */
  readonly shard?: Shard;
  /** Where the inputs' digests are kept. */
  readonly ledger?: InputLedger;
}

export interface DocumentOptions extends RecordOptions {
  /** Field that names a document; default `id`. Without it a text file is named by its path, other rows by index. */
  readonly idField?: string;
  /** Whether a row with neither text nor token ids is an error; default true. */
  readonly requireText?: boolean;
}

/** One document. `index` counts over all inputs from 0 and does not depend on the shard. */
export interface Document {
  readonly id: string;
  readonly index: number;
  readonly source: string;
  /** 1-based line, where the format has lines. */
  readonly line?: number;
  readonly text?: string;
  /** Token ids of an already tokenised row. */
  readonly inputIds?: Int32Array;
  /** The whole row, for other fields (prompt, answer, choices). */
  readonly record: Readonly<Record<string, unknown>>;
}

/** The format that a file name stands for, without a final `.gz`. Throws InputError for an unknown extension. */
function formatByName(path: string): DataFormat {
  const extension = /\.([^./\\]+)$/.exec(path.replace(/\.gz$/i, ''))?.[1]?.toLowerCase();
  const format = extension === undefined ? undefined : FORMAT_BY_EXTENSION[extension];
  if (format) return format;
  const known = Object.keys(FORMAT_BY_EXTENSION);
  const what = extension === undefined ? 'no extension' : `unknown extension ".${extension}"`;
  throw new InputError(
    `${path}: ${what}${didYouMean(extension ?? '', known)} known: ${known.map((name) => `.${name}`).join(' ')}; ` +
      'or name the format with --data-format',
  );
}

/** Recognises a format by first bytes; a first line of comma-separated names that has the text field means CSV. */
function sniffFormat(head: Uint8Array, textField: string): DataFormat {
  const start = Buffer.from(head.buffer, head.byteOffset, head.byteLength).toString('latin1');
  if (start.startsWith('PAR1')) return 'parquet';
  if (start.startsWith('\x93NUMPY')) return 'npy';
  if (/^(\xef\xbb\xbf)?\s*\{/.test(start)) return 'jsonl';
  const header = start.slice(0, start.search(/[\r\n]|$/)).split(',');
  if (header.length > 1 && header.some((name) => name.trim().replace(/^"(.*)"$/, '$1') === textField)) return 'csv';
  return 'txt';
}

async function* readStreamed(
  source: string,
  ledger: InputLedger,
  selection: RowSelection,
  options: RecordOptions,
): AsyncGenerator<Row, void, undefined> {
  const textField = options.textField ?? 'text';
  let input = await peekBytes(ledger.read(source));
  try {
    if (isGzip(input.head)) input = await peekBytes(gunzipChunks(input.chunks, source));
    else if (/\.gz$/i.test(source)) throw new InputError(`${source}: named .gz but not gzip; rename or compress it`);
    if (input.head.length === 0) throw new InputError(`${source === '-' ? 'standard input' : source}: is empty`);
    const format = options.format ?? (source === '-' ? sniffFormat(input.head, textField) : formatByName(source));
    switch (format) {
      case 'txt':
        yield* (await import('./text.js')).readTextRows(
          input.chunks,
          source,
          selection,
          options.textSplit ?? 'file',
          textField,
        );
        return;
      case 'jsonl':
        yield* (await import('./jsonl.js')).readJsonLines(input.chunks, source, selection);
        return;
      case 'csv':
      case 'tsv':
        yield* (await import('./csv.js')).readCsvRows(input.chunks, source, selection, format === 'csv' ? ',' : '\t');
        return;
      default:
        throw new InputError(`${source}: ${format} needs random access; write it to a file first, not gzipped`);
    }
  } finally {
    await input.chunks.return();
  }
}

/**
 * Records of all sources, in order, streamed: memory is one chunk and one record (one row group for Parquet).
 * @param patterns paths, globs, or `-` for standard input
 * @throws InputError naming file and line, row or byte: missing or empty file, unknown extension, damaged gzip, a line
 *   that is not a JSON object, invalid UTF-8, damaged CSV or Parquet
 */
export async function* readRecords(
  patterns: readonly string[],
  options: RecordOptions = {},
): AsyncGenerator<Row, void, undefined> {
  const ledger = options.ledger ?? createInputLedger();
  const selection = createRowSelection(options.limit, options.shard);
  for (const source of await expandSources(patterns)) {
    // Later inputs still count among the run's inputs, so that the report's list does not depend on the limit.
    ledger.note(source);
    if (selection.exhausted) continue;
    const before = selection.index;
    const format = options.format ?? (source === '-' ? undefined : formatByName(source));
    const compressed = /\.gz$/i.test(source);
    if (source !== '-' && !compressed && format === 'parquet') {
      yield* (await import('./parquet.js')).readParquetRows(source, selection);
    } else if (source !== '-' && !compressed && format === 'npy') {
      yield* (await import('./token-rows.js')).readTokenRows(source, selection, options.inputIdsField ?? 'input_ids');
    } else {
      yield* readStreamed(source, ledger, selection, options);
    }
    if (selection.index === before && !selection.exhausted) throw new InputError(`${source}: holds no record`);
  }
}

/** The fields of a row, for messages. */
function fieldsOf(record: Readonly<Record<string, unknown>>): string {
  const names = Object.keys(record);
  const shown = names.slice(0, 12).join(', ');
  return names.length === 0 ? 'the row has no fields' : `fields: ${shown}${names.length > 12 ? ', ...' : ''}`;
}

/** The value of a field. Throws InputError with the row's place and the nearest field name when it is not there. */
export function requireField(row: Pick<Row, 'record' | 'source' | 'index' | 'line'>, field: string): unknown {
  if (Object.hasOwn(row.record, field)) return row.record[field];
  throw new InputError(
    `${placeOf(row)}: no field "${field}" (${fieldsOf(row.record)})${didYouMean(field, Object.keys(row.record))}`,
  );
}

/** The value of a text field. Throws InputError when it is missing, not a string, or not well-formed Unicode. */
export function requireText(row: Pick<Row, 'record' | 'source' | 'index' | 'line'>, field: string): string {
  const value = requireField(row, field);
  if (typeof value !== 'string') {
    const kind = value === null ? 'null' : Array.isArray(value) ? 'a list' : `a ${typeof value}`;
    throw new InputError(`${placeOf(row)}: field "${field}" holds ${kind}, a string is needed`);
  }
  // JSON can spell half a surrogate pair, which no UTF-8 text and so no tokenizer can hold.
  if (/\p{Surrogate}/u.test(value))
    throw new InputError(`${placeOf(row)}: field "${field}" holds an unpaired surrogate`);
  return value;
}

/** Token ids of a row. Throws InputError unless they are integers of 0 to 2^31 - 1. */
function tokenIds(row: Row, field: string, value: unknown): Int32Array {
  if (value instanceof Int32Array) return value;
  const values = ArrayBuffer.isView(value) && !(value instanceof DataView) ? Array.from(value as Int32Array) : value;
  if (!Array.isArray(values)) throw new InputError(`${placeOf(row)}: field "${field}" is not a list of token ids`);
  const ids = new Int32Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const id: unknown = values[i];
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id > 0x7fffffff) {
      throw new InputError(`${placeOf(row)}: field "${field}", entry ${i}: ${String(id)} is not a token id`);
    }
    ids[i] = id;
  }
  return ids;
}

/**
 * Documents of all sources, in order, streamed. A row with the text field is a text, a row with `input_ids` is
 * already tokenised, a row may have both.
 * @throws InputError as `readRecords`, and for a missing field or a value of another type, with file and line
 */
export async function* readDocuments(
  patterns: readonly string[],
  options: DocumentOptions = {},
): AsyncGenerator<Document, void, undefined> {
  const textField = options.textField ?? 'text';
  const idField = options.idField ?? 'id';
  const idsField = options.inputIdsField ?? 'input_ids';
  for await (const row of readRecords(patterns, options)) {
    const { record, source, index, line } = row;
    const inputIds = Object.hasOwn(record, idsField) ? tokenIds(row, idsField, record[idsField]) : undefined;
    const wanted = Object.hasOwn(record, textField) || ((options.requireText ?? true) && inputIds === undefined);
    const text = wanted ? requireText(row, textField) : undefined;
    const named = record[idField];
    const fallback = row.wholeFile ? source : String(index);
    const id = typeof named === 'string' || typeof named === 'number' ? String(named) : fallback;
    yield { id, index, source, line, text, inputIds, record };
  }
}
