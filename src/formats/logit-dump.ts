import { InputError } from '../errors.js';
import { decodeUtf8, openRange, type RangeFile, withRange } from './files.js';
import { type CodedRow, encodeLogProbs } from './log-prob-codes.js';

/** Consecutive rows of stored 16-bit log-probabilities; arrays have one entry a row, `codes` `[rows, vocabulary]`. */
export interface StoredRows {
  readonly rows: number;
  readonly vocabulary: number;
  readonly codes: Uint16Array;
  readonly scale: Float32Array;
  readonly minLogProb: Float32Array;
  /** Document and position of the predicted token, and its id. */
  readonly documents: Int32Array;
  readonly positions: Int32Array;
  readonly targets: Int32Array;
  /** What the coding loses, where the file stores it: mass and number of the entries of code 0, exact measures. */
  readonly exact?: {
    readonly tailMass: Float64Array;
    readonly tailCount: Uint32Array;
    readonly surprisalNats: Float64Array;
    readonly entropyNats: Float64Array;
  };
}

/** Stored log-probabilities of a base model, read by ranges of rows. */
export interface StoredLogits {
  readonly path: string;
  readonly vocabulary: number;
  readonly rows: number;
  /** @throws RangeError for rows outside 0..rows, InputError for damaged records */
  readRows(start: number, count: number): StoredRows;
  close(): void;
}

/** Where appended bytes go: an `AtomicFile`, or a buffer in tests. */
export interface ByteSink {
  write(bytes: Uint8Array): void;
}

/** What a dump says about itself. Hashes let a candidate check that it scores the same tokens. */
export interface LogitDumpHeader {
  readonly vocabulary: number;
  /** SHA-256 of the base model's files and of the data, hexadecimal. */
  readonly modelSha256: string;
  readonly dataSha256: string;
  /** Window convention and its parameters, as they stand in reports. */
  readonly parameters: Readonly<Record<string, string | number | boolean | null>>;
}

export interface LogitDump extends StoredLogits {
  readonly header: LogitDumpHeader;
}

const MAGIC = 'SRPLDUMP';
const END_MAGIC = 'SRPLDEND';
const VERSION = 1;
const PREAMBLE_BYTES = 16;
const TRAILER_BYTES = 16;
/** document i32, position i32, target i32, tail count u32, scale f32, minimum f32, tail mass, surprisal, entropy f64. */
const RECORD_BYTES = 48;
const LARGEST_HEADER = 1 << 20;
const LARGEST_VOCABULARY = 1 << 24;

/** Bytes of one row: its record and its codes, padded to a multiple of 8. */
export function dumpRowBytes(vocabulary: number): number {
  return RECORD_BYTES + Math.ceil((2 * vocabulary) / 8) * 8;
}

export interface LogitDumpWriter {
  /**
   * Appends rows. Shapes: `logits` `[targets.length, vocabulary]`, `documents`, `positions`, `targets` `[rows]`. A
   * negative target stores NaN as surprisal.
   */
  append(logits: Float32Array | Float64Array, documents: Int32Array, positions: Int32Array, targets: Int32Array): void;
  /** Writes the trailer, without which a reader takes the file for truncated. */
  finish(): void;
}

/**
 * Starts a dump on `sink`. One row is in memory at a time. Layout, little-endian: magic, version u32, header length u32,
 * header as JSON padded with spaces to 8 bytes; rows of `dumpRowBytes` each; trailer with its magic and the number of rows
 * as u64.
 */
