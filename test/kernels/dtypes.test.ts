import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { DTYPE_BYTES, type DType } from '../../src/formats/tensor.js';
import { DTYPE_CODES, type NarrowDType, narrowFromF32, widenToF32, widenToF64 } from '../../src/kernels/dtypes.js';
import { narrowReference, widenReference } from '../../src/kernels/dtypes-reference.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

interface Golden {
  readonly count: number;
  readonly narrowedFrom: { readonly lowerHalves: number[] };
  readonly cases: { readonly dtype: NarrowDType; readonly widened: string; readonly narrowed: string }[];
}

const fixture = (path: string): URL => new URL(`../../fixtures/${path}`, import.meta.url);
const golden: Golden = JSON.parse(readFileSync(fixture('golden-native/dtypes.json'), 'utf8'));
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const bytesOf = (array: ArrayBufferView): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** Bit patterns with every NaN the same. */
function patterns(values: Float32Array): Uint32Array {
  const bits = new Uint32Array(values.buffer.slice(values.byteOffset, values.byteOffset + values.byteLength));
  for (let i = 0; i < bits.length; i++) if (Number.isNaN(values[i])) bits[i] = 0x7fc00000;
  return bits;
}

/** Every pattern of a format of one or two bytes. */
function everyPattern(dtype: DType): Uint8Array {
  return bytesOf(
    DTYPE_BYTES[dtype] === 1
      ? Uint8Array.from({ length: 256 }, (_, i) => i)
      : Uint16Array.from({ length: 65536 }, (_, i) => i),
  );
}

/** The floats of the golden file. */
function manyFloats(): Float32Array {
  const lower = golden.narrowedFrom.lowerHalves;
  const bits = new Uint32Array(65536 * lower.length);
  for (let i = 0; i < bits.length; i++)
    bits[i] = ((Math.floor(i / lower.length) << 16) | lower[i % lower.length]) >>> 0;
  const all = new Float32Array(bits.buffer);
  const kept = bits.filter((_, i) => !Number.isNaN(all[i]));
  return new Float32Array(kept.buffer);
}

