import { InputError } from '../../errors.js';
import type { SteeringVectors } from '../types.js';

/** Formats of vectors; `caa` is the PyTorch archive of one layer that CAA writes, `svec` the JSON of IBM's library. */
export const VECTOR_FORMATS = ['gguf', 'safetensors', 'json', 'svec', 'caa', 'npy'] as const;
export type VectorFormatName = (typeof VECTOR_FORMATS)[number];

/** Where a vector of a format is put that is learnt at one point of the stream and applied at another. */
export const VECTOR_POINTS = ['applied', 'learnt'] as const;
export type VectorPoint = (typeof VECTOR_POINTS)[number];

export interface ReadVectorOptions {
  /** Block of a file that does not say it: that of its only row, or of its first. */
  readonly layer?: number;
  /** Added to every block that the file names. */
  readonly shift?: number;
  /** Format of the file whatever its name. */
  readonly format?: VectorFormatName;
  /** Default `applied`: steering here does what the library that wrote the file does with it. */
  readonly point?: VectorPoint;
}

export interface EncodeVectorOptions {
  /** Writes the vector of block 0 as one of block 1, where the format cannot say 0 (GGUF). */
  readonly moveBlockZero?: boolean;
}

/** Bytes of a file of vectors, and what it does not hold of them. */
export interface EncodedVectors {
  readonly bytes: Uint8Array;
  readonly notes: readonly string[];
}

/** One format of files: `read` gives 0-based blocks and says what it had to assume. */
export interface VectorFormat {
  readonly name: VectorFormatName;
  /** Lower case, with the dot. */
  readonly extensions: readonly string[];
  read(path: string, options: ReadVectorOptions): SteeringVectors;
  /** Absent where a format is only read. @throws InputError when the vectors cannot be expressed */
  encode?(vectors: SteeringVectors, options: EncodeVectorOptions): EncodedVectors;
}

/** `{block: vector}` in ascending order of blocks. */
export function ascending(directions: Iterable<readonly [number, Float32Array]>): Map<number, Float32Array> {
  return new Map([...directions].sort(([a], [b]) => a - b));
}

/**
 * Vectors by block, moved by `shift` blocks.
 * @throws InputError for none, unequal lengths, values that are not finite, and blocks before the embeddings (-1)
 */
export function assembleVectors(
  path: string,
  stored: Iterable<readonly [number, Float32Array]>,
  rest: Pick<SteeringVectors, 'origin' | 'assumptions'>,
  shift = 0,
): SteeringVectors {
  const directions = new Map<number, Float32Array>();
  let hiddenSize = 0;
  for (const [block, vector] of ascending(stored)) {
    const moved = block + shift;
    if (directions.size === 0) hiddenSize = vector.length;
    if (vector.length !== hiddenSize) {
      throw new InputError(
        `${path}: the vector of block ${block} has ${vector.length} numbers, those before it ${hiddenSize}: all must have the model's hidden size`,
      );
    }
    if (vector.length === 0) throw new InputError(`${path}: the vector of block ${block} is empty`);
    const bad = vector.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) {
      throw new InputError(
        `${path}: the vector of block ${block} is ${vector[bad]} at ${bad}: compute it again in a type of a wider range`,
      );
    }
    if (moved < -1) {
      throw new InputError(
        `${path}: a shift of ${shift} puts block ${block} at ${moved}; the first point of the stream is -1, the embeddings`,
      );
    }
    directions.set(moved, vector);
  }
  if (directions.size === 0) throw new InputError(`${path}: holds no vector`);
  const shifted = shift === 0 ? [] : [`blocks moved by ${shift} as asked`];
  return { hiddenSize, directions, origin: rest.origin, assumptions: [...rest.assumptions, ...shifted] };
}

/** A whole number from -1 on, as a name or a JSON key writes it; undefined for anything else. */
export function parseBlock(text: string): number | undefined {
  return /^(0|[1-9]\d{0,6}|-1)$/.test(text) ? Number(text) : undefined;
}

/** `floats` as numbers of f32. @throws InputError naming the first entry that is not a number that f32 can hold */
export function floatsOf(values: unknown, where: string): Float32Array {
  if (!Array.isArray(values)) throw new InputError(`${where}: expected a list of numbers`);
  const floats = new Float32Array(values.length);
  values.forEach((value: unknown, i) => {
    if (typeof value !== 'number' || !Number.isFinite(Math.fround(value))) {
      throw new InputError(`${where}: entry ${i} is ${JSON.stringify(value)}, not a number that f32 can hold`);
    }
    floats[i] = value;
  });
  return floats;
}
