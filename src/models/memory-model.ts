import { elementCount, type TensorInfo, type TensorStore } from '../formats/tensor.js';
import { describeModel } from './architectures.js';
import type { Config } from './config-reader.js';
import { locateHuggingFace, type ModelFiles } from './model-files.js';

/** A tensor in memory: row-major, F32 or F64 by its array. */
export interface MemoryTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array | Float64Array;
}

/**
 * A store over tensors in memory; the arrays are read where they lie, so a later change is seen by a later read.
 * @throws RangeError when a shape and its array disagree.
 */
export function memoryStore(path: string, tensors: ReadonlyMap<string, MemoryTensor>): TensorStore {
  const described = new Map<string, TensorInfo>();
  for (const [name, { shape, data }] of tensors) {
    if (elementCount(shape) !== data.length) {
      throw new RangeError(`${path}: tensor "${name}" of shape [${shape}] has ${data.length} values`);
    }
    const dtype = data instanceof Float32Array ? 'F32' : 'F64';
    described.set(name, { name, dtype, shape, file: path, offset: 0, byteLength: data.byteLength });
  }
  return {
    path,
    tensors: described,
    metadata: {},
    readInto(tensor, start, length, target) {
      const data = tensors.get(tensor.name)?.data;
      if (!data || start < 0 || start + length > data.byteLength) {
        throw new RangeError(`${path}: bytes ${start} to ${start + length} of "${tensor.name}" do not exist`);
      }
      target.set(new Uint8Array(data.buffer, data.byteOffset + start, length));
    },
    close: () => undefined,
  };
}

/**
 * A store with some tensors in memory, in place of what it has under their names.
 * @param without further tensors that it does not show
 * @throws RangeError as {@link memoryStore}
 */
export function overlaidStore(
  store: TensorStore,
  own: ReadonlyMap<string, MemoryTensor>,
  without: ReadonlySet<string> = new Set(),
): TensorStore {
  const memory = memoryStore(store.path, own);
  const tensors = new Map([...store.tensors].filter(([name]) => !without.has(name)));
  for (const [name, info] of memory.tensors) tensors.set(name, info);
  return {
    path: store.path,
    tensors,
    metadata: store.metadata,
    readInto(tensor, start, length, target) {
      (own.has(tensor.name) ? memory : store).readInto(tensor, start, length, target);
    },
    close: () => store.close(),
  };
}

/**
 * A decoder whose weights are in memory, under the names of a Hugging Face checkpoint of its `model_type`.
 * @throws InputError as {@link openModelFiles} does, naming the key or tensor that is missing or wrong.
 */
export function memoryModel(path: string, config: Config, tensors: ReadonlyMap<string, MemoryTensor>): ModelFiles {
  const description = describeModel(config, path);
  return locateHuggingFace(path, description, memoryStore(path, tensors));
}
