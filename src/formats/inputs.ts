import { createHash } from 'node:crypto';
import { access, constants, type FileHandle, open, readdir, stat } from 'node:fs/promises';
import { basename, dirname, isAbsolute } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { didYouMean, InputError } from '../errors.js';
import { fileError } from './files.js';

/** SHA-256 of one input as stored (before any gunzip). `path` is as the user gave it, `-` for standard input. */
export interface InputDigest {
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
}

/** Reads inputs and computes their SHA-256 on the way, so that no large file is read twice only to be hashed. */
export interface InputLedger {
  /** The bytes of `path` (or of standard input for `-`) in chunks, hashed as they pass. May be left early. */
  read(path: string): AsyncGenerator<Uint8Array, void, undefined>;
  /** Names a file that somebody else reads by random access; `digests` hashes it. */
  note(path: string): void;
  /**
   * The digests of all inputs in the order of their first use. What was not read to its end (`--limit`, random
   * access) is streamed through now, so that a digest is always of the whole input.
   */
  digests(): Promise<InputDigest[]>;
}

const CHUNK_BYTES = 256 * 1024;
const STANDARD_INPUT = '-';

interface LedgerEntry {
  readonly path: string;
  readonly hash: ReturnType<typeof createHash>;
  /** Everything before this offset is in the hash. */
  hashed: number;
  /** The one reader of standard input or of a pipe, which cannot be read again from the start. */
  chunks?: AsyncIterator<Uint8Array | string>;
  result?: InputDigest;
}

/** Stands for "this file can be read"; the error otherwise. Does not open it: opening a pipe twice would break it. */
async function checkReadable(path: string): Promise<{ regular: boolean }> {
  const info = await stat(path).catch((error: NodeJS.ErrnoException) => error);
  if (info instanceof Error) {
    if (info.code !== 'ENOENT') throw fileError(info, path, 'read');
    const siblings = await readdir(dirname(path)).catch((): string[] => []);
    throw new InputError(`${path}: no such file${didYouMean(basename(path), siblings)}`);
  }
  if (info.isDirectory())
    throw new InputError(`${path}: is a directory; name its files, for example "${path}/*.jsonl"`);
  await access(path, constants.R_OK).catch((error: unknown) => {
    throw fileError(error, path, 'read');
  });
  return { regular: info.isFile() };
}

async function* readFileChunks(path: string): AsyncGenerator<Uint8Array, void, undefined> {
  await checkReadable(path);
  let file: FileHandle | undefined;
  try {
    file = await open(path, 'r');
    for (;;) {
      const buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES);
      const { bytesRead } = await file.read(buffer, 0, CHUNK_BYTES, null);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } catch (error) {
    throw fileError(error, path, 'read');
  } finally {
    await file?.close();
  }
}

/**
 * A ledger of inputs.
 * @param stdin what `-` reads; the process's standard input unless a test gives another
 */
export function createInputLedger(stdin: Readable = process.stdin): InputLedger {
  const entries = new Map<string, LedgerEntry>();

  const entryOf = (path: string): LedgerEntry => {
    let entry = entries.get(path);
    if (entry === undefined) {
      entry = { path, hash: createHash('sha256'), hashed: 0 };
      entries.set(path, entry);
    }
    return entry;
  };
  const close = (entry: LedgerEntry): void => {
    entry.result ??= { path: entry.path, sha256: entry.hash.digest('hex'), bytes: entry.hashed };
  };

  /** A regular file: every pass starts at its first byte, and adds to the hash what no earlier pass has reached. */
  async function* readFile(entry: LedgerEntry): AsyncGenerator<Uint8Array, void, undefined> {
    let position = 0;
    for await (const chunk of readFileChunks(entry.path)) {
      position += chunk.length;
      const fresh = position - entry.hashed;
      if (fresh > 0) {
        entry.hash.update(fresh >= chunk.length ? chunk : chunk.subarray(chunk.length - fresh));
        entry.hashed = position;
      }
      yield chunk;
    }
    close(entry);
  }

  /** Standard input and pipes: bytes come once, so a later pass goes on where the last one stopped. */
  async function* readOnce(entry: LedgerEntry): AsyncGenerator<Uint8Array, void, undefined> {
    entry.chunks ??=
      entry.path === STANDARD_INPUT
        ? (stdin.iterator({ destroyOnReturn: false }) as AsyncIterator<Uint8Array | string>)
        : readFileChunks(entry.path);
    for (;;) {
      const step = await entry.chunks.next();
      if (step.done) break;
      const chunk = typeof step.value === 'string' ? Buffer.from(step.value) : step.value;
      entry.hash.update(chunk);
      entry.hashed += chunk.length;
      yield chunk;
    }
    close(entry);
  }

  async function* read(path: string): AsyncGenerator<Uint8Array, void, undefined> {
    const entry = entryOf(path);
    if (path !== STANDARD_INPUT && (await checkReadable(path)).regular) yield* readFile(entry);
    else if (entry.chunks) throw new InputError(`${path === '-' ? 'standard input (-)' : path} can be read only once`);
    else yield* readOnce(entry);
  }

  return {
    read,
    note: (path) => void entryOf(path),
    async digests() {
      const results: InputDigest[] = [];
      for (const entry of entries.values()) {
        if (entry.result === undefined) {
          const rest = entry.chunks || entry.path === STANDARD_INPUT ? readOnce(entry) : read(entry.path);
          for await (const _ of rest);
        }
        if (entry.result) results.push(entry.result);
      }
      return results;
    },
  };
}

