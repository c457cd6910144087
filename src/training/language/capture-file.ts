import { createHash } from 'node:crypto';
import { InputError } from '../../errors.js';
import { decodeUtf8, openRange, type RangeFile } from '../../formats/files.js';
import type { TopTeacher } from '../types.js';
import {
  CAPTURE_DTYPES,
  type CaptureDType,
  type CaptureRowLayout,
  captureRowBytes,
  decodeCaptureRows,
  encodeCaptureRows,
} from './capture-rows.js';
import type { TokenWindows } from './token-data.js';

/** What a capture says about itself; docs/capture-format.md. */
export interface CaptureHeader extends CaptureRowLayout {
  /** Temperature of the stored distributions. */
  readonly temperature: number;
  /** SHA-256, hexadecimal: of the teacher's tokenizer, of its files, of the windows of tokens (`windowsSha256`). */
  readonly tokenizerSha256: string;
  readonly modelSha256: string;
  readonly dataSha256: string;
  /** Windows of the data, positions of each, and which of them are here: `stored` from `first` on. */
  readonly windows: number;
  readonly length: number;
  readonly first: number;
  readonly stored: number;
}

const MAGIC = 'SRPLTOPK';
const END_MAGIC = 'SRPLKEND';
const VERSION = 1;
const PREAMBLE_BYTES = 16;
const TRAILER_BYTES = 16;
const LARGEST_HEADER = 1 << 20;

