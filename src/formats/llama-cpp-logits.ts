import { InputError } from '../errors.js';
import { openRange, type RangeFile, withRange } from './files.js';
import { encodeLogProbs } from './log-prob-codes.js';
import { type ByteSink, checkStoredRow, type StoredLogits, type StoredRows } from './logit-dump.js';

const MAGIC = '_logits_';
const HEADER_BYTES = 20;

/**
 * The base file of llama.cpp's `--kl-divergence`. Little-endian: "_logits_", n_ctx, n_vocab, n_chunk as i32, n_ctx*n_chunk
 * token ids as i32, then for every chunk a row for each scored position `n_ctx/2 <= j < n_ctx-1`: scale f32, smallest
 * log-probability f32, n_vocab codes u16, one more code where n_vocab is odd.
 */
export interface LlamaCppLogits extends StoredLogits {
  /** n_ctx: tokens of a chunk. */
  readonly context: number;
  readonly chunks: number;
  /** The tokens of all chunks, `[chunks, context]`, before BOS takes the first place of a chunk. */
  readonly tokens: Int32Array;
}

/** Rows that a chunk has, `n_ctx - 1 - floor(n_ctx/2)`. */
function rowsPerChunk(context: number): number {
  return context - 1 - Math.floor(context / 2);
}

/** Codes of a row: two floats and the vocabulary rounded up to an even number. */
function codesPerRow(vocabulary: number): number {
  return 4 + 2 * Math.floor((vocabulary + 1) / 2);
}

/** Whether the file begins like such a base file. */
export function isLlamaCppLogits(path: string): boolean {
  return withRange(path, (file) => {
    const bytes = Buffer.alloc(MAGIC.length);
    if (file.size >= HEADER_BYTES) file.readInto(0, MAGIC.length, bytes);
    file.close();
    return bytes.toString('latin1') === MAGIC;
  });
}

/**
 * Opens a base file. Documents are all 0 and positions count through the token stream.
 * @throws InputError for another format, impossible sizes, or a size that the header does not explain
 */
export function openLlamaCppLogits(path: string): LlamaCppLogits {
  const file = openRange(path);
  try {
    const header = Buffer.alloc(HEADER_BYTES);
    if (file.size < HEADER_BYTES)
      throw new InputError(`${path}: ${file.size} bytes are too few for a llama.cpp base file`);
    file.readInto(0, HEADER_BYTES, header);
    if (header.toString('latin1', 0, 8) !== MAGIC) {
      throw new InputError(`${path}: does not begin with "${MAGIC}"; give a base file of llama.cpp's --kl-divergence`);
    }
    const context = header.readInt32LE(8);
    const vocabulary = header.readInt32LE(12);
    const chunks = header.readInt32LE(16);
    if (context < 3 || vocabulary < 1 || chunks < 1) {
      throw new InputError(`${path}: impossible header: n_ctx ${context}, n_vocab ${vocabulary}, n_chunk ${chunks}`);
    }
    const rows = chunks * rowsPerChunk(context);
    const rowsStart = HEADER_BYTES + 4 * context * chunks;
    const rowBytes = 2 * codesPerRow(vocabulary);
    const expected = rowsStart + rows * rowBytes;
    if (expected !== file.size) {
      throw new InputError(
        `${path}: ${file.size < expected ? 'truncated' : 'too long'}: ${chunks} chunks of ${context} tokens and a vocabulary ` +
          `of ${vocabulary} need ${expected} bytes, the file has ${file.size}`,
      );
    }
    const tokens = new Int32Array(context * chunks);
    file.readInto(HEADER_BYTES, tokens.byteLength, new Uint8Array(tokens.buffer));
    return {
      path,
      vocabulary,
      rows,
      context,
      chunks,
      tokens,
      readRows: (start, count) => readRows(file, vocabulary, context, tokens, rowsStart, rows, start, count),
      close: () => file.close(),
    };
  } catch (error) {
    file.close();
    throw error;
  }
}

function readRows(
  file: RangeFile,
  vocabulary: number,
  context: number,
  tokens: Int32Array,
  rowsStart: number,
  rows: number,
  start: number,
  count: number,
): StoredRows {
  if (start < 0 || count < 0 || start + count > rows) {
    throw new RangeError(`rows ${start}..${start + count} of a base file of ${rows}`);
  }
  const rowBytes = 2 * codesPerRow(vocabulary);
  const bytes = new Uint8Array(rowBytes);
  const head = new Float32Array(bytes.buffer, 0, 2);
  const rowCodes = new Uint16Array(bytes.buffer, 8, vocabulary);
  const perChunk = rowsPerChunk(context);
  const first = Math.floor(context / 2);
  const stored = {
    rows: count,
    vocabulary,
    codes: new Uint16Array(count * vocabulary),
    scale: new Float32Array(count),
    minLogProb: new Float32Array(count),
    documents: new Int32Array(count),
    positions: new Int32Array(count),
    targets: new Int32Array(count),
  };
  for (let i = 0; i < count; i++) {
    const row = start + i;
    file.readInto(rowsStart + row * rowBytes, rowBytes, bytes);
    stored.scale[i] = head[0];
    stored.minLogProb[i] = head[1];
    stored.codes.set(rowCodes, i * vocabulary);
    const position = Math.floor(row / perChunk) * context + first + (row % perChunk) + 1;
    stored.positions[i] = position;
    stored.targets[i] = tokens[position];
    if (tokens[position] < 0) throw new InputError(`${file.path}: token ${position} has the id ${tokens[position]}`);
    checkStoredRow(file.path, row, stored, i);
  }
  return stored;
}

export interface LlamaCppLogitsWriter {
  /** Appends the logits `[rows, vocabulary]` of scored positions, in order, in blocks of any number of rows. */
  append(logits: Float32Array | Float64Array): void;
  /** @throws RangeError when rows are missing or too many were given */
  finish(): void;
}

/**
 * Starts a base file that llama.cpp reads.
 * @param tokens whole chunks of `context` tokens each
 */
export function createLlamaCppLogits(
  sink: ByteSink,
  context: number,
  vocabulary: number,
  tokens: Int32Array,
): LlamaCppLogitsWriter {
  const chunks = tokens.length / context;
  if (!Number.isInteger(chunks) || chunks < 1 || context < 3) {
    throw new RangeError(`${tokens.length} tokens are no whole chunks of ${context}`);
  }
  const header = Buffer.alloc(HEADER_BYTES);
  header.write(MAGIC, 0, 'latin1');
  header.writeInt32LE(context, 8);
  header.writeInt32LE(vocabulary, 12);
  header.writeInt32LE(chunks, 16);
  sink.write(header);
  sink.write(new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength));
  const expected = chunks * rowsPerChunk(context);
  const row = new Uint8Array(2 * codesPerRow(vocabulary));
  const head = new Float32Array(row.buffer, 0, 2);
  const codes = new Uint16Array(row.buffer, 8);
  let rows = 0;
  return {
    append(logits): void {
      for (let start = 0; start < logits.length; start += vocabulary) {
        const coded = encodeLogProbs(logits, start, vocabulary, codes, 0);
        head[0] = coded.scale;
        head[1] = coded.minLogProb;
        sink.write(row);
        rows++;
      }
    },
    finish(): void {
      if (rows !== expected) throw new RangeError(`${rows} rows were written, the header promises ${expected}`);
    },
  };
}
