import { InputError } from '../errors.js';
import type { DType } from '../formats/tensor.js';
import { openTensorFile } from '../formats/tensor-file.js';
import { widenToF64 } from '../kernels/dtypes.js';
import type { Head } from './cat-heads.js';

/**
 * A member's head from an .npz or .safetensors file with one matrix and, if there is a bias, one vector; or the matrix
 * alone in an .npy. The matrix may be `[classes, features]` or its transpose; a square one is `[classes, features]`.
 * @throws InputError when the arrays are no head over `features` features with `classes` classes
 */
export function readHead(path: string, features: number, classes: number): Head {
  const store = openTensorFile(path);
  try {
    const tensors = [...store.tensors.values()];
    const matrices = tensors.filter(({ shape }) => shape.length === 2);
    const vectors = tensors.filter(({ shape }) => shape.length === 1);
    if (matrices.length !== 1 || vectors.length > 1) {
      throw new InputError(
        `${path}: a head is one matrix and at most one vector; it holds ${[...store.tensors.keys()]}`,
      );
    }
    const values = (info: (typeof tensors)[number]): Float64Array => {
      const bytes = new Uint8Array(info.byteLength);
      store.readInto(info, 0, bytes.length, bytes);
      const target = new Float64Array(info.shape.reduce((product, extent) => product * extent, 1));
      widenToF64(bytes, info.dtype as DType, target);
      return target;
    };
    const [matrix] = matrices;
    const [rows, columns] = matrix.shape;
    const data = values(matrix);
    const bias = vectors.length === 1 ? values(vectors[0]) : new Float64Array(classes);
    if (bias.length !== classes) {
      throw new InputError(`${path}: the bias has ${bias.length} entries, the task ${classes} classes`);
    }
    if (rows === classes && columns === features) return { weights: data, bias, features, classes };
    if (rows === features && columns === classes) {
      const weights = Float64Array.from(data, (_, i) => data[(i % features) * classes + Math.floor(i / features)]);
      return { weights, bias, features, classes };
    }
    throw new InputError(
      `${path}: the head is [${rows}, ${columns}]; ${classes} classes over ${features} features need ` +
        `[${classes}, ${features}]`,
    );
  } finally {
    store.close();
  }
}
