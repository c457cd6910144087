import fs from 'node:fs';
import { InputError, RunError } from '../errors.js';

/** Codes of system errors that a retry, more space or more memory may mend; all others are wrong input. */
const RETRY_CODES: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT', 'EIO', 'ENOMEM', 'EMFILE', 'ENFILE', 'EFBIG']);

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or directory: check the path',
  EACCES: 'permission denied: change its permissions or choose another path',
  EPERM: 'operation not permitted: change its permissions or choose another path',
  EROFS: 'the file system is read-only: choose another path',
  EISDIR: 'is a directory: name a file',
  ENOTDIR: 'a part of the path is not a directory: check the path',
  ENAMETOOLONG: 'the name is too long: choose a shorter one',
  ELOOP: 'too many symbolic links: check the path',
  ENOSPC: 'no space left on the device: free some space and run again',
  EDQUOT: 'disk quota exceeded: free some space and run again',
  EIO: 'input/output error of the device: run again, and check the disk',
  ENOMEM: 'out of memory',
  EMFILE: 'too many open files: raise the limit (ulimit -n)',
  ENFILE: 'too many open files in the system',
  EFBIG: 'the file system cannot hold a file of this size',
};

/**
 * Turns an error of `node:fs` about `path` into the error to show: `RunError` for a full disk, lack of memory or
 * file handles and device errors, else `InputError`. Errors that do not come from the system are returned as they
 * are, and so is EPIPE, which ends a run quietly. `doing` is a verb in the infinitive ("read", "write").
 */
export function fileError(error: unknown, path: string, doing: string): unknown {
  const code = (error as NodeJS.ErrnoException | null)?.code;
  const known = error instanceof InputError || error instanceof RunError;
  if (known || code === undefined || code === 'EPIPE' || !/^E[A-Z0-9]+$/.test(code)) return error;
  const text = `${path}: cannot ${doing}: ${REASONS[code] ?? (error as Error).message}`;
  return RETRY_CODES.has(code) ? new RunError(text) : new InputError(text);
}

/** A regular file open for reading by ranges. */
export interface RangeFile {
  /** As the user gave it; used in messages. */
  readonly path: string;
  /** Size in bytes when it was opened. */
  readonly size: number;
  /**
   * Fills the first `length` bytes of `target` from byte `position` on; positions beyond 4 GiB are fine.
   * @throws InputError when the file ends before, RunError on a device error.
   */
  readInto(position: number, length: number, target: Uint8Array): void;
  close(): void;
}

/** `fs.readSync` takes at most 2^31 - 1 bytes. */
const READ_STEP = 1 << 30;

/**
 * Opens a regular file for reads by range.
 * @throws InputError when it does not exist, is not a regular file or may not be read.
 */
export function openRange(path: string): RangeFile {
  let fd: number;
  let size: number;
  try {
    // O_NONBLOCK: opening a named pipe that nobody writes must not hang; it is refused below.
    fd = fs.openSync(path, fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0));
  } catch (error) {
    throw fileError(error, path, 'open');
  }
  try {
    const stat = fs.fstatSync(fd);
    if (stat.isDirectory()) throw new InputError(`${path}: is a directory: name a file`);
    if (!stat.isFile())
      throw new InputError(`${path}: not a regular file: this format is read by ranges, save it first`);
    size = stat.size;
  } catch (error) {
    fs.closeSync(fd);
    throw fileError(error, path, 'open');
  }
  let open = true;
  return {
    path,
    size,
    readInto(position, length, target): void {
      if (!open) throw new RangeError(`${path}: read after close`);
      if (length > target.length) throw new RangeError(`${path}: a target of ${target.length} bytes for ${length}`);
      let done = 0;
      while (done < length) {
        let count: number;
        try {
          count = fs.readSync(fd, target, done, Math.min(READ_STEP, length - done), position + done);
        } catch (error) {
          throw fileError(error, path, 'read');
        }
        if (count === 0)
          throw new InputError(
            `${path}: truncated: ${length} bytes wanted at ${position}, the file ends at ${position + done}: fetch or write it again`,
          );
        done += count;
      }
    },
    close(): void {
      if (!open) return;
      open = false;
      fs.closeSync(fd);
    },
  };
}

/** Runs `body` with the file open and closes it when `body` throws. */
export function withRange<T>(path: string, body: (file: RangeFile) => T): T {
  const file = openRange(path);
  try {
    return body(file);
  } catch (error) {
    file.close();
    throw error;
  }
}

/** A whole file as bytes, at most `limit` of them. @throws InputError when it is larger or unreadable. */
export function readWhole(path: string, limit: number): Uint8Array {
  return withRange(path, (file) => {
    if (file.size > limit)
      throw new InputError(`${path}: ${file.size} bytes, more than the ${limit} that such a file may have`);
    const bytes = new Uint8Array(file.size);
    file.readInto(0, file.size, bytes);
    file.close();
    return bytes;
  });
}

/** UTF-8 bytes as a string. @throws InputError naming `where` when they are not valid UTF-8. */
export function decodeUtf8(bytes: Uint8Array, where: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new InputError(`${where}: not valid UTF-8: the file is damaged or of another format`);
  }
}

/** `text` shortened for a one-line message, control characters escaped. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
}
