import fs from 'node:fs';
import path from 'node:path';
import { InputError, RunError } from '../errors.js';
import { fileError } from './files.js';

/** How an output that is already there is met, and what survives an interruption. */
export interface AtomicOptions {
  /** Replace an existing target on commit. */
  readonly force?: boolean;
  /**
   * The run continues an earlier one: an existing target is not an error, and with `resumable` the leftover of an
   * interrupted run is taken over.
   */
  readonly resume?: boolean;
  /** Keep the partial output on abort and when the process is killed, so that a later run can `resume` it. */
  readonly resumable?: boolean;
}

/** An output file that gets its name only when it is complete. */
export interface AtomicFile {
  /** The final name, as the user gave it. */
  readonly target: string;
  /** Where the bytes are now. */
  readonly partialPath: string;
  /** Bytes found in the leftover of an interrupted run; 0 unless `resume` and `resumable` found one. */
  readonly resumedBytes: number;
  /** Bytes written so far, `resumedBytes` included. */
  readonly position: number;
  /** Appends; strings as UTF-8. @throws RunError when the disk is full. */
  write(data: Uint8Array | string): void;
  /** Writes at a byte position without moving `position` backwards. Not for pipes and devices. */
  writeAt(data: Uint8Array, position: number): void;
  /** Cuts to `length` bytes and continues there: a resuming writer drops an incomplete last record. */
  truncate(length: number): void;
  /** Flushes to the disk and closes without renaming; `commit` does it by itself when it was not called. */
  finish(): void;
  /** fsync, rename to the final name, fsync of the directory. */
  commit(): void;
  /** Removes the partial file (keeps it when `resumable`). Does nothing after `commit`. */
  abort(): void;
}

/** An output directory that gets its name only when it is complete. */
export interface AtomicDirectory {
  readonly target: string;
  /** Write here until `commit`. */
  readonly path: string;
  /** True when the leftover of an interrupted run was taken over. */
  readonly resumed: boolean;
  /** fsync of every file that lies in it, rename to the final name, fsync of the parent. */
  commit(): void;
  abort(): void;
}

interface Pending {
  abort(): void;
}

const pending = new Set<Pending>();
let counter = 0;

/**
 * Removes every partial output of this process that is not yet committed. Synchronous, so that it can be called from
 * a signal handler and from an `exit` handler; never throws.
 */
export function abortPendingWrites(): void {
  for (const item of [...pending]) {
    try {
      item.abort();
    } catch {
      // The process is ending: what cannot be removed stays under its temporary name.
    }
  }
  pending.clear();
}

/** Makes a rename durable. Directories cannot be synced on some systems; the rename itself is still atomic there. */
function syncDirectory(directory: string): void {
  try {
    const fd = fs.openSync(directory, 'r');
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    return;
  }
}

function statOf(target: string): fs.Stats | undefined {
  try {
    return fs.statSync(target);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') return undefined;
    throw fileError(error, target, 'write');
  }
}

/** The parent must be there and be a directory in which names can be made. */
function checkParent(target: string, directory: string): void {
  const parent = statOf(directory);
  if (parent === undefined)
    throw new InputError(`${target}: cannot write: directory ${directory} does not exist: make it first`);
  if (!parent.isDirectory()) throw new InputError(`${target}: cannot write: ${directory} is not a directory`);
  try {
    fs.accessSync(directory, fs.constants.W_OK | fs.constants.X_OK);
  } catch (error) {
    throw fileError(error, target, 'write');
  }
}

function refuseExisting(target: string): never {
  throw new InputError(`${target}: already exists: pass --force to replace it, or choose another path`);
}

/** Whether a process of this machine runs. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** The newest leftover `.name.<pid>[.<n>].partial` of a process of this machine that is no longer alive. */
function findLeftover(directory: string, name: string): string | undefined {
  let best: string | undefined;
  let bestTime = Number.NEGATIVE_INFINITY;
  for (const entry of fs.readdirSync(directory)) {
    if (!entry.startsWith(`.${name}.`) || !entry.endsWith('.partial')) continue;
    const pid = /^(\d+)(\.\d+)?$/.exec(entry.slice(name.length + 2, -'.partial'.length))?.[1];
    if (pid === undefined || (Number(pid) !== process.pid && isAlive(Number(pid)))) continue;
    const found = path.join(directory, entry);
    if (Number(pid) === process.pid && [...pending].some((item) => 'partialPath' in item && item.partialPath === found))
      continue;
    const time = statOf(found)?.mtimeMs ?? Number.NEGATIVE_INFINITY;
    if (time > bestTime) {
      best = found;
      bestTime = time;
    }
  }
  return best;
}

