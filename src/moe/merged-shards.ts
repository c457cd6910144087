import fs from 'node:fs';
import path from 'node:path';
import { quoted } from '../formats/files.js';
import type { MergedLayout } from './merged-layout.js';

/** Files that stay open from the start; more are opened when they are written. */
const MAX_OPEN = 64;

/** The files of the output, open for writing at any place. */
export interface ShardFiles {
  write(name: string, at: number, bytes: Uint8Array): void;
  sync(): void;
  close(): void;
}

/**
 * Opens the files of a merged model below `directory`; those that an interrupted run left are kept, others are made with their
 * header and full size.
 */
export function openShards(directory: string, layout: MergedLayout): ShardFiles {
  const open = new Map<number, number>();
  const descriptor = (index: number): number => {
    const known = open.get(index);
    if (known !== undefined) return known;
    const { fileName, header, byteLength } = layout.files[index];
    const file = path.join(directory, fileName);
    const fresh = fs.statSync(file, { throwIfNoEntry: false })?.size !== byteLength;
    const fd = fs.openSync(file, fresh ? 'w+' : 'r+');
    open.set(index, fd);
    if (fresh) {
      writeFully(fd, header, 0);
      fs.ftruncateSync(fd, byteLength);
    }
    return fd;
  };
  // All exist from the start with their sizes, so that an interrupted run can be continued.
  for (const index of layout.files.keys()) {
    const fd = descriptor(index);
    if (open.size > MAX_OPEN) {
      fs.fsyncSync(fd);
      fs.closeSync(fd);
      open.delete(index);
    }
  }
  return {
    write(name, at, bytes): void {
      const slot = layout.slots.get(name);
      if (slot === undefined || at + bytes.length > slot.byteLength)
        throw new RangeError(`tensor ${quoted(name)}: bytes ${at}..${at + bytes.length} are not in the plan`);
      writeFully(descriptor(slot.file), bytes, slot.offset + at);
    },
    sync(): void {
      for (const fd of open.values()) fs.fsyncSync(fd);
    },
    close(): void {
      for (const fd of open.values()) fs.closeSync(fd);
      open.clear();
    },
  };
}

function writeFully(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; )
    done += fs.writeSync(fd, bytes, done, Math.min(1 << 30, bytes.length - done), position + done);
}
