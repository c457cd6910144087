import { DTYPE_BYTES, elementCount } from '../../../src/formats/tensor.js';
import { modelReference } from '../../../src/fusion/merge/document.js';
import type { MergeDType, MergeSource } from '../../../src/fusion/merge/types.js';
import { narrowFromF32, widenToF64 } from '../../../src/kernels/dtypes.js';

/** A tensor of a model in memory; without `data` it has a shape alone, and cannot be read. */
export interface MemoryTensor {
  readonly shape: readonly number[];
  readonly dtype?: MergeDType;
  readonly data?: ArrayLike<number>;
}

/** A source that knows how it was read. */
export interface MemorySource extends MergeSource {
  /** Bytes of the largest read, and how many reads there were. */
  readonly largestRead: () => number;
  readonly reads: () => number;
}

/** A model in memory as a source of a merge. */
export function memorySource(name: string, model: Readonly<Record<string, MemoryTensor>>): MemorySource {
  const tensors = new Map(
    Object.entries(model).map(([tensor, { shape, dtype = 'F32' }]) => [tensor, { shape, dtype }] as const),
  );
  const bytesOf = new Map<string, Uint8Array>();
  let largest = 0;
  let reads = 0;
  return {
    reference: modelReference(name, 'test'),
    path: name,
    tensors,
    read(tensor, from, to, target): Promise<void> {
      const { data, shape, dtype = 'F32' } = model[tensor];
      if (data === undefined) throw new Error(`${name}: ${tensor} has no data`);
      const bytes = bytesOf.get(tensor) ?? encode(data, dtype);
      bytesOf.set(tensor, bytes);
      const rowBytes = elementCount(shape.slice(1)) * DTYPE_BYTES[dtype];
      if (from < 0 || to > shape[0]) throw new RangeError(`${name}: rows ${from} to ${to} of ${tensor}`);
      largest = Math.max(largest, (to - from) * rowBytes);
      reads++;
      target.set(bytes.subarray(from * rowBytes, to * rowBytes));
      return Promise.resolve();
    },
    close: () => undefined,
    largestRead: () => largest,
    reads: () => reads,
  };
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

/** Values as a tensor stores them. */
export function encode(data: ArrayLike<number>, dtype: MergeDType): Uint8Array {
  if (dtype === 'F64') return new Uint8Array(Float64Array.from(data).buffer);
  const bytes = new Uint8Array(data.length * DTYPE_BYTES[dtype]);
  narrowFromF32(Float32Array.from(data), dtype, bytes);
  return bytes;
}
