import { narrowReference } from '../../src/kernels/dtypes-reference.js';
import type { LogitBlock, LogitFormat } from '../../src/kernels/row-statistics.js';
import { createRandom } from '../../src/random.js';

/** Values as a block of `dtype`, rounded to it. */
export function blockOf(values: ArrayLike<number>, dtype: LogitFormat, rows: number, columns: number): LogitBlock {
  if (dtype === 'F64') return { data: Float64Array.from(values), dtype, rows, columns };
  const single = Float32Array.from(values);
  if (dtype === 'F32') return { data: single, dtype, rows, columns };
  const bits = new Uint16Array(single.length);
  narrowReference(single, dtype, new Uint8Array(bits.buffer));
  return { data: bits, dtype, rows, columns };
}

/** Normal logits of standard deviation `spread`; every `maskEvery`-th is -Infinity when that is not 0. */
export function normalLogits(seed: number, count: number, spread: number, maskEvery = 0): Float64Array {
  const random = createRandom(seed);
  const out = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    out[i] = maskEvery > 0 && i % maskEvery === maskEvery - 1 ? Number.NEGATIVE_INFINITY : spread * random.normal();
  }
  return out;
}

/** Columns `from..to` of every row, as a view with the row stride of the whole. */
export function columnsOf(block: LogitBlock, from: number, to: number): LogitBlock {
  return { ...block, data: block.data.subarray(from), columns: to - from, rowStride: block.rowStride ?? block.columns };
}
