import { copyTensor } from '../../src/fusion/merge/methods/passthrough.js';
import type { MergeDType, TensorBytes } from '../../src/fusion/merge/types.js';
import type { Json } from './harness.js';
import { keysOf, listed } from './tensors.js';

const DTYPES: Readonly<Record<string, MergeDType>> = { bfloat16_bits: 'BF16', float16_bits: 'F16' };

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const values = Float32Array.from(listed(inputs.float32, 'float32'));
  const shape = [values.length];
  const source: TensorBytes = { dtype: 'F32', shape, bytes: new Uint8Array(values.buffer) };
  const result: Record<string, Uint16Array> = {};
  for (const key of keysOf(wanted)) {
    if (!(key in DTYPES)) continue;
    const bits = new Uint16Array(values.length);
    copyTensor(source, { dtype: DTYPES[key], shape, bytes: new Uint8Array(bits.buffer) }, 1);
    result[key] = bits;
  }
  return result;
}
