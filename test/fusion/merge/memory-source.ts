import { DTYPE_BYTES, elementCount } from '../../../src/formats/tensor.js';
import type { MergeDType, MergeSource } from '../../../src/fusion/merge/types.js';
import { narrowFromF32, widenToF64 } from '../../../src/kernels/dtypes.js';

export interface MemoryTensor {
  readonly dtype: MergeDType;
  readonly shape: readonly number[];
  readonly values: ArrayLike<number>;
}

/** A model that lies in memory, and how many bytes the largest of its reads had. */
export function memorySource(
  name: string,
  tensors: Readonly<Record<string, MemoryTensor>>,
): MergeSource & { readonly largestRead: () => number; readonly reads: () => number } {
  const stored = new Map(Object.entries(tensors).map(([key, tensor]) => [key, { ...tensor, bytes: encode(tensor) }]));
  let largest = 0;
  let reads = 0;
  return {
    reference: { text: name, model: name },
    path: name,
    tensors: stored,
    read: async (key, from, to, target) => {
      const tensor = stored.get(key);
      if (tensor === undefined) throw new RangeError(`no tensor ${key}`);
      const rowBytes = elementCount(tensor.shape.slice(1)) * DTYPE_BYTES[tensor.dtype];
      if (from < 0 || to > tensor.shape[0]) throw new RangeError(`rows ${from} to ${to} of ${key}`);
      largest = Math.max(largest, (to - from) * rowBytes);
      reads++;
      target.set(tensor.bytes.subarray(from * rowBytes, to * rowBytes));
    },
    close: () => undefined,
    largestRead: () => largest,
    reads: () => reads,
  };
}

function encode({ dtype, values }: MemoryTensor): Uint8Array {
  if (dtype === 'F64') return new Uint8Array(Float64Array.from(values).buffer);
  const bytes = new Uint8Array(values.length * DTYPE_BYTES[dtype]);
  narrowFromF32(Float32Array.from(values), dtype, bytes);
  return bytes;
}

/** All values of a tensor, read in blocks of `block` rows. */
export async function valuesOf(
  source: MergeSource,
  name: string,
  block = Number.POSITIVE_INFINITY,
): Promise<Float64Array> {
  const tensor = source.tensors.get(name);
  if (tensor === undefined) throw new RangeError(`no tensor ${name}`);
  const width = elementCount(tensor.shape.slice(1));
  const values = new Float64Array(elementCount(tensor.shape));
  for (let from = 0; from < tensor.shape[0]; from += block) {
    const to = Math.min(tensor.shape[0], from + block);
    const bytes = new Uint8Array((to - from) * width * DTYPE_BYTES[tensor.dtype]).fill(0xaa);
    await source.read(name, from, to, bytes);
    widenToF64(bytes, tensor.dtype, values.subarray(from * width, to * width));
  }
  return values;
}