/** True when the bytes open with the gzip magic number (RFC 1952, section 2.3.1). */
export function isGzip(bytes: Uint8Array): boolean {
  return bytes.length >= 2 && bytes[0] === 0x1f && bytes[1] === 0x8b;
}

/** Decompresses a gzip stream, members one after another. Throws InputError when it is truncated or damaged. */
export async function* gunzipChunks(
  chunks: AsyncIterable<Uint8Array>,
  source: string,
): AsyncGenerator<Uint8Array, void, undefined> {
  const gunzip = createGunzip({ chunkSize: CHUNK_BYTES });
  // Errors of the source reach the reader through the destroyed gunzip; the promise only keeps them observed.
  const finished = pipeline(Readable.from(chunks, { highWaterMark: 1 }), gunzip).catch(() => undefined);
  try {
    for await (const chunk of gunzip) yield chunk as Uint8Array;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (code === 'Z_BUF_ERROR')
      throw new InputError(`${source}: the gzip stream is truncated; copy or compress it again`);
    if (code.startsWith('Z_')) throw new InputError(`${source}: damaged gzip stream (${(error as Error).message})`);
    throw error;
  } finally {
    gunzip.destroy();
    await finished;
  }
}

/** The first bytes of a stream beside the whole stream, so that a format can be recognised before it is chosen. */
export async function peekBytes(
  chunks: AsyncGenerator<Uint8Array, void, undefined>,
  wanted = 4096,
): Promise<{ head: Uint8Array; chunks: AsyncGenerator<Uint8Array, void, undefined> }> {
  const held: Uint8Array[] = [];
  let length = 0;
  while (length < wanted) {
    const step = await chunks.next();
    if (step.done) break;
    held.push(step.value);
    length += step.value.length;
  }
  async function* replay(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for (let chunk = held.shift(); chunk !== undefined; chunk = held.shift()) yield chunk;
      yield* chunks;
    } finally {
      await chunks.return();
    }
  }
  const head = held.length === 1 ? held[0] : Buffer.concat(held);
  return { head: head.subarray(0, wanted), chunks: replay() };
}

/**
 * The files that `--data` names, in order: a path that exists stands for itself, a pattern for its matches (sorted by
 * code point), `-` for standard input. Throws InputError when nothing matches.
 */
export async function expandSources(patterns: readonly string[]): Promise<string[]> {
  const sources: string[] = [];
  for (const pattern of patterns) {
    if (pattern === STANDARD_INPUT) {
      if (sources.includes(STANDARD_INPUT)) throw new InputError('standard input (-) is named twice');
      sources.push(pattern);
      continue;
    }
    if (/[*?[{]/.test(pattern) && !(await stat(pattern).catch(() => undefined))) {
      const { glob } = await import('tinyglobby');
      const matches = await glob(pattern, { onlyFiles: true, expandDirectories: false, absolute: isAbsolute(pattern) });
      if (matches.length === 0) throw new InputError(`${pattern}: no file matches this pattern`);
      sources.push(...matches.sort());
      continue;
    }
    await checkReadable(pattern);
    sources.push(pattern);
  }
  if (sources.length === 0) throw new InputError('no input file; name one with --data, or - for standard input');
  return sources;
}
