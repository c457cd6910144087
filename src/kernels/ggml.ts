import { InputError } from '../errors.js';
import { GGML_BLOCKS } from '../formats/ggml-blocks.js';
import type { GgmlBlockType } from '../formats/tensor.js';
import { BLOCK_DECODERS } from './ggml-reference.js';
import { kernelThreads, nativeKernels } from './native.js';

/** Block types in the order of their numbers in the addon. */
export const GGML_CODES: readonly GgmlBlockType[] = [
  'Q8_0',
  'Q4_0',
  'Q4_1',
  'Q5_0',
  'Q5_1',
  'Q2_K',
  'Q3_K',
  'Q4_K',
  'Q5_K',
  'Q6_K',
  'IQ4_NL',
];

/**
 * Blocks of quantised weights to f32, bit for bit as the `gguf` Python package gives them. `source` holds whole blocks
 * and may start at any byte; `target` takes exactly their elements.
 * @throws InputError when the lengths disagree.
 */
export function dequantizeGgml(source: Uint8Array, type: GgmlBlockType, target: Float32Array, threads?: number): void {
  const { blockElements, blockBytes } = GGML_BLOCKS[type];
  const blocks = target.length / blockElements;
  if (!Number.isInteger(blocks) || source.length !== blocks * blockBytes) {
    throw new InputError(
      `${source.length} bytes of ${type} hold ${(source.length / blockBytes) * blockElements} elements, ` +
        `not the ${target.length} expected`,
    );
  }
  const native = nativeKernels();
  if (native !== undefined) {
    native.dequantizeGgml(source, GGML_CODES.indexOf(type), target, kernelThreads(threads));
    return;
  }
  const decode = BLOCK_DECODERS[type];
  for (let b = 0; b < blocks; b++) decode(source, b * blockBytes, target, b * blockElements);
}
