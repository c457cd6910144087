import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { GGML_BLOCKS } from '../../src/formats/ggml-blocks.js';
import type { GgmlBlockType } from '../../src/formats/tensor.js';
import { dequantizeGgml, GGML_CODES } from '../../src/kernels/ggml.js';
import { BLOCK_DECODERS } from '../../src/kernels/ggml-reference.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

const golden: { cases: { type: GgmlBlockType; bytes: string; float32: string }[] } = JSON.parse(
  readFileSync(new URL('../../fixtures/golden-native/ggml.json', import.meta.url), 'utf8'),
);

describe.each(kernelModes())('GGUF blocks, $name', (mode) => {
  beforeAll(mode.use);
  afterAll(useBestKernels);

  it('has a golden case for every type', () => {
    expect(golden.cases.map((item) => item.type).sort()).toEqual([...GGML_CODES].sort());
    expect(Object.keys(GGML_BLOCKS).sort()).toEqual([...GGML_CODES].sort());
  });

  it.each(golden.cases)('gives $type bit for bit', ({ type, bytes, float32 }) => {
    const source = Buffer.from(bytes, 'base64');
    const expected = Buffer.from(float32, 'base64');
    const target = new Float32Array(expected.length / 4);
    dequantizeGgml(source, type, target);
    expect(Buffer.compare(Buffer.from(target.buffer), expected)).toBe(0);
  });

  it.each([...GGML_CODES])(
    'gives the reference bits of any %s bytes, unaligned and on any number of threads',
    (type) => {
      const { blockElements, blockBytes } = GGML_BLOCKS[type];
      const blocks = Math.ceil(140000 / blockElements);
      const random = createRandom(GGML_CODES.indexOf(type));
      const noise = Uint8Array.from({ length: 4099 }, () => random.integer(256));
      const source = new Uint8Array(1 + blocks * blockBytes).subarray(1);
      for (let i = 0; i < source.length; i++) source[i] = noise[i % noise.length];
      const expected = new Float32Array(blocks * blockElements);
      for (let b = 0; b < blocks; b++) BLOCK_DECODERS[type](source, b * blockBytes, expected, b * blockElements);
      for (const threads of [1, 3]) {
        const target = new Float32Array(expected.length);
        dequantizeGgml(source, type, target, threads);
        // Random scales may be NaN or infinite, and then so may be the weights.
        expect(target.findIndex((v, i) => !Object.is(v, expected[i]))).toBe(-1);
      }
    },
  );

  it('refuses lengths that disagree', () => {
    expect(() => dequantizeGgml(new Uint8Array(34), 'Q8_0', new Float32Array(31))).toThrow(InputError);
    expect(() => dequantizeGgml(new Uint8Array(33), 'Q8_0', new Float32Array(32))).toThrow(InputError);
    expect(() => dequantizeGgml(new Uint8Array(144), 'Q4_K', new Float32Array(512))).toThrow(
      '144 bytes of Q4_K hold 256 elements, not the 512 expected',
    );
  });
});
