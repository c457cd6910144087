import { InputError } from '../../errors.js';
import { quoted } from '../../formats/files.js';
import { openSafetensors } from '../../formats/safetensors.js';
import { encodeSafetensors } from '../../formats/safetensors-writer.js';
import type { DType, TensorInfo, TensorStore } from '../../formats/tensor.js';
import { widenToF32 } from '../../kernels/dtypes.js';
import type { SteeringVectors } from '../types.js';
import { ascending, assembleVectors, type EncodedVectors, parseBlock, type VectorFormat } from './format.js';
import { originEntries, originOf } from './origin.js';

/** What `format` in the metadata says. */
export const STEERING_FORMAT = 'surprisal/steering-vectors';

const FLOATS: readonly string[] = ['F32', 'F64', 'F16', 'BF16'];

/** A stored vector as f32. @throws InputError for another rank or a type that holds no fractions */
export function readVector(store: TensorStore, info: TensorInfo): Float32Array {
  const where = `${store.path}: tensor ${quoted(info.name)}`;
  if (info.shape.length !== 1) {
    throw new InputError(`${where} has shape [${info.shape.join(', ')}]; a direction has one axis, the hidden size`);
  }
  if (!FLOATS.includes(info.dtype)) throw new InputError(`${where} is ${info.dtype}; save it as F32`);
  const bytes = new Uint8Array(info.byteLength);
  store.readInto(info, 0, bytes.length, bytes);
  const values = new Float32Array(info.shape[0]);
  widenToF32(bytes, info.dtype as DType, values);
  return values;
}

/** The native format: `steer.N` [hidden] of 0-based block N (-1 the embeddings), everything known in `__metadata__`. */
export const SAFETENSORS_VECTORS: VectorFormat = {
  name: 'safetensors',
  extensions: ['.safetensors'],

  read(path, { shift }) {
    const store = openSafetensors(path);
    try {
      const { metadata } = store;
      const assumptions: string[] = [];
      const base = metadata.layer_base === undefined ? 0 : Number(metadata.layer_base);
      if (!Number.isInteger(base)) {
        throw new InputError(`${path}: layer_base is ${quoted(metadata.layer_base)}; expected a whole number`);
      }
      if (metadata.layer_base === undefined) assumptions.push('steer.N taken as the output of 0-based block N');
      const stored = [...store.tensors.values()].map((info): [number, Float32Array] => {
        const block = info.name.startsWith('steer.') ? parseBlock(info.name.slice('steer.'.length)) : undefined;
        if (block === undefined) {
          throw new InputError(
            `${path}: tensor ${quoted(info.name)} is not a direction; they are named steer.N with N the block`,
          );
        }
        if (info.dtype !== 'F32') assumptions.push(`${info.name} widened from ${info.dtype} to F32`);
        return [block - base, readVector(store, info)];
      });
      return assembleVectors(path, stored, { origin: originOf(metadata, path), assumptions }, shift);
    } finally {
      store.close();
    }
  },

  encode(vectors: SteeringVectors): EncodedVectors {
    const tensors = [...ascending(vectors.directions)].map(([block, data]) => ({
      name: `steer.${block}`,
      dtype: 'F32' as const,
      shape: [data.length],
      data,
    }));
    const metadata = {
      format: STEERING_FORMAT,
      layer_base: '0',
      injection: 'block output',
      units: 'residual stream',
      ...originEntries(vectors.origin),
    };
    return { bytes: encodeSafetensors(tensors, metadata), notes: [] };
  },
};
