import { InputError } from '../errors.js';
import { encodeNpy } from '../formats/npy.js';
import { encodeSafetensors } from '../formats/safetensors-writer.js';
import { DTYPE_BYTES, type DType } from '../formats/tensor.js';
import { openTensorFile } from '../formats/tensor-file.js';
import { widenToF64 } from '../kernels/dtypes.js';
import type { HeadValues } from './attention-settings.js';

/** What a file of values per head must fit. */
export interface HeadShape {
  readonly layers: number;
  readonly heads: number;
  /** Positions of the longest window, where values may differ by position. */
  readonly positions?: number;
}

/**
 * Values per head from an .npy, .npz or .safetensors file: the tensor `name`, or the only one there. Shapes [heads] (all
 * layers alike), [layers, heads], and [layers, heads, positions] where positions are allowed.
 * @throws InputError for another shape, values that are not finite or outside `range`
 */
export function readHeadValues(
  path: string,
  name: string,
  shape: HeadShape,
  range: { readonly least: number; readonly greatest: number },
): HeadValues {
  const { layers, heads, positions } = shape;
  const store = openTensorFile(path);
  try {
    const tensor = store.tensors.get(name) ?? (store.tensors.size === 1 ? [...store.tensors.values()][0] : undefined);
    if (!tensor) {
      throw new InputError(`${path}: holds ${[...store.tensors.keys()].join(', ')}; a tensor named ${name} is needed`);
    }
    const where = `${path}, tensor ${tensor.name}`;
    const found = tensor.shape;
    const shared = found.length === 1 && found[0] === heads;
    const byHead = found.length >= 2 && found[0] === layers && found[1] === heads;
    const byPosition = byHead && found.length === 3 && positions !== undefined;
    if (!(shared || (byHead && found.length === 2) || byPosition)) {
      const wanted = [
        `[${heads}]`,
        `[${layers},${heads}]`,
        ...(positions ? [`[${layers},${heads},${positions}]`] : []),
      ];
      throw new InputError(`${where}: expected ${wanted.join(' or ')}, got [${found.join(',')}]`);
    }
    if (byPosition && found[2] < positions) {
      throw new InputError(`${where}: covers ${found[2]} positions, a window has ${positions}; lower --context`);
    }
    if (!isDType(tensor.dtype)) throw new InputError(`${where}: ${tensor.dtype} is no type of plain numbers`);
    const bytes = new Uint8Array(tensor.byteLength);
    store.readInto(tensor, 0, tensor.byteLength, bytes);
    const own = new Float64Array(found.reduce((a, b) => a * b, 1));
    widenToF64(bytes, tensor.dtype, own);
    own.forEach((value, at) => {
      if (value >= range.least && value <= range.greatest) return;
      throw new InputError(
        `${where}: value ${value} at ${placeOf(at, found)}; ${range.least} to ${range.greatest} is allowed`,
      );
    });
    const values = shared ? repeated(own, layers) : own;
    return { values, positions: byPosition ? found[2] : 1 };
  } finally {
    store.close();
  }
}

function isDType(dtype: string): dtype is DType {
  return Object.hasOwn(DTYPE_BYTES, dtype);
}

function repeated(values: Float64Array, times: number): Float64Array {
  const all = new Float64Array(times * values.length);
  for (let i = 0; i < times; i++) all.set(values, i * values.length);
  return all;
}

function placeOf(at: number, shape: readonly number[]): string {
  const index = new Array<number>(shape.length);
  let rest = at;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    index[axis] = rest % shape[axis];
    rest = Math.floor(rest / shape[axis]);
  }
  return `[${index.join(',')}]`;
}

/** One tensor of values per head. */
export interface HeadTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/**
 * Bytes of a file of the given tensors by the extension of its name.
 * @throws InputError for other extensions, and for .npy where there are several tensors
 */
export function encodeHeadValues(path: string, tensors: readonly HeadTensor[]): Uint8Array {
  if (path.toLowerCase().endsWith('.npy') && tensors.length === 1) return encodeNpy(tensors[0].data, tensors[0].shape);
  checkHeadFile('', path, tensors.length === 1);
  return encodeSafetensors(tensors.map((tensor) => ({ ...tensor, dtype: 'F64' })));
}

/** Throws InputError unless the name can hold values per head: .safetensors, or .npy for a single tensor. */
export function checkHeadFile(option: string, path: string, single: boolean): void {
  const lower = path.toLowerCase();
  if (lower.endsWith('.safetensors') || (single && lower.endsWith('.npy'))) return;
  throw new InputError(`${option} ${path}: a name ending in .safetensors${single ? ' or .npy' : ''} is needed`.trim());
}
