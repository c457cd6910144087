import fs from 'node:fs';
import { updateCrc32 } from './crc32.js';
import { fileError } from './files.js';
import { byteLengthOf } from './ggml-blocks.js';
import { npyHeader } from './npy.js';
import type { DType } from './tensor.js';

const COPY_BYTES = 1 << 20;
const ALL_ONES = 0xffffffff;
/** Version 4.5 of the format: zip64. */
const VERSION = 45;
/** 1 January 1980, the first day that a ZIP archive can name: archives do not depend on the clock. */
const DATE = 0x21;

interface Entry {
  readonly name: Buffer;
  readonly crc: number;
  readonly bytes: number;
  readonly start: number;
}

/** Writes arrays one after another into a stored, zip64 archive that numpy.load reads. */
export interface NpzWriter {
  /** Adds an array whose bytes (row-major, little-endian) come in parts. */
  add(name: string, dtype: DType, shape: readonly number[], parts: Iterable<Uint8Array>): void;
  /** Writes the directory and closes the file. */
  finish(): void;
}

function local(name: Buffer, crc: number, bytes: number): Buffer {
  const header = Buffer.alloc(30 + name.length + 20);
  header.writeUInt32LE(0x04034b50, 0);
  header.writeUInt16LE(VERSION, 4);
  header.writeUInt16LE(DATE, 12);
  header.writeUInt32LE(crc, 14);
  header.writeUInt32LE(ALL_ONES, 18);
  header.writeUInt32LE(ALL_ONES, 22);
  header.writeUInt16LE(name.length, 26);
  header.writeUInt16LE(20, 28);
  name.copy(header, 30);
  const extra = 30 + name.length;
  header.writeUInt16LE(1, extra);
  header.writeUInt16LE(16, extra + 2);
  header.writeBigUInt64LE(BigInt(bytes), extra + 4);
  header.writeBigUInt64LE(BigInt(bytes), extra + 12);
  return header;
}

function central({ name, crc, bytes, start }: Entry): Buffer {
  const header = Buffer.alloc(46 + name.length + 28);
  header.writeUInt32LE(0x02014b50, 0);
  header.writeUInt16LE(VERSION, 4);
  header.writeUInt16LE(VERSION, 6);
  header.writeUInt16LE(DATE, 14);
  header.writeUInt32LE(crc, 16);
  header.writeUInt32LE(ALL_ONES, 20);
  header.writeUInt32LE(ALL_ONES, 24);
  header.writeUInt16LE(name.length, 28);
  header.writeUInt16LE(28, 30);
  header.writeUInt32LE(ALL_ONES, 42);
  name.copy(header, 46);
  const extra = 46 + name.length;
  header.writeUInt16LE(1, extra);
  header.writeUInt16LE(24, extra + 2);
  for (const [i, value] of [bytes, bytes, start].entries()) header.writeBigUInt64LE(BigInt(value), extra + 4 + 8 * i);
  return header;
}

function ending(entries: number, bytes: number, start: number): Buffer {
  const end = Buffer.alloc(56 + 20 + 22);
  end.writeUInt32LE(0x06064b50, 0);
  end.writeBigUInt64LE(44n, 4);
  end.writeUInt16LE(VERSION, 12);
  end.writeUInt16LE(VERSION, 14);
  for (const at of [24, 32]) end.writeBigUInt64LE(BigInt(entries), at);
  end.writeBigUInt64LE(BigInt(bytes), 40);
  end.writeBigUInt64LE(BigInt(start), 48);
  end.writeUInt32LE(0x07064b50, 56);
  end.writeBigUInt64LE(BigInt(start + bytes), 64);
  end.writeUInt32LE(1, 72);
  end.writeUInt32LE(0x06054b50, 76);
  for (const at of [84, 86]) end.writeUInt16LE(0xffff, at);
  for (const at of [88, 92]) end.writeUInt32LE(ALL_ONES, at);
  return end;
}

/**
 * Opens an archive at `path`, which is replaced.
 * @throws RunError when the disk is full; `add` throws RangeError where the parts do not fill the shape
 */
export function createNpzWriter(path: string): NpzWriter {
  const entries: Entry[] = [];
  let fd: number;
  let position = 0;
  try {
    fd = fs.openSync(path, 'w');
  } catch (error) {
    throw fileError(error, path, 'write');
  }
  const put = (bytes: Uint8Array, at: number): void => {
    try {
      for (let done = 0; done < bytes.length; ) {
        done += fs.writeSync(fd, bytes, done, bytes.length - done, at + done);
      }
    } catch (error) {
      throw fileError(error, path, 'write');
    }
  };
  return {
    add(entryName, dtype, shape, parts) {
      const name = Buffer.from(`${entryName}.npy`);
      const start = position;
      const header = npyHeader(dtype, shape);
      const planned = header.length + byteLengthOf(dtype, shape);
      let at = start + local(name, 0, 0).length;
      let crc = 0;
      const append = (bytes: Uint8Array): void => {
        crc = updateCrc32(crc, bytes);
        put(bytes, at);
        at += bytes.length;
      };
      append(header);
      for (const part of parts) append(part);
      const bytes = at - start - local(name, 0, 0).length;
      if (bytes !== planned) throw new RangeError(`${path}: ${bytes} bytes of ${entryName}, ${planned} were planned`);
      put(local(name, crc, bytes), start);
      entries.push({ name, crc, bytes, start });
      position = at;
    },
    finish() {
      const start = position;
      for (const entry of entries) {
        const header = central(entry);
        put(header, position);
        position += header.length;
      }
      put(ending(entries.length, position - start, start), position);
      fs.closeSync(fd);
    },
  };
}

/** The bytes of a file in parts. */
export function* fileParts(path: string): Iterable<Uint8Array> {
  const fd = fs.openSync(path, 'r');
  try {
    const buffer = new Uint8Array(COPY_BYTES);
    for (;;) {
      const length = fs.readSync(fd, buffer, 0, buffer.length, null);
      if (length === 0) return;
      yield buffer.subarray(0, length);
    }
  } finally {
    fs.closeSync(fd);
  }
}