/** SHA-256 of the tokens of all windows and their sizes: what a capture and a training run must have in common. */
export function windowsSha256({ count, length, tokens, lengths }: TokenWindows): string {
  const hash = createHash('sha256');
  hash.update(new Uint8Array(Int32Array.of(count, length).buffer));
  for (const array of [lengths, tokens]) {
    hash.update(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
  }
  return hash.digest('hex');
}

/** Bytes of the map that says which positions of a window are stored. */
const maskBytes = (length: number): number => Math.ceil(length / 8);

function headerBytesOf(header: CaptureHeader): Buffer {
  const { vocabulary, k, dtype, temperature, windows, length, first, stored } = header;
  const fields = {
    vocabulary,
    k,
    dtype,
    temperature,
    tokenizer_sha256: header.tokenizerSha256,
    model_sha256: header.modelSha256,
    data_sha256: header.dataSha256,
    windows,
    length,
    first,
    stored,
  };
  const text = Buffer.from(JSON.stringify(fields), 'utf8');
  const size = Math.ceil(text.length / 8) * 8;
  const bytes = Buffer.alloc(PREAMBLE_BYTES + size, ' ');
  bytes.write(MAGIC, 0, 'latin1');
  bytes.writeUInt32LE(VERSION, 8);
  bytes.writeUInt32LE(size, 12);
  text.copy(bytes, PREAMBLE_BYTES);
  return bytes;
}

/** Where a capture is written: an `AtomicFile`, or a buffer in tests. */
export interface CaptureSink {
  /** Bytes that an interrupted run left; 0 for a new file. */
  readonly resumedBytes?: number;
  write(bytes: Uint8Array): void;
  truncate?(length: number): void;
}

export interface CaptureWriter {
  /** Rows that an interrupted run has stored already; writing goes on behind them. */
  readonly resumedRows: number;
  /** Appends rows in the order of windows and positions. */
  append(rows: TopTeacher, count: number): void;
  /** @throws RangeError when rows are missing or too many were given */
  finish(): void;
}

/**
 * Starts a capture, or goes on with one that was interrupted.
 * @param wanted [stored, length]: 1 at the positions that are stored
 * @throws InputError when the leftover is of another capture
 */
export function createCapture(
  sink: CaptureSink,
  header: CaptureHeader,
  wanted: Uint8Array,
  leftover?: (bytes: number) => Uint8Array,
): CaptureWriter {
  const { stored, length } = header;
  if (wanted.length !== stored * length)
    throw new RangeError(`${wanted.length} positions are no [${stored}, ${length}]`);
  const masks = new Uint8Array(stored * maskBytes(length));
  let expected = 0;
  for (let w = 0; w < stored; w++) {
    for (let i = 0; i < length; i++) {
      if (wanted[w * length + i] === 0) continue;
      masks[w * maskBytes(length) + (i >> 3)] |= 1 << (i & 7);
      expected++;
    }
  }
  const start = Buffer.concat([headerBytesOf(header), masks]);
  const rowBytes = captureRowBytes(header);
  const left = sink.resumedBytes ?? 0;
  let rows = 0;
  if (left > start.length) {
    if (leftover !== undefined && Buffer.compare(leftover(start.length), start) !== 0) {
      throw new InputError(
        'the capture that was interrupted is of another model, data or settings: use --force to begin anew',
      );
    }
    rows = Math.min(expected, Math.floor((left - start.length) / rowBytes));
    sink.truncate?.(start.length + rows * rowBytes);
  } else {
    if (left > 0) sink.truncate?.(0);
    sink.write(start);
  }
  return {
    resumedRows: rows,
    append(teacher, count) {
      sink.write(encodeCaptureRows(teacher, count, header));
      rows += count;
    },
    finish() {
      if (rows !== expected) throw new RangeError(`${rows} rows were written, the windows ask for ${expected}`);
      const trailer = Buffer.alloc(TRAILER_BYTES);
      trailer.write(END_MAGIC, 0, 'latin1');
      trailer.writeBigUInt64LE(BigInt(rows), 8);
      sink.write(trailer);
    },
  };
}

const isCount = (value: unknown, least: number): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= least;

function parseHeader(text: string, path: string): CaptureHeader {
  let fields: Record<string, unknown>;
  try {
    fields = JSON.parse(text) as Record<string, unknown>;
  } catch {
    throw new InputError(`${path}: the header of the capture is not JSON: capture it again`);
  }
  const { vocabulary, k, temperature, windows, length, first, stored } = fields;
  const dtype = CAPTURE_DTYPES.find((known) => known === fields.dtype);
  const hashes = [fields.tokenizer_sha256, fields.model_sha256, fields.data_sha256];
  if (
    !isCount(vocabulary, 1) ||
    !isCount(k, 1) ||
    k > vocabulary ||
    dtype === undefined ||
    typeof temperature !== 'number' ||
    !(temperature > 0) ||
    !isCount(windows, 0) ||
    !isCount(length, 1) ||
    !isCount(first, 0) ||
    !isCount(stored, 0) ||
    first + stored > windows ||
    !hashes.every((hash) => typeof hash === 'string')
  ) {
    throw new InputError(`${path}: the header of the capture lacks a valid field: capture it again`);
  }
  const [tokenizerSha256, modelSha256, dataSha256] = hashes.map(String);
  const shape = { vocabulary, k, dtype, temperature, windows, length, first, stored };
  return { ...shape, tokenizerSha256, modelSha256, dataSha256 };
}

/** One file of a capture. */
export interface CapturePart {
  readonly path: string;
  readonly header: CaptureHeader;
  readonly rows: number;
  /** Stored rows before position `position` of window `window`. */
  rowAt(window: number, position: number): number;
  has(window: number, position: number): boolean;
  /** Bytes of rows from..from+count-1. */
  read(from: number, count: number): Uint8Array;
  close(): void;
}

function readMagic(file: RangeFile): string {
  const bytes = Buffer.alloc(8);
  if (file.size >= 8) file.readInto(0, 8, bytes);
  return bytes.toString('latin1');
}

function readPreamble(file: RangeFile): { header: CaptureHeader; end: number } {
  if (file.size < PREAMBLE_BYTES || readMagic(file) !== MAGIC) {
    throw new InputError(`${file.path}: not a capture; give a file that distill-pld capture wrote`);
  }
  const preamble = Buffer.alloc(PREAMBLE_BYTES);
  file.readInto(0, PREAMBLE_BYTES, preamble);
  const version = preamble.readUInt32LE(8);
  if (version !== VERSION) {
    throw new InputError(`${file.path}: capture of version ${version}; this program reads ${VERSION}`);
  }
  const size = preamble.readUInt32LE(12);
  if (size > LARGEST_HEADER || PREAMBLE_BYTES + size > file.size) {
    throw new InputError(`${file.path}: truncated capture: header of ${size} bytes in ${file.size}`);
  }
  const text = new Uint8Array(size);
  file.readInto(PREAMBLE_BYTES, size, text);
  const header = parseHeader(decodeUtf8(text, `${file.path}: header`), file.path);
  return { header, end: PREAMBLE_BYTES + size };
}

const bitsOf = (byte: number): number => {
  let count = 0;
  for (let rest = byte; rest > 0; rest &= rest - 1) count++;
  return count;
};

function openPartFile(file: RangeFile): CapturePart {
  const { header, end } = readPreamble(file);
  const { stored, length, first } = header;
  const width = maskBytes(length);
  const rowBytes = captureRowBytes(header);
  const rowsStart = end + stored * width;
  const rows = (file.size - rowsStart - TRAILER_BYTES) / rowBytes;
  const trailer = Buffer.alloc(TRAILER_BYTES);
  if (rows >= 0) file.readInto(file.size - TRAILER_BYTES, TRAILER_BYTES, trailer);
  const complete =
    trailer.toString('latin1', 0, 8) === END_MAGIC && trailer.readBigUInt64LE(8) === BigInt(Math.trunc(rows));
  if (!complete || !Number.isInteger(rows)) {
    throw new InputError(
      `${file.path}: truncated capture: no complete trailer; capture it again, or go on with --resume`,
    );
  }
  const masks = new Uint8Array(stored * width);
  file.readInto(end, masks.length, masks);
  const starts = new Float64Array(stored + 1);
  for (let w = 0; w < stored; w++) {
    let count = 0;
    for (let i = w * width; i < (w + 1) * width; i++) count += bitsOf(masks[i]);
    starts[w + 1] = starts[w] + count;
  }
  if (starts[stored] !== rows) {
    throw new InputError(`${file.path}: damaged capture: ${rows} rows, but its windows name ${starts[stored]}`);
  }
  const placeOf = (window: number): number => {
    if (window >= first && window < first + stored) return window - first;
    throw new RangeError(`window ${window} is not among ${first}..${first + stored - 1}`);
  };
  return {
    path: file.path,
    header,
    rows,
    has(window, position) {
      const at = placeOf(window) * width + (position >> 3);
      return position < length && (masks[at] & (1 << (position & 7))) !== 0;
    },
    rowAt(window, position) {
      const place = placeOf(window);
      let row = starts[place];
      for (let i = 0; i < position >> 3; i++) row += bitsOf(masks[place * width + i]);
      return row + bitsOf((masks[place * width + (position >> 3)] ?? 0) & ((1 << (position & 7)) - 1));
    },
    read(from, count) {
      const bytes = new Uint8Array(count * rowBytes);
      file.readInto(rowsStart + from * rowBytes, bytes.length, bytes);
      return bytes;
    },
    close: () => file.close(),
  };
}

/**
 * Opens one file of a capture.
 * @throws InputError for another format, another version, a truncated or damaged file
 */
export function openCapturePart(path: string): CapturePart {
  const file = openRange(path);
  try {
    return openPartFile(file);
  } catch (error) {
    file.close();
    throw error;
  }
}

/** Rows from..to-1 of a window; those that are not stored hold no class and leave all mass over. */
export function readCaptureRows(part: CapturePart, window: number, from: number, to: number): TopTeacher {
  const { k } = part.header;
  const count = to - from;
  const target = {
    ids: new Int32Array(count * k).fill(-1),
    logProbs: new Float32Array(count * k),
    leftover: new Float32Array(count).fill(1),
  };
  const start = part.rowAt(window, from);
  const stored = part.rowAt(window, to) - start;
  if (stored > 0) {
    const place = `${part.path}: window ${window}`;
    const bytes = part.read(start, stored);
    const width = captureRowBytes(part.header);
    for (let i = 0, row = 0; i < count; i++) {
      if (!part.has(window, from + i)) continue;
      decodeCaptureRows(bytes.subarray(row * width, (row + 1) * width), 1, part.header, target, i, place);
      row++;
    }
  }
  return { kind: 'top', k, ...target };
}

export type { CaptureDType };
