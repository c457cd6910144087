import { DTYPE_BYTES } from '../../src/formats/tensor.js';
import type { StoredElements } from '../../src/kernels/merge-dense.js';
import { type MergeElementType, storeElements } from '../../src/kernels/merge-elements-reference.js';
import { createRandom } from '../../src/random.js';

export const MERGE_TYPES: readonly MergeElementType[] = ['F64', 'F32', 'F16', 'BF16'];

/** Values stored as a type, at an odd address. */
export function storedAs(values: Float64Array, dtype: MergeElementType): StoredElements {
  const bytes = new Uint8Array(values.length * DTYPE_BYTES[dtype] + 1).subarray(1);
  storeElements(values, dtype, 0, values.length, bytes);
  return { dtype, bytes };
}

export function emptyOf(elements: number, dtype: MergeElementType): StoredElements {
  return storedAs(new Float64Array(elements), dtype);
}

/** Normals like weights; with `odd` also subnormals, zeros of both signs and large values. */
export function weightsLike(elements: number, seed: number, odd = false): Float64Array {
  const random = createRandom(seed);
  return Float64Array.from({ length: elements }, () => {
    const value = 0.05 * random.normal();
    if (!odd) return value;
    const kind = random.integer(10);
    if (kind === 0) return value * 10 ** (-40 * random.uniform());
    if (kind === 1) return random.integer(2) === 0 ? 0 : -0;
    return kind === 2 ? value * 1e6 : value;
  });
}