/** Removes from a directory what writers of processes that are no longer alive left half-written. */
export function removeLeftovers(directory: string): void {
  try {
    for (const entry of fs.readdirSync(directory)) {
      const pid = /^\..*\.(\d+)\.\d+\.(?:partial|replaced)$/.exec(entry)?.[1];
      if (pid === undefined || Number(pid) === process.pid || isAlive(Number(pid))) continue;
      fs.rmSync(path.join(directory, entry), { recursive: true, force: true });
    }
  } catch (error) {
    throw fileError(error, directory, 'write');
  }
}

/** Where a target really lies: a symbolic link stays a link, and the file that it names is replaced. */
function resolveLink(target: string): string {
  try {
    return fs.realpathSync(target);
  } catch {
    return target;
  }
}

function writeFully(fd: number, bytes: Uint8Array, position: number | null, target: string): void {
  let done = 0;
  while (done < bytes.length) {
    try {
      const at = position === null ? null : position + done;
      done += fs.writeSync(fd, bytes, done, Math.min(1 << 30, bytes.length - done), at);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') continue;
      throw fileError(error, target, 'write');
    }
  }
}

/** A pipe or device (`/dev/null`, `/dev/stdout`, process substitution) is written to directly: it has no final state. */
function openStream(target: string): AtomicFile {
  let fd: number;
  try {
    fd = fs.openSync(target, 'w');
  } catch (error) {
    throw fileError(error, target, 'write');
  }
  let position = 0;
  let open = true;
  const finish = (): void => {
    if (!open) return;
    open = false;
    fs.closeSync(fd);
  };
  const noSeek = (): never => {
    throw new InputError(`${target}: this output is not written in order: name a regular file`);
  };
  return {
    target,
    partialPath: target,
    resumedBytes: 0,
    get position() {
      return position;
    },
    write(data): void {
      const bytes = typeof data === 'string' ? Buffer.from(data) : data;
      writeFully(fd, bytes, null, target);
      position += bytes.length;
    },
    writeAt: noSeek,
    truncate: noSeek,
    finish,
    commit: finish,
    abort: finish,
  };
}

/**
 * Opens `.name.<pid>.<n>.partial` beside `target`; `commit` gives it its name. The parent directory must exist.
 * @throws InputError when the target exists and neither `force` nor `resume` is given, is a directory, or its
 * directory is missing or not writable; RunError when the disk is full.
 */
export function createAtomicFile(target: string, options: AtomicOptions = {}): AtomicFile {
  const existing = statOf(target);
  if (existing?.isDirectory()) throw new InputError(`${target}: cannot write: is a directory: name a file`);
  if (existing !== undefined && !existing.isFile()) return openStream(target);
  if (existing !== undefined && !options.force && !options.resume) refuseExisting(target);
  const place = resolveLink(target);
  const directory = path.dirname(place);
  const name = path.basename(place);
  checkParent(target, directory);

  const partialPath = path.join(directory, `.${name}.${process.pid}.${counter++}.partial`);
  let fd: number;
  let position = 0;
  try {
    let leftover = options.resume ? findLeftover(directory, name) : undefined;
    if (!options.resumable) {
      for (; leftover !== undefined; leftover = findLeftover(directory, name)) fs.rmSync(leftover);
    }
    if (leftover !== undefined) fs.renameSync(leftover, partialPath);
    fd = fs.openSync(partialPath, leftover === undefined ? 'wx' : 'r+');
    if (existing !== undefined) fs.fchmodSync(fd, existing.mode & 0o777);
    position = fs.fstatSync(fd).size;
  } catch (error) {
    throw fileError(error, target, 'write');
  }
  const resumedBytes = position;
  let state: 'open' | 'finished' | 'ended' = 'open';
  const mustBeOpen = (): void => {
    if (state !== 'open') throw new RunError(`${target}: the output was closed before it was complete`);
  };

  const file: AtomicFile = {
    target,
    partialPath,
    resumedBytes,
    get position() {
      return position;
    },
    write(data): void {
      mustBeOpen();
      const bytes = typeof data === 'string' ? Buffer.from(data) : data;
      writeFully(fd, bytes, position, target);
      position += bytes.length;
    },
    writeAt(data, at): void {
      mustBeOpen();
      writeFully(fd, data, at, target);
      position = Math.max(position, at + data.length);
    },
    truncate(length): void {
      mustBeOpen();
      try {
        fs.ftruncateSync(fd, length);
      } catch (error) {
        throw fileError(error, target, 'write');
      }
      position = length;
    },
    finish(): void {
      if (state !== 'open') return;
      try {
        fs.fsyncSync(fd);
      } catch (error) {
        throw fileError(error, target, 'write');
      }
      state = 'finished';
      fs.closeSync(fd);
    },
    commit(): void {
      file.finish();
      if (state === 'ended') throw new RunError(`${target}: the output was aborted before it was complete`);
      if (existing === undefined && !options.force && !options.resume && fs.existsSync(place)) refuseExisting(target);
      try {
        fs.renameSync(partialPath, place);
      } catch (error) {
        throw fileError(error, target, 'write');
      }
      state = 'ended';
      pending.delete(file);
      syncDirectory(directory);
    },
    abort(): void {
      if (state === 'ended') return;
      if (state === 'open') fs.closeSync(fd);
      state = 'ended';
      pending.delete(file);
      if (!options.resumable) fs.rmSync(partialPath, { force: true });
    },
  };
  pending.add(file);
  return file;
}

