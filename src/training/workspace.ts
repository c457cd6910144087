import type { Tensor } from 'onnxruntime-node';
import { elementCount } from '../formats/tensor.js';
import { floatTensor } from './graph-segment.js';
import type { Floats, Precision } from './types.js';

/** Memory by name that is used again from batch to batch. */
export interface Workspace {
  /** A buffer of `length`, not cleared; it stays the same while no longer one is asked under the name. */
  floats(name: string, length: number): Floats;
  /** The same as a tensor. */
  tensor(name: string, dims: readonly number[]): Tensor;
  /** Bytes held. */
  readonly bytes: number;
}

/** Buffers by name that grow and are used again. */
export function createWorkspace(precision: Precision): Workspace {
  const buffers = new Map<string, Floats>();
  const make = (length: number): Floats => (precision === 'f32' ? new Float32Array(length) : new Float64Array(length));
  const workspace: Workspace = {
    floats(name, length) {
      let buffer = buffers.get(name);
      if (!buffer || buffer.length < length) {
        buffer = make(length);
        buffers.set(name, buffer);
      }
      return buffer.subarray(0, length);
    },
    tensor: (name, dims) => floatTensor(workspace.floats(name, elementCount(dims)), dims),
    get bytes() {
      let sum = 0;
      for (const buffer of buffers.values()) sum += buffer.byteLength;
      return sum;
    },
  };
  return workspace;
}

/** The array of a tensor of single precision. */
export function singles(tensor: Tensor): Float32Array {
  if (tensor.data instanceof Float32Array) return tensor.data;
  throw new RangeError(`a tensor of type ${tensor.type} where one of float32 is needed`);
}
