import fs from 'node:fs';
import { InputError, RunError } from '../errors.js';
import { fileError } from '../formats/files.js';

/** Activations [rows, width] at several blocks: one row a prompt (or text), f32. */
export interface ActivationStore {
  /** 0-based blocks, ascending; -1 the embeddings. */
  readonly layers: readonly number[];
  readonly width: number;
  readonly rows: number;
  /** Rows `which` of the block `layers[place]`, `[which.length, width]`. */
  read(place: number, which: ArrayLike<number>): Float32Array;
  close(): void;
}

/** A store that is filled row by row. */
export interface GrowingStore extends ActivationStore {
  /** Puts one row: `[layers, width]`, blocks in their order. */
  write(row: number, values: Float32Array): void;
}

/** Bytes of a store. */
export const storeBytes = (layers: number, width: number, rows: number): number => 4 * layers * width * rows;

/** Activations in memory. */
export function memoryStore(layers: readonly number[], width: number, rows: number): GrowingStore {
  const data = layers.map(() => new Float32Array(rows * width));
  return {
    layers,
    width,
    rows,
    write(row, values) {
      data.forEach((block, place) => {
        block.set(values.subarray(place * width, (place + 1) * width), row * width);
      });
    },
    read(place, which) {
      const result = new Float32Array(which.length * width);
      for (let i = 0; i < which.length; i++) {
        result.set(data[place].subarray(which[i] * width, (which[i] + 1) * width), i * width);
      }
      return result;
    },
    close() {},
  };
}

/** Activations in a working file, which `close` removes: memory holds the rows that are read. */
export function fileStore(path: string, layers: readonly number[], width: number, rows: number): GrowingStore {
  let descriptor: number;
  try {
    descriptor = fs.openSync(path, 'w+');
  } catch (error) {
    throw fileError(error, path, 'write');
  }
  const bytes = 4 * width;
  const offset = (place: number, row: number): number => (place * rows + row) * bytes;
  return {
    layers,
    width,
    rows,
    write(row, values) {
      layers.forEach((_, place) => {
        const own = values.subarray(place * width, (place + 1) * width);
        try {
          const written = fs.writeSync(
            descriptor,
            new Uint8Array(own.buffer, own.byteOffset, bytes),
            0,
            bytes,
            offset(place, row),
          );
          if (written < bytes) throw new RunError(`${path}: the disk is full`);
        } catch (error) {
          throw error instanceof RunError ? error : fileError(error, path, 'write');
        }
      });
    },
    read(place, which) {
      const result = new Float32Array(which.length * width);
      const target = new Uint8Array(result.buffer);
      for (let i = 0; i < which.length; i++) {
        const read = fs.readSync(descriptor, target, i * bytes, bytes, offset(place, which[i]));
        if (read < bytes) throw new RunError(`${path}: is shorter than what was written to it`);
      }
      return result;
    },
    close() {
      fs.closeSync(descriptor);
      fs.rmSync(path, { force: true });
    },
  };
}

/** Refuses rows that are not finite: half-precision weights overflow to infinity and then to NaN. */
export function requireFinite(values: Float32Array, width: number, layers: readonly number[], name: string): void {
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad < 0) return;
  throw new InputError(
    `layer ${layers[Math.floor(bad / width)]}, ${name}: the residual stream is ${values[bad]} at entry ${bad % width}; ` +
      'look at the weights, or try --precision f64',
  );
}
