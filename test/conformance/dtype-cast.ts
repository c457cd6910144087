import { type NarrowDType, narrowFromF32 } from '../../src/kernels/dtypes.js';
import type { Json } from './harness.js';
import { keysOf, listed } from './tensors.js';

const DTYPES: Readonly<Record<string, NarrowDType>> = { bfloat16_bits: 'BF16', float16_bits: 'F16' };

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const source = Float32Array.from(listed(inputs.float32, 'float32'));
  const result: Record<string, Uint16Array> = {};
  for (const key of keysOf(wanted)) {
    if (!(key in DTYPES)) continue;
    const bits = new Uint16Array(source.length);
    narrowFromF32(source, DTYPES[key], new Uint8Array(bits.buffer));
    result[key] = bits;
  }
  return result;
}
