import { GGML_BLOCKS } from '../../formats/ggml-blocks.js';
import type { GgmlBlockType } from '../../formats/tensor.js';
import { dequantizeGgml } from '../../kernels/ggml.js';
import { encodeGgml } from '../../kernels/ggml-encode.js';
import type { Baseline } from './baseline.js';

function ggmlBaseline(type: GgmlBlockType): Baseline {
  const { blockElements, blockBytes } = GGML_BLOCKS[type];
  const storedBits = (rows: number, columns: number): number => (rows * columns * 8 * blockBytes) / blockElements;
  return {
    name: type.toLowerCase(),
    title: type,
    settings: [{}],
    storedBits: (_settings, rows, columns) => storedBits(rows, columns),
    misfit: (_settings, columns) =>
      columns % blockElements === 0
        ? undefined
        : `rows of ${columns} weights are not whole ${type} blocks of ${blockElements}`,
    fit({ rows, columns }, _settings, threads) {
      return {
        blockColumns: blockElements,
        storedBits: storedBits(rows, columns),
        quantize(target, count, _column0, width, out) {
          const bytes = new Uint8Array((count * width * blockBytes) / blockElements);
          const elements = count * width;
          encodeGgml(target, count, width, type, bytes, { threads });
          dequantizeGgml(bytes, type, out.length === elements ? out : out.subarray(0, elements), threads);
        },
      };
    },
  };
}

/** The block types of GGUF files, with scales searched for the smallest squared error (`encodeGgml`). */
export const GGML_BASELINES: readonly Baseline[] = (Object.keys(GGML_BLOCKS) as GgmlBlockType[]).map(ggmlBaseline);

/**
 * What llama.cpp stores instead where rows are not whole super-blocks of 256 (`llama-quant.cpp`).
 */
export const GGML_FALLBACKS: Readonly<Record<string, string>> = {
  q2_k: 'q4_0',
  q3_k: 'q4_0',
  q4_k: 'q5_0',
  q5_k: 'q5_1',
  q6_k: 'q8_0',
};
