import { InputError } from '../errors.js';
import { DTYPE_BYTES, type DType, elementCount, type GgmlBlockType } from './tensor.js';

/** How many elements one block of a GGML type holds, and in how many bytes (ggml-common.h of llama.cpp). */
export const GGML_BLOCKS: Readonly<
  Record<GgmlBlockType, { readonly blockElements: number; readonly blockBytes: number }>
> = {
  Q8_0: { blockElements: 32, blockBytes: 34 },
  Q4_0: { blockElements: 32, blockBytes: 18 },
  Q4_1: { blockElements: 32, blockBytes: 20 },
  Q5_0: { blockElements: 32, blockBytes: 22 },
  Q5_1: { blockElements: 32, blockBytes: 24 },
  Q2_K: { blockElements: 256, blockBytes: 84 },
  Q3_K: { blockElements: 256, blockBytes: 110 },
  Q4_K: { blockElements: 256, blockBytes: 144 },
  Q5_K: { blockElements: 256, blockBytes: 176 },
  Q6_K: { blockElements: 256, blockBytes: 210 },
  IQ4_NL: { blockElements: 32, blockBytes: 18 },
};

export function isBlockType(dtype: DType | GgmlBlockType): dtype is GgmlBlockType {
  return Object.hasOwn(GGML_BLOCKS, dtype);
}

/**
 * Bytes of a tensor of `dtype` and row-major `shape`. Blocks run along the last axis and never span two rows.
 * @throws InputError when the last axis of a block type is not a whole number of blocks, or when the size is not
 * exactly representable (above 2^53).
 */
export function byteLengthOf(dtype: DType | GgmlBlockType, shape: readonly number[]): number {
  const count = elementCount(shape);
  let bytes: number;
  if (isBlockType(dtype)) {
    const { blockElements, blockBytes } = GGML_BLOCKS[dtype];
    const row = shape.length > 0 ? shape[shape.length - 1] : 1;
    if (row % blockElements !== 0)
      throw new InputError(`a row of ${row} elements is not a whole number of ${dtype} blocks of ${blockElements}`);
    bytes = (count / blockElements) * blockBytes;
  } else {
    bytes = count * DTYPE_BYTES[dtype];
  }
  if (!Number.isSafeInteger(count) || !Number.isSafeInteger(bytes))
    throw new InputError(`shape [${shape.join(', ')}] of ${dtype} is larger than any file`);
  return bytes;
}
