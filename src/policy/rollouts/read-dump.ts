import { InputError } from '../../errors.js';
import { openRange } from '../../formats/files.js';
import { expandSources, gunzipChunks, isGzip, peekBytes } from '../../formats/inputs.js';
import type { DumpRow } from './dump-rows.js';
import { readJsonRows } from './read-jsonl.js';
import type { RolloutRequest } from './types.js';

/** A file of a dump: its path, and what messages call it. */
export interface DumpSource {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
  /** Whether records are lines; else messages count rows. */
  readonly lines: boolean;
}

const CHUNK_BYTES = 8 << 20;

/** The files of a request, in order. @throws InputError when one is missing */
export async function dumpSources(request: RolloutRequest): Promise<DumpSource[]> {
  const sources: DumpSource[] = [];
  for (const name of await expandSources(request.paths)) {
    const path = name === '-' ? request.standardInput : name;
    if (path === undefined) throw new InputError('standard input (-) was not saved for reading');
    const file = openRange(path);
    sources.push({ name, path, bytes: file.size, lines: true });
    file.close();
  }
  return sources;
}

/** The bytes of a file in chunks, each its own memory. */
async function* fileChunks(path: string, passed: (bytes: number) => void): AsyncGenerator<Uint8Array, void, undefined> {
  const file = openRange(path);
  try {
    for (let at = 0; at < file.size; ) {
      const length = Math.min(CHUNK_BYTES, file.size - at);
      const chunk = new Uint8Array(length);
      file.readInto(at, length, chunk);
      at += length;
      passed(length);
      yield chunk;
    }
  } finally {
    file.close();
  }
}

const MAGIC = { parquet: 'PAR1', zip: 'PK' } as const;

/** What a reader is told. */
export interface ReadOptions {
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
  { isWanted, threads, passed }: ReadOptions,
): AsyncGenerator<readonly DumpRow[], void, undefined> {
  let input = await peekBytes(fileChunks(source.path, passed));
  try {
    if (input.head.length === 0) throw new InputError(`${source.name}: is empty`);
    const start = Buffer.from(input.head.subarray(0, 4)).toString('latin1');
    if (start === MAGIC.parquet || start.startsWith(MAGIC.zip)) {
      throw new InputError(`${source.name}: not read yet`);
    }
    if (isGzip(input.head)) input = await peekBytes(gunzipChunks(input.chunks, source.name));
    yield* readJsonRows(input.chunks, source.name, number, isWanted, threads);
  } finally {
    await input.chunks.return();
  }
}
