import { Inflate } from 'fflate';
import { InputError } from '../errors.js';
import { updateCrc32 } from './crc32.js';
import { decodeUtf8, quoted, type RangeFile } from './files.js';
import type { ByteSource } from './npy-header.js';

/** One entry of a ZIP archive. */
export interface ZipEntry {
  readonly name: string;
  readonly method: 'stored' | 'deflated';
  /** First byte of the (compressed) data in the archive. */
  readonly dataStart: number;
  readonly compressedBytes: number;
  /** Bytes after decompression. */
  readonly byteLength: number;
  readonly crc32: number;
}

/** DEFLATE expands by at most 1032:1; a larger claim is false, and must not be believed when memory is reserved. */
const MAX_DEFLATE_RATIO = 1032;
const INFLATE_STEP = 1 << 16;

function readView(file: RangeFile, position: number, length: number): DataView {
  if (position < 0 || position + length > file.size)
    throw new InputError(`${file.path}: truncated archive: write it again`);
  const bytes = new Uint8Array(length);
  file.readInto(position, length, bytes);
  return new DataView(bytes.buffer);
}

/** A 64-bit field; above 2^53 it points outside of any file. */
function count64(view: DataView, at: number, path: string): number {
  const value = view.getBigUint64(at, true);
  if (value > BigInt(Number.MAX_SAFE_INTEGER))
    throw new InputError(`${path}: damaged archive: a size of ${value} bytes`);
  return Number(value);
}

interface Directory {
  readonly start: number;
  readonly bytes: number;
  readonly entries: number;
}

/** Finds the central directory from the end of the archive (APPNOTE 4.3.16, and 4.3.14 for zip64). */
function findDirectory(file: RangeFile): Directory {
  const tailBytes = Math.min(file.size, 22 + 0xffff);
  const tail = readView(file, file.size - tailBytes, tailBytes);
  for (let at = tailBytes - 22; at >= 0; at--) {
    if (tail.getUint32(at, true) !== 0x06054b50 || at + 22 + tail.getUint16(at + 20, true) !== tailBytes) continue;
    const end = file.size - tailBytes + at;
    const directory = {
      entries: tail.getUint16(at + 10, true),
      bytes: tail.getUint32(at + 12, true),
      start: tail.getUint32(at + 16, true),
    };
    if (end >= 20) {
      const locator = readView(file, end - 20, 20);
      if (locator.getUint32(0, true) === 0x07064b50) {
        const record = readView(file, count64(locator, 8, file.path), 56);
        if (record.getUint32(0, true) !== 0x06064b50) throw new InputError(`${file.path}: damaged zip64 record`);
        directory.entries = count64(record, 32, file.path);
        directory.bytes = count64(record, 40, file.path);
        directory.start = count64(record, 48, file.path);
      }
    }
    // A directory entry takes at least 46 bytes.
    if (directory.start + directory.bytes > end || directory.entries * 46 > directory.bytes)
      throw new InputError(`${file.path}: damaged archive: its directory lies outside of the file: write it again`);
    return directory;
  }
  throw new InputError(
    `${file.path}: ${file.size === 0 ? 'the file is empty' : 'no ZIP directory at its end: truncated or not an archive'}`,
  );
}

/** The zip64 extra field holds, in this order, those of the sizes and the offset that are all ones. */
function widen(
  extra: DataView,
  sizes: { byteLength: number; compressedBytes: number; headerStart: number },
  path: string,
): void {
  for (let at = 0; at + 4 <= extra.byteLength; ) {
    const id = extra.getUint16(at, true);
    const length = extra.getUint16(at + 2, true);
    if (at + 4 + length > extra.byteLength) return;
    if (id === 1) {
      let field = at + 4;
      for (const key of ['byteLength', 'compressedBytes', 'headerStart'] as const) {
        if (sizes[key] !== 0xffffffff) continue;
        if (field + 8 > at + 4 + length) throw new InputError(`${path}: damaged zip64 field`);
        sizes[key] = count64(extra, field, path);
        field += 8;
      }
      return;
    }
    at += 4 + length;
  }
}

/**
 * Lists the entries of an archive from its central directory, zip64 included. Directories are left out.
 * @throws InputError for damaged, encrypted and multi-volume archives, for compression other than stored and
 * deflated, and for names that stand twice.
 */