export function createLogitDump(sink: ByteSink, header: LogitDumpHeader): LogitDumpWriter {
  const { vocabulary } = header;
  const text = Buffer.from(
    JSON.stringify({
      vocabulary,
      model_sha256: header.modelSha256,
      data_sha256: header.dataSha256,
      parameters: header.parameters,
    }),
    'utf8',
  );
  const headerBytes = Math.ceil(text.length / 8) * 8;
  if (headerBytes > LARGEST_HEADER) throw new RangeError(`a dump header of ${headerBytes} bytes is too long`);
  const start = Buffer.alloc(PREAMBLE_BYTES + headerBytes, ' ');
  start.write(MAGIC, 0, 'latin1');
  start.writeUInt32LE(VERSION, 8);
  start.writeUInt32LE(headerBytes, 12);
  text.copy(start, PREAMBLE_BYTES);
  sink.write(start);
  const row = new Uint8Array(dumpRowBytes(vocabulary));
  const record = new DataView(row.buffer, 0, RECORD_BYTES);
  const codes = new Uint16Array(row.buffer, RECORD_BYTES, vocabulary);
  let rows = 0;
  return {
    append(logits, documents, positions, targets): void {
      for (let i = 0; i < targets.length; i++) {
        const coded: CodedRow = encodeLogProbs(logits, i * vocabulary, vocabulary, codes, 0);
        const target = targets[i];
        record.setInt32(0, documents[i], true);
        record.setInt32(4, positions[i], true);
        record.setInt32(8, target, true);
        record.setUint32(12, coded.tailCount, true);
        record.setFloat32(16, coded.scale, true);
        record.setFloat32(20, coded.minLogProb, true);
        record.setFloat64(24, coded.tailMass, true);
        record.setFloat64(32, target < 0 ? Number.NaN : coded.logSumExp - logits[i * vocabulary + target], true);
        record.setFloat64(40, coded.entropyNats, true);
        sink.write(row);
        rows++;
      }
    },
    finish(): void {
      const trailer = Buffer.alloc(TRAILER_BYTES);
      trailer.write(END_MAGIC, 0, 'latin1');
      trailer.writeBigUInt64LE(BigInt(rows), 8);
      sink.write(trailer);
    },
  };
}

function latin1(file: RangeFile, position: number): string {
  const bytes = new Uint8Array(8);
  file.readInto(position, 8, bytes);
  return String.fromCharCode(...bytes);
}

/** Whether the file begins like a dump of this program. */
export function isLogitDump(path: string): boolean {
  return withRange(path, (file) => {
    const found = file.size >= PREAMBLE_BYTES && latin1(file, 0) === MAGIC;
    file.close();
    return found;
  });
}

function parseHeader(text: string, path: string): LogitDumpHeader {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new InputError(`${path}: the header of the logit dump is not JSON: write the dump again`);
  }
  const fields = (typeof json === 'object' && json !== null ? json : {}) as Record<string, unknown>;
  const { vocabulary, model_sha256: modelSha256, data_sha256: dataSha256, parameters } = fields;
  if (
    typeof vocabulary !== 'number' ||
    !Number.isInteger(vocabulary) ||
    vocabulary < 1 ||
    vocabulary > LARGEST_VOCABULARY ||
    typeof modelSha256 !== 'string' ||
    typeof dataSha256 !== 'string' ||
    typeof parameters !== 'object' ||
    parameters === null
  ) {
    throw new InputError(`${path}: the header of the logit dump lacks a valid field: write the dump again`);
  }
  return { vocabulary, modelSha256, dataSha256, parameters: parameters as LogitDumpHeader['parameters'] };
}

/**
 * Opens a dump that `createLogitDump` wrote.
 * @throws InputError for another format, a version this program does not know, or a truncated file
 */
