import { DTYPE_BYTES, elementCount } from '../../../src/formats/tensor.js';
import { modelReference } from '../../../src/fusion/merge/document.js';
import type { MergeDType, MergeSource } from '../../../src/fusion/merge/types.js';
import { narrowFromF32 } from '../../../src/kernels/dtypes.js';

/** A tensor of a model in memory; without `data` it has a shape alone, and cannot be read. */
export interface MemoryTensor {
  readonly shape: readonly number[];
  readonly dtype?: MergeDType;
  readonly data?: ArrayLike<number>;
}

/** A model in memory as a source of a merge. */
export function memorySource(name: string, model: Readonly<Record<string, MemoryTensor>>): MergeSource {
  const tensors = new Map(
    Object.entries(model).map(([tensor, { shape, dtype = 'F32' }]) => [tensor, { shape, dtype }] as const),
  );
  const bytesOf = new Map<string, Uint8Array>();
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
      target.set(bytes.subarray(from * rowBytes, to * rowBytes));
      return Promise.resolve();
    },
    close: () => undefined,
  };
}

/** Values as a tensor stores them. */
export function encode(data: ArrayLike<number>, dtype: MergeDType): Uint8Array {
  if (dtype === 'F64') return new Uint8Array(Float64Array.from(data).buffer);
  const bytes = new Uint8Array(data.length * DTYPE_BYTES[dtype]);
  narrowFromF32(Float32Array.from(data), dtype, bytes);
  return bytes;
}