/** fsync of every regular file below `directory`, and of the directories themselves. */
function syncTree(directory: string): void {
  for (const entry of fs.readdirSync(directory, { withFileTypes: true })) {
    const child = path.join(directory, entry.name);
    if (entry.isDirectory()) syncTree(child);
    else if (entry.isFile()) {
      const fd = fs.openSync(child, 'r+');
      try {
        fs.fsyncSync(fd);
      } finally {
        fs.closeSync(fd);
      }
    }
  }
  syncDirectory(directory);
}

/**
 * Makes `.name.<pid>.<n>.partial/` beside `target`, to be filled and committed by one rename. Whoever fills it writes
 * `manifest.json` last, so that the manifest also tells of completeness where the directory was copied by other means.
 * With `force` an existing directory is moved aside, replaced, and removed only after the rename.
 * @throws InputError as `createAtomicFile`.
 */
export function createAtomicDirectory(target: string, options: AtomicOptions = {}): AtomicDirectory {
  const existing = statOf(target);
  if (existing !== undefined && !existing.isDirectory())
    throw new InputError(`${target}: already exists and is not a directory: choose another path`);
  const occupied = existing !== undefined && fs.readdirSync(target).length > 0;
  if (occupied && !options.force && !options.resume) refuseExisting(target);
  const place = path.resolve(existing === undefined ? target : resolveLink(target));
  const parent = path.dirname(place);
  const name = path.basename(place);
  checkParent(target, parent);

  const partialPath = path.join(parent, `.${name}.${process.pid}.${counter++}.partial`);
  let resumed = false;
  try {
    const leftover = options.resume && options.resumable ? findLeftover(parent, name) : undefined;
    resumed = leftover !== undefined;
    if (leftover !== undefined) fs.renameSync(leftover, partialPath);
    else fs.mkdirSync(partialPath);
  } catch (error) {
    throw fileError(error, target, 'write');
  }
  let ended = false;
  const directory: AtomicDirectory & { readonly partialPath: string } = {
    target,
    path: partialPath,
    partialPath,
    resumed,
    commit(): void {
      if (ended) throw new RunError(`${target}: the output was aborted before it was complete`);
      const aside = path.join(parent, `.${name}.${process.pid}.${counter++}.replaced`);
      let moved = false;
      try {
        syncTree(partialPath);
        // A rename replaces an empty directory, not a filled one.
        if (fs.existsSync(place) && fs.readdirSync(place).length > 0) {
          if (!options.force && !options.resume) refuseExisting(target);
          fs.renameSync(place, aside);
          moved = true;
        }
        fs.renameSync(partialPath, place);
      } catch (error) {
        if (moved && !fs.existsSync(place)) fs.renameSync(aside, place);
        throw fileError(error, target, 'write');
      }
      ended = true;
      pending.delete(directory);
      syncDirectory(parent);
      if (moved) fs.rmSync(aside, { recursive: true, force: true });
    },
    abort(): void {
      if (ended) return;
      ended = true;
      pending.delete(directory);
      if (!options.resumable) fs.rmSync(partialPath, { recursive: true, force: true });
    },
  };
  pending.add(directory);
  return directory;
}
