import { RunError } from '../errors.js';
import { DTYPE_BYTES, type DType } from '../formats/tensor.js';
import { type NarrowDType, narrowFromF32 } from '../kernels/dtypes.js';
import type { Floats } from '../models/layer-runner.js';

/** Values that are rounded and written at a time: 4 MiB of f32. */
export const CHUNK_VALUES = 1 << 20;

/** Magnitudes from which on rounding gives infinity. */
const LIMITS: Readonly<Record<string, number>> = {
  F16: 65520,
  BF16: 2 ** 127 * (2 - 2 ** -8),
  F32: 2 ** 127 * (2 - 2 ** -24),
};

const f32 = new Float32Array(1);
const bits = new Uint32Array(f32.buffer);

/**
 * x as f32 such that a further rounding to a shorter type gives what rounding x itself would: what does not fit exactly ends in
 * an odd digit (rounding to odd; Boldo and Melquiond 2008).
 */
function roundToOdd(x: number): number {
  f32[0] = x;
  const rounded = f32[0];
  if (rounded === x || Number.isNaN(rounded) || (bits[0] & 1) === 1) return rounded;
  // Neighbours of a nearest value with an even last digit have odd ones; x lies between it and one of them.
  const away = Math.abs(rounded) < Math.abs(x);
  if (rounded === 0) {
    bits[0] = x < 0 ? 0x80000001 : 1;
    return f32[0];
  }
  bits[0] += away ? 1 : -1;
  return f32[0];
}

/** `values[at..at + count]` as f32, ready for one rounding to `dtype`; f32 values are not copied. */
export function stageF32(values: Floats, at: number, count: number, dtype: DType): Float32Array {
  if (values instanceof Float32Array) return values.subarray(at, at + count);
  const staged = new Float32Array(count);
  if (dtype === 'F32') staged.set(values.subarray(at, at + count));
  else for (let i = 0; i < count; i++) staged[i] = roundToOdd(values[at + i]);
  return staged;
}

/** NaN where there is one. Magnitudes of floats are in the order of their bits, and NaN is above all. */
function largestMagnitude(values: Float32Array): number {
  const words = new Int32Array(values.buffer, values.byteOffset, values.length);
  let largest = 0;
  for (let i = 0; i < words.length; i++) {
    largest = Math.max(largest, words[i] & 0x7fffffff);
  }
  bits[0] = largest;
  return f32[0];
}

/**
 * f32 values as stored, rounded once to nearest, ties to even.
 * @throws RunError for a value that is not a number, or that the type cannot hold; `where` names it
 */
export function encodeValues(values: Float32Array, dtype: DType, where: string, threads?: number): Uint8Array {
  const limit = LIMITS[dtype];
  if (!(largestMagnitude(values) < limit)) {
    const at = values.findIndex((value) => !(Math.abs(value) < limit));
    throw new RunError(`${where}: value ${values[at]} at ${at} cannot be stored as ${dtype}`);
  }
  const bytes = new Uint8Array(values.length * DTYPE_BYTES[dtype]);
  narrowFromF32(values, dtype as NarrowDType, bytes, threads);
  return bytes;
}