export function openLogitDump(path: string): LogitDump {
  const file = openRange(path);
  try {
    if (file.size < PREAMBLE_BYTES || latin1(file, 0) !== MAGIC) {
      throw new InputError(`${path}: not a logit dump of this program; give one that --save-logits wrote`);
    }
    const preamble = Buffer.alloc(PREAMBLE_BYTES);
    file.readInto(0, PREAMBLE_BYTES, preamble);
    const version = preamble.readUInt32LE(8);
    if (version !== VERSION)
      throw new InputError(`${path}: logit dump of version ${version}; this program reads ${VERSION}`);
    const headerBytes = preamble.readUInt32LE(12);
    const rowsStart = PREAMBLE_BYTES + headerBytes;
    if (headerBytes > LARGEST_HEADER || rowsStart + TRAILER_BYTES > file.size) {
      throw new InputError(`${path}: truncated logit dump: header of ${headerBytes} bytes in ${file.size}`);
    }
    const text = new Uint8Array(headerBytes);
    file.readInto(PREAMBLE_BYTES, headerBytes, text);
    const header = parseHeader(decodeUtf8(text, `${path}: header`), path);
    const rowBytes = dumpRowBytes(header.vocabulary);
    const trailer = Buffer.alloc(TRAILER_BYTES);
    file.readInto(file.size - TRAILER_BYTES, TRAILER_BYTES, trailer);
    const rows = (file.size - TRAILER_BYTES - rowsStart) / rowBytes;
    if (
      trailer.toString('latin1', 0, 8) !== END_MAGIC ||
      !Number.isInteger(rows) ||
      trailer.readBigUInt64LE(8) !== BigInt(rows)
    ) {
      throw new InputError(`${path}: truncated logit dump: no complete trailer; write the dump again`);
    }
    return {
      path,
      header,
      vocabulary: header.vocabulary,
      rows,
      readRows: (start, count) => readDumpRows(file, header.vocabulary, rowsStart, rows, start, count),
      close: () => file.close(),
    };
  } catch (error) {
    file.close();
    throw error;
  }
}

function readDumpRows(
  file: RangeFile,
  vocabulary: number,
  rowsStart: number,
  rows: number,
  start: number,
  count: number,
): StoredRows {
  if (start < 0 || count < 0 || start + count > rows) {
    throw new RangeError(`rows ${start}..${start + count} of a dump of ${rows}`);
  }
  const rowBytes = dumpRowBytes(vocabulary);
  const bytes = new Uint8Array(rowBytes);
  const record = new DataView(bytes.buffer, 0, RECORD_BYTES);
  const rowCodes = new Uint16Array(bytes.buffer, RECORD_BYTES, vocabulary);
  const stored = {
    rows: count,
    vocabulary,
    codes: new Uint16Array(count * vocabulary),
    scale: new Float32Array(count),
    minLogProb: new Float32Array(count),
    documents: new Int32Array(count),
    positions: new Int32Array(count),
    targets: new Int32Array(count),
    exact: {
      tailMass: new Float64Array(count),
      tailCount: new Uint32Array(count),
      surprisalNats: new Float64Array(count),
      entropyNats: new Float64Array(count),
    },
  };
  for (let i = 0; i < count; i++) {
    file.readInto(rowsStart + (start + i) * rowBytes, rowBytes, bytes);
    stored.documents[i] = record.getInt32(0, true);
    stored.positions[i] = record.getInt32(4, true);
    stored.targets[i] = record.getInt32(8, true);
    stored.exact.tailCount[i] = record.getUint32(12, true);
    stored.scale[i] = record.getFloat32(16, true);
    stored.minLogProb[i] = record.getFloat32(20, true);
    stored.exact.tailMass[i] = record.getFloat64(24, true);
    stored.exact.surprisalNats[i] = record.getFloat64(32, true);
    stored.exact.entropyNats[i] = record.getFloat64(40, true);
    stored.codes.set(rowCodes, i * vocabulary);
    checkStoredRow(file.path, start + i, stored, i);
  }
  return stored;
}

/** Refuses scales and offsets that no row of log-probabilities has. */
export function checkStoredRow(path: string, row: number, stored: StoredRows, i: number): void {
  const { vocabulary } = stored;
  const scale = stored.scale[i];
  const minimum = stored.minLogProb[i];
  const target = stored.targets[i];
  if (!(scale >= 0 && scale < Number.POSITIVE_INFINITY) || !Number.isFinite(minimum) || target >= vocabulary) {
    throw new InputError(
      `${path}: row ${row} is damaged (scale ${scale}, minimum ${minimum}, target ${target} of ${vocabulary}); write it again`,
    );
  }
}
