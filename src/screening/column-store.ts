import fs from 'node:fs';
import { join } from 'node:path';
import { InputError } from '../errors.js';
import { fileError } from '../formats/files.js';

/** A matrix that came by rows and is read by columns. */
export interface ColumnStore {
  readonly rows: number;
  readonly columns: number;
  /** Whether it lies in a temporary file because it is larger than the memory it may have. */
  readonly spilled: boolean;
  /** Columns first..first+count-1, one after another, into `target` `[count, rows]`. */
  read(first: number, count: number, target: Float64Array): void;
  close(): void;
}

export interface ColumnStoreBuilder {
  /** Appends a row `[columns]`; the array may be used anew. */
  append(row: ArrayLike<number>): void;
  /** @throws InputError when cells were NaN or infinite, with their number, the first row and the name of its column */
  finish(): ColumnStore;
  /** Gives up: removes what was written. */
  abandon(): void;
}

export interface ColumnStoreOptions {
  /** What the messages call the matrix. */
  readonly name: string;
  readonly columnName: (column: number) => string;
  /** Memory that the matrix may take; above it goes to a file. */
  readonly maxBytes: number;
  readonly scratchDirectory: string;
}

/** Bytes of one block of rows: what is held at a time once the matrix lies in a file. */
const BLOCK_BYTES = 16 << 20;

/** A file without a name where the system allows it, so that nothing is left when the process ends. */
function openScratch(directory: string): { fd: number; remove(): void } {
  try {
    const folder = fs.mkdtempSync(join(directory, 'surprisal-columns-'));
    const path = join(folder, 'columns.f64');
    const fd = fs.openSync(path, 'wx+');
    const remove = (): void => fs.rmSync(folder, { recursive: true, force: true });
    if (process.platform !== 'win32') remove();
    return { fd, remove };
  } catch (error) {
    throw fileError(error, directory, 'write');
  }
}

function writeAll(fd: number, bytes: Uint8Array, directory: string): void {
  try {
    for (let done = 0; done < bytes.length; ) done += fs.writeSync(fd, bytes, done);
  } catch (error) {
    throw fileError(error, directory, 'write');
  }
}

const bytesOf = (values: Float64Array, length: number): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, length * 8);

/**
 * Collects rows of `columns` numbers into blocks; when they outgrow `maxBytes` all blocks go to a temporary file, from which
 * columns are then read by ranges.
 */
export function createColumnStore(columns: number, options: ColumnStoreOptions): ColumnStoreBuilder {
  const blockRows = Math.max(1, Math.floor(BLOCK_BYTES / (8 * Math.max(1, columns))));
  let blocks: Float64Array[] = [];
  let scratch: ReturnType<typeof openScratch> | undefined;
  let rows = 0;
  let faulty = 0;
  let firstFault: { row: number; column: number; value: number } | undefined;
  const spill = (): void => {
    scratch ??= openScratch(options.scratchDirectory);
    const held = rows % blockRows === 0 ? blockRows : rows % blockRows;
    blocks.forEach((block, b) => {
      const full = b < blocks.length - 1 ? blockRows : held;
      writeAll((scratch as { fd: number }).fd, bytesOf(block, full * columns), options.scratchDirectory);
    });
    blocks = [];
  };
  const release = (): void => {
    if (scratch === undefined) return;
    fs.closeSync(scratch.fd);
    scratch.remove();
    scratch = undefined;
  };
  return {
    append(row) {
      if (rows % blockRows === 0) {
        const wanted = 8 * columns * (rows + blockRows);
        if (blocks.length > 0 && (scratch !== undefined || wanted > options.maxBytes)) spill();
        blocks.push(new Float64Array(blockRows * columns));
      }
      const block = blocks[blocks.length - 1];
      const start = (rows % blockRows) * columns;
      for (let j = 0; j < columns; j++) {
        const value = row[j];
        block[start + j] = value;
        if (value - value === 0) continue;
        faulty++;
        firstFault ??= { row: rows, column: j, value };
      }
      rows++;
    },
    finish() {
      if (firstFault !== undefined) {
        release();
        throw new InputError(
          `${options.name}: ${faulty} ${faulty === 1 ? 'cell is' : 'cells are'} NaN or infinite, the first in row ${firstFault.row}, ` +
            `column "${options.columnName(firstFault.column)}" (${firstFault.value}); impute or remove them`,
        );
      }
      if (scratch !== undefined) spill();
      const file = scratch;
      const stored = rows;
      const lines = blocks;
      return {
        rows: stored,
        columns,
        spilled: file !== undefined,
        read(first, count, target) {
          if (first < 0 || first + count > columns || target.length < count * stored) {
            throw new RangeError(`columns ${first}..${first + count} of ${columns}`);
          }
          if (file !== undefined) readFromFile(file.fd, stored, columns, first, count, target);
          else readFromBlocks(lines, blockRows, stored, columns, first, count, target);
        },
        close: release,
      };
    },
    abandon: release,
  };
}

function readFromBlocks(
  blocks: readonly Float64Array[],
  blockRows: number,
  rows: number,
  columns: number,
  first: number,
  count: number,
  target: Float64Array,
): void {
  for (let row = 0; row < rows; row++) {
    const block = blocks[Math.floor(row / blockRows)];
    const start = (row % blockRows) * columns + first;
    for (let j = 0; j < count; j++) target[j * rows + row] = block[start + j];
  }
}

function readFromFile(
  fd: number,
  rows: number,
  columns: number,
  first: number,
  count: number,
  target: Float64Array,
): void {
  const line = new Float64Array(count);
  const bytes = bytesOf(line, count);
  for (let row = 0; row < rows; row++) {
    const at = (row * columns + first) * 8;
    for (let done = 0; done < bytes.length; ) {
      const got = fs.readSync(fd, bytes, done, bytes.length - done, at + done);
      if (got === 0) throw new RangeError('the temporary file of columns became shorter');
      done += got;
    }
    for (let j = 0; j < count; j++) target[j * rows + row] = line[j];
  }
}
