import { InputError } from '../../errors.js';
import { openRange } from '../../formats/files.js';
import { expandSources, gunzipChunks, isGzip } from '../../formats/inputs.js';
import type { DumpRow } from './dump-rows.js';
import type { FieldPicker } from './fields.js';
import { readJsonRows } from './read-jsonl.js';
import type { RolloutRequest } from './types.js';

/** A file of a dump: its path, and what messages call it. */
export interface DumpSource {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
  /** By the first bytes. Records of text are lines, those of the others rows. */
  readonly kind: 'text' | 'gzip' | 'parquet' | 'npz';
}

const CHUNK_BYTES = 8 << 20;

/** @throws InputError for an empty file */
function recognise(path: string, name: string): Pick<DumpSource, 'bytes' | 'kind'> {
  const file = openRange(path);
  try {
    if (file.size === 0) throw new InputError(`${name}: is empty`);
    const head = Buffer.alloc(Math.min(4, file.size));
    file.readInto(0, head.length, head);
    const start = head.toString('latin1');
    const kinds = { gzip: isGzip(head), parquet: start === 'PAR1', npz: start === 'PK\x03\x04' };
    return { bytes: file.size, kind: kinds.gzip ? 'gzip' : kinds.parquet ? 'parquet' : kinds.npz ? 'npz' : 'text' };
  } finally {
    file.close();
  }
}

/** The files of a request, in order. @throws InputError when one is missing */
export async function dumpSources(request: RolloutRequest): Promise<DumpSource[]> {
  const sources: DumpSource[] = [];
  for (const name of await expandSources(request.paths)) {
    const path = name === '-' ? request.standardInput : name;
    if (path === undefined) throw new InputError('standard input (-) was not saved for reading');
    sources.push({ name, path, ...recognise(path, name) });
  }
  return sources;
}

/** The bytes of a file in chunks: each its own memory, or all in one buffer, which the next chunk overwrites. */
async function* fileChunks(
  path: string,
  passed: (bytes: number) => void,
  oneBuffer: boolean,
): AsyncGenerator<Uint8Array, void, undefined> {
  const file = openRange(path);
  try {
    let buffer = new Uint8Array(0);
    for (let at = 0; at < file.size; ) {
      const length = Math.min(CHUNK_BYTES, file.size - at);
      if (!oneBuffer || buffer.length < length) buffer = new Uint8Array(length);
      file.readInto(at, length, buffer);
      at += length;
      passed(length);
      yield buffer.subarray(0, length);
    }
  } finally {
    file.close();
  }
}

/** What a reader is told. */
export interface ReadOptions {
  readonly picker: FieldPicker;
  /** Records that are wanted at most. */
  readonly limit?: number;
  /** Columns of texts, lists and objects that are decoded. */
  readonly isWanted: (column: string) => boolean;
  readonly threads: number;
  /** Is told how many bytes of the file were read. */
  readonly passed: (bytes: number) => void;
}

/**
 * Records of one file, in batches: JSON Lines (also gzipped), Parquet, or .npz, recognised by the first bytes.
 * @throws InputError naming file and line or row
 */
export async function* readDump(
  source: DumpSource,
  number: number,
  { picker, limit, isWanted, threads, passed }: ReadOptions,
): AsyncGenerator<readonly DumpRow[], void, undefined> {
  const { path, name, kind, bytes } = source;
  if (kind === 'parquet') {
    passed(bytes);
    yield* (await import('./read-parquet.js')).readParquetDump(path, name, number, limit);
    return;
  }
  if (kind === 'npz') {
    passed(bytes);
    yield* (await import('./read-npz.js')).readNpzRows(path, name, number, picker);
    return;
  }
  const chunks = fileChunks(path, passed, kind === 'text');
  yield* readJsonRows(kind === 'gzip' ? gunzipChunks(chunks, name) : chunks, name, number, isWanted, threads);
}
