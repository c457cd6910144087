import { InputError } from '../../errors.js';
import { encodeNpy, openNpy, readNpyBytes } from '../../formats/npy.js';
import { elementCount } from '../../formats/tensor.js';
import { widenToF32 } from '../../kernels/dtypes.js';
import { ascending, assembleVectors, type EncodedVectors, type VectorFormat } from './format.js';
import { requireAdd } from './origin.js';

const FLOATS: readonly string[] = ['F32', 'F64', 'F16', 'BF16'];

/** An array [hidden] of one block, or [blocks, hidden] of blocks that follow one another. */
export const NPY_VECTORS: VectorFormat = {
  name: 'npy',
  extensions: ['.npy'],

  read(path, { layer, shift }) {
    const array = openNpy(path);
    try {
      const { shape, dtype } = array;
      if ((shape.length !== 1 && shape.length !== 2) || !FLOATS.includes(dtype)) {
        throw new InputError(
          `${path}: an array [${shape.join(', ')}] of ${dtype}; expected floats of shape [hidden] or [blocks, hidden]`,
        );
      }
      if (layer === undefined) {
        throw new InputError(`${path}: an array does not say which block it belongs to: give the block by --layer`);
      }
      const values = new Float32Array(elementCount(shape));
      widenToF32(readNpyBytes(array), dtype, values);
      const width = shape[shape.length - 1];
      const rows = shape.length === 1 ? 1 : shape[0];
      const stored = Array.from({ length: rows }, (_, row): [number, Float32Array] => [
        layer + row,
        values.slice(row * width, (row + 1) * width),
      ]);
      const last = layer + rows - 1;
      const assumptions = [
        rows === 1
          ? `${layer < 0 ? 'the embeddings' : `block ${layer}`} as asked, added at the output`
          : `rows taken as blocks ${layer} to ${last}, added at their outputs`,
        'length taken as stored',
      ];
      return assembleVectors(path, stored, { origin: {}, assumptions }, shift);
    } finally {
      array.close();
    }
  },

  encode(vectors): EncodedVectors {
    requireAdd(vectors.origin, '.npy');
    const blocks = [...ascending(vectors.directions)];
    const first = blocks[0][0];
    const gap = blocks.findIndex(([block], row) => block !== first + row);
    if (gap > 0) {
      throw new InputError(
        `.npy: its rows are blocks that follow one another, but ${first + gap} is missing: choose --layer or another format`,
      );
    }
    const data = new Float32Array(blocks.length * vectors.hiddenSize);
    blocks.forEach(([, vector], row) => {
      data.set(vector, row * vectors.hiddenSize);
    });
    const shape = blocks.length === 1 ? [vectors.hiddenSize] : [blocks.length, vectors.hiddenSize];
    const notes = [
      `the file does not say that its first row belongs to block ${first}, nor anything else of its origin`,
    ];
    return { bytes: encodeNpy(data, shape), notes };
  },
};
