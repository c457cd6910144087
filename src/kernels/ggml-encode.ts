import { InputError } from '../errors.js';
import { GGML_BLOCKS } from '../formats/ggml-blocks.js';
import type { GgmlBlockType } from '../formats/tensor.js';
import { GGML_CODES } from './ggml.js';
import { BLOCK_ENCODERS } from './ggml-encode-reference.js';
import { kernelThreads, nativeKernels } from './native.js';

/**
 * How squared errors are weighed in the search of scales: alike, or by sqrt(mean x^2) + |x| of the block, which spares
 * large weights. Importances multiply it.
 */
export type GgmlWeighting = 'uniform' | 'magnitude';

export interface GgmlEncodeOptions {
  readonly weighting?: GgmlWeighting;
  /** Importance of each column, positive; rows have as many. */
  readonly importance?: Float64Array;
  readonly threads?: number;
}

/**
 * Rows [rows, columns] as blocks of a GGUF type, for {@link dequantizeGgml} to read back. Scales are searched for the
 * smallest weighted squared error.
 * @throws InputError when a row is not a whole number of blocks
 */
export function encodeGgml(
  source: Float32Array,
  rows: number,
  columns: number,
  type: GgmlBlockType,
  target: Uint8Array,
  options: GgmlEncodeOptions = {},
): void {
  const { blockElements, blockBytes } = GGML_BLOCKS[type];
  const blocks = columns / blockElements;
  if (!Number.isInteger(blocks)) {
    throw new InputError(`a row of ${columns} elements is not a whole number of ${type} blocks of ${blockElements}`);
  }
  if (source.length < rows * columns || target.length < rows * blocks * blockBytes) {
    throw new RangeError(`an array does not fit ${rows} rows of ${columns} elements`);
  }
  const native = nativeKernels();
  if (typeof native?.encodeGgml === 'function') {
    const { weighting, importance = null, threads } = options;
    const code = GGML_CODES.indexOf(type);
    const magnitude = weighting === 'magnitude' ? 1 : 0;
    native.encodeGgml(source, rows, columns, code, magnitude, importance, target, kernelThreads(threads));
    return;
  }
  target.fill(0, 0, rows * blocks * blockBytes);
  const encode = BLOCK_ENCODERS[type];
  const x = new Float64Array(blockElements);
  const w = new Float64Array(blockElements);
  for (let row = 0; row < rows; row++) {
    for (let block = 0; block < blocks; block++) {
      const column = block * blockElements;
      x.set(source.subarray(row * columns + column, row * columns + column + blockElements));
      weigh(x, w, options, column);
      encode(x, w, target, (row * blocks + block) * blockBytes);
    }
  }
}

function weigh(x: Float64Array, w: Float64Array, options: GgmlEncodeOptions, column: number): void {
  if (options.weighting === 'magnitude') {
    let squares = 0;
    for (const value of x) squares += value * value;
    const typical = Math.sqrt(squares / x.length);
    for (let i = 0; i < x.length; i++) w[i] = typical + Math.abs(x[i]);
  } else {
    w.fill(1);
  }
  const { importance } = options;
  if (importance) for (let i = 0; i < x.length; i++) w[i] *= importance[column + i];
}
