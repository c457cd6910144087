import { InputError } from '../errors.js';
import { DTYPE_BYTES, type DType } from '../formats/tensor.js';
import { narrowReference, widenReference } from './dtypes-reference.js';
import { kernelThreads, nativeKernels } from './native.js';

/** Element types in the order of their numbers in the addon. */
export const DTYPE_CODES: readonly DType[] = [
  'F64',
  'F32',
  'F16',
  'BF16',
  'F8_E4M3',
  'F8_E5M2',
  'I64',
  'I32',
  'I16',
  'I8',
  'U64',
  'U32',
  'U16',
  'U8',
  'BOOL',
];

/** Element types that f32 values can be stored in. */
export type NarrowDType = 'F32' | 'F16' | 'BF16' | 'F8_E4M3' | 'F8_E5M2';

function requireLength(bytes: number, dtype: DType, elements: number): void {
  if (bytes !== elements * DTYPE_BYTES[dtype]) {
    throw new InputError(`${elements} elements of ${dtype} take ${elements * DTYPE_BYTES[dtype]} bytes, not ${bytes}`);
  }
}

/**
 * Stored elements as f32, rounded to nearest where f32 holds fewer digits (F64, I64, I32, U64, U32). BOOL gives 0 or 1.
 * `source` holds `target.length` little-endian elements and may start at any byte.
 * @throws InputError when the lengths disagree.
 */
export function widenToF32(source: Uint8Array, dtype: DType, target: Float32Array, threads?: number): void {
  requireLength(source.length, dtype, target.length);
  const native = nativeKernels();
  if (native === undefined) widenReference(source, dtype, target);
  else native.widenToF32(source, DTYPE_CODES.indexOf(dtype), target, kernelThreads(threads));
}

/** Stored elements as f64; exact but for I64 and U64 beyond 2^53. Otherwise as {@link widenToF32}. */
export function widenToF64(source: Uint8Array, dtype: DType, target: Float64Array, threads?: number): void {
  requireLength(source.length, dtype, target.length);
  const native = nativeKernels();
  if (native === undefined) widenReference(source, dtype, target);
  else native.widenToF64(source, DTYPE_CODES.indexOf(dtype), target, kernelThreads(threads));
}

/**
 * f32 values stored as `dtype`, rounded to nearest, ties to even, as the `.to()` of PyTorch 2.15 does: F16, BF16 and
 * F8_E5M2 overflow to infinity; F8_E4M3 (the "FN" kind) has none and saturates, so what exceeds 448, and infinity,
 * becomes 448. (Earlier versions of PyTorch gave NaN there.) A NaN becomes the quiet NaN of its sign. `target` may start
 * at any byte.
 * @throws InputError when the lengths disagree.
 */
export function narrowFromF32(source: Float32Array, dtype: NarrowDType, target: Uint8Array, threads?: number): void {
  requireLength(target.length, dtype, source.length);
  const native = nativeKernels();
  if (native === undefined) narrowReference(source, dtype, target);
  else native.narrowFromF32(source, DTYPE_CODES.indexOf(dtype), target, kernelThreads(threads));
}
