import fs from 'node:fs';
import { RunError } from '../errors.js';
import { type AddressModulo, blocksAround, openDirect } from './direct-transfer.js';
import { fileError, openRange } from './files.js';

/** A regular file whose ranges are read beside the calling thread: reads go on while it computes. */
export interface RangeFileBeside {
  readonly path: string;
  readonly size: number;
  /**
   * Fills `target` from byte `position` on; any number of reads may be under way.
   * @param what is read, for messages
   * @throws RunError when the file has become shorter than it was, and on a device error
   */
  read(position: number, target: Uint8Array, what: string): Promise<void>;
  /** Only when no read is under way. */
  close(): void;
}

/** Bytes of one request: several of them keep the threads of the runtime's pool busy. */
const STEP = 32 << 20;

/**
 * @param direct reads large ranges past the page cache, where buffers lie so that this is possible
 * @throws InputError as `openRange`
 */
export function openRangeBeside(path: string, direct?: AddressModulo): RangeFileBeside {
  const range = openRange(path);
  const { size } = range;
  range.close();
  let fd: number;
  try {
    fd = fs.openSync(path, 'r');
  } catch (error) {
    throw fileError(error, path, 'open');
  }
  const directFd = direct && openDirect(path, fs.constants.O_RDONLY);
  let open = true;
  return {
    path,
    size,
    async read(position, target, what): Promise<void> {
      const common: OpenFile = { fd, path, what };
      const blocks = direct && directFd !== undefined ? blocksAround(position, target, direct) : undefined;
      if (blocks === undefined || directFd === undefined) {
        await readPieces(common, position, target, target.length).catch((error: unknown) => {
          throw fileError(error, path, 'read');
        });
        return;
      }
      try {
        await readPieces({ ...common, fd: directFd }, blocks.position, blocks.bytes, blocks.before + target.length);
      } catch (error) {
        // Some file systems refuse what others allow, and the end of a file that has shrunk is no whole block.
        if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw fileError(error, path, 'read');
        await readPieces(common, position, target, target.length).catch((again: unknown) => {
          throw fileError(again, path, 'read');
        });
      }
    },
    close(): void {
      if (open) fs.closeSync(fd);
      if (open && directFd !== undefined) fs.closeSync(directFd);
      open = false;
    },
  };
}

interface OpenFile {
  readonly fd: number;
  readonly path: string;
  /** What is read, for messages. */
  readonly what: string;
}

async function readPieces(file: OpenFile, position: number, bytes: Uint8Array, needed: number): Promise<void> {
  const pieces: Promise<void>[] = [];
  for (let at = 0; at < bytes.length; at += STEP) {
    const piece = bytes.subarray(at, Math.min(bytes.length, at + STEP));
    pieces.push(fill(file, position + at, piece, Math.min(piece.length, needed - at)));
  }
  await Promise.all(pieces);
}

/** Reads until at least `needed` bytes are there: the last block of a file may be cut. */
async function fill({ fd, path, what }: OpenFile, position: number, target: Uint8Array, needed: number): Promise<void> {
  for (let done = 0; done < needed; ) {
    const count = await readSome(fd, target, done, position + done);
    if (count === 0)
      throw new RunError(
        `${path}: shrank while it was read: ${what} ends at byte ${position + done}: restore the file and run again with --resume`,
      );
    done += count;
  }
}

function readSome(fd: number, target: Uint8Array, at: number, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.read(fd, target, at, target.length - at, position, (error, count) => (error ? reject(error) : resolve(count)));
  });
}
