import fs from 'node:fs';
import { join } from 'node:path';
import { fileError } from '../../formats/files.js';
import type { Segment, StoredColumn } from './record-store.js';

/** Where a segment lies in the work file. */
export interface SegmentPlace {
  readonly start: number;
  readonly records: Int32Array;
  readonly offsets: Int32Array;
  readonly columns: readonly { readonly name: StoredColumn; readonly whole: boolean }[];
  /** Likeliest tokens kept a position; 0 without. */
  readonly k: number;
}

/** Segments in a temporary file that goes with the process. */
export interface BlockFile {
  write(segment: Segment): SegmentPlace;
  read(place: SegmentPlace): Segment;
  close(): void;
}

const padded = (bytes: number): number => Math.ceil(bytes / 8) * 8;
const bytesOf = (values: ArrayBufferView): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/**
 * A work file of segments in `directory`: without a name where the system allows it, so that nothing is left when the process ends.
 * @throws InputError or RunError when it cannot be written there
 */
export function openBlockFile(directory: string): BlockFile {
  let folder: string;
  let fd: number;
  try {
    folder = fs.mkdtempSync(join(directory, 'surprisal-rollouts-'));
    fd = fs.openSync(join(folder, 'tokens'), 'wx+');
  } catch (error) {
    throw fileError(error, directory, 'write');
  }
  const remove = (): void => fs.rmSync(folder, { recursive: true, force: true });
  if (process.platform !== 'win32') remove();
  let end = 0;
  let open = true;
  const put = (values: ArrayBufferView): void => {
    const bytes = bytesOf(values);
    try {
      for (let done = 0; done < bytes.length; ) done += fs.writeSync(fd, bytes, done, bytes.length - done, end + done);
    } catch (error) {
      throw fileError(error, directory, 'write');
    }
    end += padded(bytes.length);
  };
  const take = (values: ArrayBufferView, at: number): number => {
    const bytes = bytesOf(values);
    try {
      for (let done = 0; done < bytes.length; ) {
        const count = fs.readSync(fd, bytes, done, bytes.length - done, at + done);
        if (count === 0) throw new Error('the work file became shorter');
        done += count;
      }
    } catch (error) {
      throw fileError(error, directory, 'read');
    }
    return at + padded(bytes.length);
  };
  return {
    write(segment) {
      const { records, offsets, mask, columns, topTokens } = segment;
      const place: SegmentPlace = {
        start: end,
        records,
        offsets,
        columns: [...columns].map(([name, values]) => ({ name, whole: values instanceof Int32Array })),
        k: topTokens?.k ?? 0,
      };
      put(mask);
      for (const values of columns.values()) put(values);
      if (topTokens) {
        put(topTokens.ids);
        put(topTokens.logProbs);
      }
      return place;
    },
    read({ start, records, offsets, columns, k }) {
      if (!open) throw new RangeError('the dump was closed');
      const tokens = offsets[offsets.length - 1];
      const mask = new Uint8Array(tokens);
      let at = take(mask, start);
      const held = new Map<StoredColumn, Float64Array | Int32Array>();
      for (const { name, whole } of columns) {
        const values = whole ? new Int32Array(tokens) : new Float64Array(tokens);
        at = take(values, at);
        held.set(name, values);
      }
      if (k === 0) return { records, offsets, mask, columns: held };
      const topTokens = { k, ids: new Int32Array(tokens * k), logProbs: new Float64Array(tokens * k) };
      at = take(topTokens.ids, at);
      take(topTokens.logProbs, at);
      return { records, offsets, mask, columns: held, topTokens };
    },
    close() {
      if (!open) return;
      open = false;
      fs.closeSync(fd);
      remove();
    },
  };
}
