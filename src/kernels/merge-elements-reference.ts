import { DTYPE_BYTES, type DType } from '../formats/tensor.js';
import { narrowReference, widenReference } from './dtypes-reference.js';

/** Element types that kernels of merging read and write. */
export type MergeElementType = Extract<DType, 'F64' | 'F32' | 'F16' | 'BF16'>;

/** Most elements that {@link storeElements} rounds at a time. */
const STRETCH = 4096;
const singles = new Float32Array(STRETCH);

/** Elements [from, from + count) of a stored tensor, exactly, into the first entries of `target`. Any alignment. */
export function loadElements(
  bytes: Uint8Array,
  dtype: MergeElementType,
  from: number,
  count: number,
  target: Float64Array,
): void {
  const width = DTYPE_BYTES[dtype];
  widenReference(bytes.subarray(from * width, (from + count) * width), dtype, target.subarray(0, count));
}

/**
 * The first `count` values into elements [from, from + count) of a stored tensor: rounded to f32 and from there to
 * `dtype`, each to nearest, ties to even; F64 is not rounded. Every NaN is stored as the positive quiet one.
 */
export function storeElements(
  values: Float64Array,
  dtype: MergeElementType,
  from: number,
  count: number,
  bytes: Uint8Array,
): void {
  const width = DTYPE_BYTES[dtype];
  if (dtype === 'F64') {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let i = 0; i < count; i++)
      view.setFloat64(8 * (from + i), Number.isNaN(values[i]) ? Number.NaN : values[i], true);
    return;
  }
  for (let begin = 0; begin < count; begin += STRETCH) {
    const length = Math.min(STRETCH, count - begin);
    for (let i = 0; i < length; i++) {
      const value = values[begin + i];
      singles[i] = Number.isNaN(value) ? Number.NaN : value;
    }
    const target = bytes.subarray((from + begin) * width, (from + begin + length) * width);
    narrowReference(singles.subarray(0, length), dtype, target);
  }
}

/** Rounds what is formed in the compute type of a merge: f32 unless an input is F64. */
export function computeRounding(dtypes: readonly MergeElementType[]): (value: number) => number {
  return dtypes.includes('F64') ? (value) => value : Math.fround;
}