export function readZipDirectory(file: RangeFile): ZipEntry[] {
  const directory = findDirectory(file);
  const view = readView(file, directory.start, directory.bytes);
  const bytes = new Uint8Array(view.buffer);
  const entries: ZipEntry[] = [];
  const names = new Set<string>();
  let at = 0;
  for (let i = 0; i < directory.entries; i++) {
    if (at + 46 > view.byteLength || view.getUint32(at, true) !== 0x02014b50)
      throw new InputError(`${file.path}: damaged archive: entry ${i} of its directory: write it again`);
    const flags = view.getUint16(at + 8, true);
    const method = view.getUint16(at + 10, true);
    const sizes = {
      byteLength: view.getUint32(at + 24, true),
      compressedBytes: view.getUint32(at + 20, true),
      headerStart: view.getUint32(at + 42, true),
    };
    const nameBytes = view.getUint16(at + 28, true);
    const extraBytes = view.getUint16(at + 30, true);
    const next = at + 46 + nameBytes + extraBytes + view.getUint16(at + 32, true);
    if (next > view.byteLength) throw new InputError(`${file.path}: damaged archive: entry ${i} of its directory`);
    const name = decodeUtf8(bytes.subarray(at + 46, at + 46 + nameBytes), `${file.path}: the name of entry ${i}`);
    const where = `${file.path}: entry ${quoted(name)}`;
    widen(new DataView(view.buffer, at + 46 + nameBytes, extraBytes), sizes, file.path);
    const crc32 = view.getUint32(at + 16, true);
    at = next;
    if (name.endsWith('/')) continue;
    if (names.has(name)) throw new InputError(`${where} stands twice: write the archive again`);
    names.add(name);
    if (flags & 1) throw new InputError(`${where} is encrypted: save it without a password`);
    if (method !== 0 && method !== 8)
      throw new InputError(`${where}: compression method ${method} is not read: use numpy.savez or savez_compressed`);
    if (method === 0 && sizes.byteLength !== sizes.compressedBytes)
      throw new InputError(`${where}: stored, but its two sizes differ: damaged`);
    if (sizes.byteLength > sizes.compressedBytes * MAX_DEFLATE_RATIO)
      throw new InputError(`${where}: ${sizes.byteLength} bytes cannot come out of ${sizes.compressedBytes}: damaged`);
    const local = readView(file, sizes.headerStart, 30);
    if (local.getUint32(0, true) !== 0x04034b50) throw new InputError(`${where}: damaged local header`);
    const dataStart = sizes.headerStart + 30 + local.getUint16(26, true) + local.getUint16(28, true);
    if (dataStart + sizes.compressedBytes > directory.start)
      throw new InputError(`${where}: lies outside of the archive: truncated or damaged, write it again`);
    entries.push({
      name,
      method: method === 0 ? 'stored' : 'deflated',
      dataStart,
      compressedBytes: sizes.compressedBytes,
      byteLength: sizes.byteLength,
      crc32,
    });
  }
  return entries;
}

/**
 * The bytes of an entry by position. A stored entry is read by range. A deflated one is inflated forward from where
 * the last read ended, so that reads in order cost one pass; a step back starts again. Its checksum is verified when
 * it was inflated to the end.
 */
export function openZipEntry(file: RangeFile, entry: ZipEntry): ByteSource {
  if (entry.method === 'stored')
    return {
      size: entry.byteLength,
      readInto(position, length, target): void {
        if (position + length > entry.byteLength)
          throw new InputError(`${file.path}: entry ${quoted(entry.name)} ends early`);
        file.readInto(entry.dataStart + position, length, target);
      },
    };

  const damaged = (why: string): never => {
    throw new InputError(`${file.path}: entry ${quoted(entry.name)}: ${why}: damaged, write it again`);
  };
  let inflate: Inflate | undefined;
  let consumed = 0;
  let crc = 0;
  // Inflated bytes at hand: `held` begins at `heldStart` of the entry.
  let held: Uint8Array = new Uint8Array(0);
  let heldStart = 0;
  const advance = (): void => {
    inflate ??= new Inflate();
    const step = new Uint8Array(Math.min(INFLATE_STEP, entry.compressedBytes - consumed));
    const last = consumed + step.length === entry.compressedBytes;
    if (step.length === 0) damaged(`ends after ${heldStart + held.length} of ${entry.byteLength} bytes`);
    file.readInto(entry.dataStart + consumed, step.length, step);
    consumed += step.length;
    const chunks: Uint8Array[] = [];
    inflate.ondata = (chunk) => chunks.push(chunk);
    try {
      inflate.push(step, last);
    } catch (error) {
      damaged((error as Error).message);
    }
    heldStart += held.length;
    held = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
    crc = updateCrc32(crc, held);
    const end = heldStart + held.length;
    if (end > entry.byteLength) damaged(`holds more than its ${entry.byteLength} bytes`);
    if (last && end < entry.byteLength) damaged(`ends after ${end} of ${entry.byteLength} bytes`);
    if (last && crc !== entry.crc32) damaged('its checksum is wrong');
  };
  return {
    size: entry.byteLength,
    readInto(position, length, target): void {
      if (position + length > entry.byteLength) damaged('ends early');
      if (position < heldStart) {
        inflate = undefined;
        consumed = 0;
        crc = 0;
        held = new Uint8Array(0);
        heldStart = 0;
      }
      let done = 0;
      while (done < length) {
        const from = position + done - heldStart;
        if (from < held.length) {
          const part = held.subarray(from, from + length - done);
          target.set(part, done);
          done += part.length;
        } else {
          advance();
        }
      }
    },
  };
}
