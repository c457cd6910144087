import { InputError } from '../../errors.js';
import { openSafetensors } from '../../formats/safetensors.js';
import { encodeSafetensors } from '../../formats/safetensors-writer.js';
import { widenToF64 } from '../../kernels/dtypes.js';
import { gateSize, gateTensors } from './selector.js';

const DTYPES = ['F64', 'F32', 'BF16', 'F16'] as const;

/** A gate as a safetensors file: its tensors under the names of the released code, in double precision. */
export function gateBytes(gate: Float64Array, models: number): Uint8Array {
  return encodeSafetensors(
    gateTensors(models).map(({ name, dims, offset, length }) => ({
      name,
      dtype: 'F64' as const,
      shape: dims,
      data: gate.slice(offset, offset + length),
    })),
  );
}

/**
 * Reads a gate over so many models, of any float type.
 * @throws InputError naming the tensor that is missing or has another shape
 */
export function readGate(path: string, models: number): Float64Array {
  const store = openSafetensors(path);
  try {
    const gate = new Float64Array(gateSize(models));
    for (const { name, dims, offset, length } of gateTensors(models)) {
      const info = store.tensors.get(name);
      if (!info) throw new InputError(`${path}: the tensor "${name}" of a gate is missing`);
      if (info.shape.join() !== dims.join()) {
        throw new InputError(
          `${path}: tensor "${name}" has the shape [${info.shape.join(', ')}]; a gate over ${models} models has ` +
            `[${dims.join(', ')}]: models are counted with the pivot`,
        );
      }
      const dtype = DTYPES.find((known) => known === info.dtype);
      if (!dtype) throw new InputError(`${path}: tensor "${name}" is ${info.dtype}; a gate is of floats`);
      const bytes = new Uint8Array(info.byteLength);
      store.readInto(info, 0, info.byteLength, bytes);
      widenToF64(bytes, dtype, gate.subarray(offset, offset + length), 1);
    }
    return gate;
  } finally {
    store.close();
  }
}