describe.each(kernelModes())('dtypes, $name', (mode) => {
  beforeAll(mode.use);
  afterAll(useBestKernels);

  it.each(golden.cases)('widens every pattern of $dtype as PyTorch does', ({ dtype, widened }) => {
    const source = everyPattern(dtype);
    const target = new Float32Array(source.length / DTYPE_BYTES[dtype]);
    widenToF32(source, dtype, target);
    expect(sha256(bytesOf(patterns(target)))).toBe(widened);
    const double = new Float64Array(target.length);
    widenToF64(source, dtype, double);
    expect(double).toEqual(Float64Array.from(target));
  });

  it.each(golden.cases)('narrows to $dtype as PyTorch does', ({ dtype, narrowed }) => {
    const floats = manyFloats();
    expect(floats.length).toBe(golden.count);
    const target = new Uint8Array(floats.length * DTYPE_BYTES[dtype]);
    narrowFromF32(floats, dtype, target);
    expect(sha256(target)).toBe(narrowed);
  });

  it.each(golden.cases)('gives every finite $dtype back after a round trip', ({ dtype }) => {
    const source = everyPattern(dtype);
    const wide = new Float32Array(source.length / DTYPE_BYTES[dtype]);
    widenToF32(source, dtype, wide);
    const back = new Uint8Array(source.length);
    narrowFromF32(wide, dtype, back);
    const width = DTYPE_BYTES[dtype];
    const differs = (byte: number, at: number): boolean =>
      !Number.isNaN(wide[Math.floor(at / width)]) && byte !== source[at];
    expect(back.findIndex(differs)).toBe(-1);
  });

  it('agrees with the golden bit patterns of bf16 and f16', () => {
    const item = JSON.parse(readFileSync(fixture('golden/dtype-cast/a.json'), 'utf8'));
    const floats = new Float32Array(Uint32Array.from(item.inputs.float32_bits as number[]).buffer);
    for (const [dtype, key] of [
      ['BF16', 'bfloat16_bits'],
      ['F16', 'float16_bits'],
    ] as const) {
      const bits = new Uint16Array(floats.length);
      narrowFromF32(floats, dtype, bytesOf(bits));
      expect([...bits]).toEqual(item.expected[key]);
    }
  });

  it('saturates F8_E4M3 and lets the others overflow', () => {
    const large = Float32Array.of(448, 464, 480, 1e9, Infinity, -Infinity);
    const through = (dtype: NarrowDType): number[] => {
      const bytes = new Uint8Array(large.length * DTYPE_BYTES[dtype]);
      narrowFromF32(large, dtype, bytes);
      const back = new Float32Array(large.length);
      widenToF32(bytes, dtype, back);
      return [...back];
    };
    expect(through('F8_E4M3')).toEqual([448, 448, 448, 448, 448, -448]);
    expect(through('F8_E5M2')).toEqual([448, 448, 512, Infinity, Infinity, -Infinity]);
    expect(through('F16').slice(3)).toEqual([Infinity, Infinity, -Infinity]);
  });

  it('narrows a NaN to the quiet NaN of its sign', () => {
    const nans = new Float32Array(Uint32Array.of(0x7fc00000, 0x7f800001, 0xffc12345, 0xff800001, 0, 0, 0, 0, 0).buffer);
    const expected: Record<string, number[]> = {
      F16: [0x7e00, 0x7e00, 0xfe00, 0xfe00, 0],
      BF16: [0x7fc0, 0x7fc0, 0xffc0, 0xffc0, 0],
      F8_E4M3: [0x7f, 0x7f, 0xff, 0xff, 0],
      F8_E5M2: [0x7f, 0x7f, 0xff, 0xff, 0],
    };
    for (const [name, wanted] of Object.entries(expected)) {
      const dtype = name as NarrowDType;
      const target = DTYPE_BYTES[dtype] === 1 ? new Uint8Array(9) : new Uint16Array(9);
      narrowFromF32(nans, dtype, bytesOf(target));
      expect([...target.subarray(0, 5)], name).toEqual(wanted);
    }
  });

  it('rounds integers to f32 once', () => {
    // Expected patterns from PyTorch. The middle ones lie where rounding to f64 first would round twice.
    const cases: [bigint, number][] = [
      [-(2n ** 63n), 3741319168],
      [2n ** 63n - 1n, 1593835520],
      [2n ** 53n + 1n, 1509949440],
      [2n ** 62n + 2n ** 38n + 1n, 1585446913],
      [16777217n, 1266679808],
      [-16777217n, 3414163456],
      [2n ** 40n + 2n ** 16n, 1400897536],
      [2n ** 40n + 2n ** 16n + 1n, 1400897537],
      [2n ** 63n - 2n ** 39n, 1593835519],
    ];
    const target = new Float32Array(cases.length);
    widenToF32(bytesOf(BigInt64Array.from(cases.map(([value]) => value))), 'I64', target);
    expect([...patterns(target)]).toEqual(cases.map(([, bits]) => bits));
    const largest = new Float32Array(1);
    widenToF32(bytesOf(BigUint64Array.of(2n ** 64n - 1n)), 'U64', largest);
    expect(largest[0]).toBe(2 ** 64);
  });

  it.each(DTYPE_CODES)('reads %s from unaligned bytes, with any number of threads', (dtype) => {
    const random = createRandom(DTYPE_CODES.indexOf(dtype));
    const count = 70001;
    const width = DTYPE_BYTES[dtype];
    const raw = new Uint8Array(1 + count * width);
    for (let i = 0; i < raw.length; i += 5) new DataView(raw.buffer).setUint8(i, random.integer(256));
    const source = raw.subarray(1);
    const single = new Float32Array(count);
    const double = new Float64Array(count);
    widenReference(source, dtype, single);
    widenReference(source, dtype, double);
    for (const threads of [1, 2, 4]) {
      const actual = new Float32Array(count);
      widenToF32(source, dtype, actual, threads);
      expect(Buffer.compare(bytesOf(patterns(actual)), bytesOf(patterns(single)))).toBe(0);
      const wide = new Float64Array(count);
      widenToF64(source, dtype, wide, threads);
      expect(wide.every((v, i) => Object.is(v, double[i]))).toBe(true);
    }
  });

  it('writes unaligned bytes, with any number of threads', () => {
    const random = createRandom(5);
    const floats = Float32Array.from({ length: 70001 }, (_, i) => (i % 3 === 0 ? random.normal() : i * 1e-7));
    for (const dtype of ['F32', 'F16', 'BF16', 'F8_E4M3', 'F8_E5M2'] as const) {
      const expected = new Uint8Array(floats.length * DTYPE_BYTES[dtype]);
      narrowReference(floats, dtype, expected);
      for (const threads of [1, 2, 4]) {
        const target = new Uint8Array(1 + expected.length).subarray(1);
        narrowFromF32(floats, dtype, target, threads);
        expect(Buffer.compare(target, expected), dtype).toBe(0);
      }
    }
  });

  it('refuses lengths that disagree', () => {
    expect(() => widenToF32(new Uint8Array(5), 'F16', new Float32Array(3))).toThrow(InputError);
    expect(() => widenToF64(new Uint8Array(5), 'I32', new Float64Array(1))).toThrow(
      '1 elements of I32 take 4 bytes, not 5',
    );
    expect(() => narrowFromF32(new Float32Array(3), 'BF16', new Uint8Array(5))).toThrow(InputError);
  });
});
