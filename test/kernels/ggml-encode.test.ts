import { afterEach, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { GGML_BLOCKS } from '../../src/formats/ggml-blocks.js';
import type { GgmlBlockType } from '../../src/formats/tensor.js';
import { dequantizeGgml } from '../../src/kernels/ggml.js';
import { encodeGgml, type GgmlEncodeOptions } from '../../src/kernels/ggml-encode.js';
import { configureKernels } from '../../src/kernels/native.js';
import { createRandom } from '../../src/random.js';

const ROWS = 64;
const COLUMNS = 1024;
const random = createRandom(11);
const gaussian = Float32Array.from({ length: ROWS * COLUMNS }, () => random.normal());
const types = Object.keys(GGML_BLOCKS) as GgmlBlockType[];

function encoded(
  source: Float32Array,
  columns: number,
  type: GgmlBlockType,
  options: GgmlEncodeOptions = {},
): Uint8Array {
  const { blockElements, blockBytes } = GGML_BLOCKS[type];
  const target = new Uint8Array((source.length / blockElements) * blockBytes).fill(255);
  encodeGgml(source, source.length / columns, columns, type, target, options);
  return target;
}

function decibels(source: Float32Array, type: GgmlBlockType, bytes: Uint8Array): number {
  const decoded = new Float32Array(source.length);
  dequantizeGgml(bytes, type, decoded);
  let energy = 0;
  let error = 0;
  for (let i = 0; i < source.length; i++) {
    energy += source[i] ** 2;
    error += (source[i] - decoded[i]) ** 2;
  }
  return 10 * Math.log10(energy / error);
}

afterEach(() => configureKernels({ native: true }));

describe('encodeGgml', () => {
  // What `ggml_quantize_chunk` of llama.cpp reaches on N(0, 1), without an importance matrix.
  it.each([
    ['Q8_0', 45.43],
    ['Q4_0', 21.32],
    ['Q4_1', 22.13],
    ['Q5_0', 27.4],
    ['Q5_1', 28.43],
    ['Q2_K', 10.55],
    ['Q3_K', 16.43],
    ['Q4_K', 22.94],
    ['Q5_K', 28.84],
    ['Q6_K', 35.02],
    ['IQ4_NL', 22.37],
  ] as const)('%s errs less than the %f dB of llama.cpp', (type, theirs) => {
    expect(decibels(gaussian, type, encoded(gaussian, COLUMNS, type))).toBeGreaterThan(theirs);
  });

  it('gives the bits of the reference, with any weights and number of threads', () => {
    const part = gaussian.slice(0, 8 * COLUMNS).map((value, i) => value * (1 + (i % 5)) + (i % 3 === 0 ? 0.5 : 0));
    const importance = Float64Array.from({ length: COLUMNS }, () => 0.1 + random.uniform());
    for (const type of types) {
      for (const options of [{}, { weighting: 'magnitude', importance }] as GgmlEncodeOptions[]) {
        configureKernels({ native: false });
        const reference = encoded(part, COLUMNS, type, options);
        configureKernels({ native: true });
        for (const threads of [1, 3])
          expect(encoded(part, COLUMNS, type, { ...options, threads }), type).toEqual(reference);
      }
    }
  });

  it('is exact on zeros, constants and what a block holds', () => {
    for (const type of types) {
      const zeros = new Float32Array(512);
      const decoded = new Float32Array(512).fill(1);
      dequantizeGgml(encoded(zeros, 512, type), type, decoded);
      expect(
        decoded.every((value) => value === 0),
        type,
      ).toBe(true);
    }
    const steps = Float32Array.from({ length: 32 }, (_, i) => ((i % 16) - 8) * 0.25);
    expect(decibels(steps, 'Q4_0', encoded(steps, 32, 'Q4_0'))).toBe(Number.POSITIVE_INFINITY);
    const constant = new Float32Array(32).fill(1.5);
    expect(decibels(constant, 'Q4_1', encoded(constant, 32, 'Q4_1'))).toBe(Number.POSITIVE_INFINITY);
  });

  it('importance moves errors away from what matters', () => {
    const importance = Float64Array.from({ length: COLUMNS }, (_, i) => (i % 2 === 0 ? 100 : 1));
    const errorOf = (bytes: Uint8Array): number => {
      const decoded = new Float32Array(gaussian.length);
      dequantizeGgml(bytes, 'Q4_K', decoded);
      let error = 0;
      for (let i = 0; i < gaussian.length; i += 2) error += (gaussian[i] - decoded[i]) ** 2;
      return error;
    };
    const plain = errorOf(encoded(gaussian, COLUMNS, 'Q4_K'));
    expect(errorOf(encoded(gaussian, COLUMNS, 'Q4_K', { importance }))).toBeLessThan(0.95 * plain);
  });

  it('refuses rows that are not whole blocks', () => {
    expect(() => encodeGgml(new Float32Array(48), 1, 48, 'Q4_0', new Uint8Array(36))).toThrow(InputError);
    expect(() => encodeGgml(new Float32Array(32), 1, 32, 'Q4_0', new Uint8Array(1))).toThrow(RangeError);
  });
});
