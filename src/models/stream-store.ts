import fs from 'node:fs';
import path from 'node:path';
import { RunError } from '../errors.js';
import { fileError } from '../formats/files.js';
import type { Floats } from './layer-runner.js';

/** Residual streams of many tokens, read and written by ranges of numbers. */
export interface StreamStore {
  /** A buffer of `length` numbers; the next `buffer` or `read` uses it anew. */
  buffer(length: number): Floats;
  /** Numbers from..from+length-1, as a copy in the buffer. */
  read(from: number, length: number): Floats;
  write(from: number, values: Floats): void;
  close(): void;
}

let counter = 0;

/**
 * Room for `length` numbers: in memory up to `streamBytes`, else in a file of `scratchDirectory` that has no name any more
 * while it is used, so that nothing is left behind however the process ends.
 * @throws InputError when the file cannot be made there
 */
export function createStreamStore(
  length: number,
  options: { readonly streamBytes: number; readonly scratchDirectory: string; readonly precision: 'f32' | 'f64' },
): StreamStore {
  const width = options.precision === 'f32' ? 4 : 8;
  const make = (size: number): Floats => (width === 4 ? new Float32Array(size) : new Float64Array(size));
  let reused = make(0);
  const buffer = (size: number): Floats => {
    if (reused.length < size) reused = make(size);
    return reused.subarray(0, size);
  };
  if (length * width <= options.streamBytes) {
    let all = make(length);
    return {
      buffer,
      read(from, size) {
        const copy = buffer(size);
        copy.set(all.subarray(from, from + size));
        return copy;
      },
      write: (from, values) => all.set(values, from),
      close() {
        all = make(0);
      },
    };
  }
  const name = path.join(options.scratchDirectory, `.streams.${process.pid}.${counter++}.partial`);
  const file = openNameless(name);
  const bytesOf = (values: Floats): Uint8Array => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  let open = true;
  return {
    buffer,
    read(from, size) {
      const copy = buffer(size);
      transfer(name, bytesOf(copy), (bytes, done) =>
        fs.readSync(file, bytes, done, step(bytes, done), from * width + done),
      );
      return copy;
    },
    write(from, values) {
      transfer(name, bytesOf(values), (bytes, done) =>
        fs.writeSync(file, bytes, done, step(bytes, done), from * width + done),
      );
    },
    close() {
      if (open) fs.closeSync(file);
      open = false;
    },
  };
}

/** `fs.readSync` takes at most 2^31 - 1 bytes. */
function step(bytes: Uint8Array, done: number): number {
  return Math.min(1 << 30, bytes.length - done);
}

function openNameless(name: string): number {
  try {
    const file = fs.openSync(name, 'wx+');
    fs.unlinkSync(name);
    return file;
  } catch (error) {
    throw fileError(error, name, 'write');
  }
}

function transfer(name: string, bytes: Uint8Array, move: (bytes: Uint8Array, done: number) => number): void {
  let done = 0;
  try {
    while (done < bytes.length) {
      const moved = move(bytes, done);
      if (moved === 0)
        throw new RunError(`${name}: the file of residual streams ends at ${done} of ${bytes.length} bytes`);
      done += moved;
    }
  } catch (error) {
    throw fileError(error, name, 'use');
  }
}
