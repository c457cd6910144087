import { isUtf8 } from 'node:buffer';
import { InputError } from '../errors.js';

/** The longest line or text file that fits one JavaScript string (2^29 - 24 code units, at one byte each). */
export const MAX_STRING_BYTES = 0x1fffffe8;

/** Consecutive lines without their terminators. `firstLine` is 1-based. */
export interface LineBatch {
  readonly firstLine: number;
  readonly lines: string[];
}

/**
 * Offset of the first byte that does not belong to well-formed UTF-8 (Unicode 16, table 3-7), or -1. A sequence that
 * is cut off at the end counts as malformed.
 */
export function firstInvalidUtf8(bytes: Uint8Array): number {
  for (let i = 0; i < bytes.length; ) {
    const lead = bytes[i];
    if (lead < 0x80) {
      i++;
      continue;
    }
    const length =
      lead >= 0xc2 && lead <= 0xdf ? 2 : lead >= 0xe0 && lead <= 0xef ? 3 : lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
    if (length === 0 || i + length > bytes.length) return i;
    // The second byte excludes overlong forms (E0, F0), surrogates (ED) and what lies beyond U+10FFFF (F4).
    const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
    const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
    if (bytes[i + 1] < low || bytes[i + 1] > high) return i;
    for (let k = 2; k < length; k++) if ((bytes[i + k] & 0xc0) !== 0x80) return i;
    i += length;
  }
  return -1;
}

function utf8Error(source: string, block: Uint8Array, blockOffset: number): InputError {
  const at = blockOffset + Math.max(0, firstInvalidUtf8(block));
  const utf16 =
    blockOffset === 0 && ((block[0] === 0xff && block[1] === 0xfe) || (block[0] === 0xfe && block[1] === 0xff));
  const hint = utf16 ? 'it looks like UTF-16; convert it to UTF-8' : 'convert the file to UTF-8';
  return new InputError(`${source}: invalid UTF-8 at byte ${at}; ${hint}`);
}

/** Decodes a block of whole characters. Throws InputError with the byte's offset in the source. */
function decodeBlock(block: Buffer, source: string, blockOffset: number): string {
  if (!isUtf8(block)) throw utf8Error(source, block, blockOffset);
  const marked = blockOffset === 0 && block.length >= 3 && block[0] === 0xef && block[1] === 0xbb && block[2] === 0xbf;
  return block.toString('utf8', marked ? 3 : 0);
}

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/**
 * Lines of a UTF-8 byte stream, in batches of about one chunk. `\n` ends a line, a `\r` before it is dropped, and so
 * is a byte order mark. Memory is one chunk and the longest line.
 * Throws InputError at invalid UTF-8 (with its byte offset in the decompressed text) and at a line that is too long.
 */
export async function* readLineBatches(
  chunks: AsyncIterable<Uint8Array>,
  source: string,
): AsyncGenerator<LineBatch, void, undefined> {
  let carry: Uint8Array[] = [];
  let carryBytes = 0;
  let offset = 0;
  let firstLine = 1;
  const emit = (block: Buffer): LineBatch => {
    const lines = decodeBlock(block, source, offset).split('\n');
    for (let i = 0; i < lines.length; i++) if (lines[i].endsWith('\r')) lines[i] = lines[i].slice(0, -1);
    return { firstLine, lines };
  };
  for await (const chunk of chunks) {
    const end = chunk.lastIndexOf(0x0a);
    if (end < 0) {
      carry.push(chunk);
      carryBytes += chunk.length;
      if (carryBytes > MAX_STRING_BYTES) {
        throw new InputError(`${source}:${firstLine}: a line is longer than 512 MiB; are the lines separated by \\n?`);
      }
      continue;
    }
    const head = chunk.subarray(0, end);
    const block = carry.length === 0 ? asBuffer(head) : Buffer.concat([...carry, head]);
    if (block.length > MAX_STRING_BYTES) throw new InputError(`${source}:${firstLine}: a line is longer than 512 MiB`);
    const batch = emit(block);
    yield batch;
    offset += block.length + 1;
    firstLine += batch.lines.length;
    carry = end + 1 < chunk.length ? [chunk.subarray(end + 1)] : [];
    carryBytes = chunk.length - end - 1;
  }
  if (carryBytes > 0) yield emit(Buffer.concat(carry));
}

/**
 * The whole stream as one string. Throws InputError at invalid UTF-8 and when it does not fit one string.
 */
export async function readWholeText(chunks: AsyncIterable<Uint8Array>, source: string): Promise<string> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of chunks) {
    parts.push(chunk);
    length += chunk.length;
    if (length > MAX_STRING_BYTES) {
      throw new InputError(
        `${source}: a text longer than 512 MiB cannot be one document; split it, or use --text-split line`,
      );
    }
  }
  return decodeBlock(Buffer.concat(parts), source, 0);
}

/**
 * Passes chunks on, cut at character boundaries and checked. Throws InputError at invalid UTF-8.
 */
export async function* checkedUtf8(
  chunks: AsyncIterable<Uint8Array>,
  source: string,
): AsyncGenerator<Buffer, void, undefined> {
  let carry: Uint8Array = new Uint8Array(0);
  let offset = 0;
  for await (const chunk of chunks) {
    const bytes = carry.length === 0 ? asBuffer(chunk) : Buffer.concat([carry, chunk]);
    let end = bytes.length;
    // Step back over at most three continuation bytes to the lead byte of a character that the chunk cuts.
    for (let back = 1; back <= Math.min(4, bytes.length); back++) {
      const byte = bytes[bytes.length - back];
      if ((byte & 0xc0) === 0x80) continue;
      const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
      if (length > back) end = bytes.length - back;
      break;
    }
    const block = bytes.subarray(0, end);
    if (!isUtf8(block)) throw utf8Error(source, block, offset);
    offset += end;
    carry = bytes.subarray(end);
    if (block.length > 0) yield block;
  }
  if (carry.length > 0) throw utf8Error(source, carry, offset);
}
