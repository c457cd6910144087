import { afterAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { ROW_FIELDS, storedScale } from '../../src/kernels/pulse-encode-reference.js';
import { searchPulses } from '../../src/kernels/pulse-search.js';
import type { PyramidCode } from '../../src/kernels/pyramid.js';
import { dequantizeRows, unpackCodes, unpackPulses } from '../../src/kernels/pyramid-index.js';
import { type EncodeOptions, encodeBlock, encodeRows } from '../../src/quantization/encode-rows.js';
import { gainLevels } from '../../src/quantization/gain-levels.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from '../kernels/kernel-modes.js';

afterAll(useBestKernels);

function gaussian(length: number, seed: number): Float32Array {
  const random = createRandom(seed);
  return Float32Array.from({ length }, () => random.normal());
}

function lloyd(code: PyramidCode, columns: number): Float32Array {
  return Float32Array.from(gainLevels('lloyd', code.groupLength, columns, 2 ** code.gainBits));
}

const code = (groupLength: number, pulses: number, gainBits: number, superGroup = 1): PyramidCode => ({
  groupLength,
  pulses,
  gainBits,
  superGroup,
});

/** Rows with zeros, ties, padding, tiny and huge weights. */
function hardRows(rows: number, columns: number): Float32Array {
  const x = gaussian(rows * columns, 5);
  for (let i = 0; i < columns; i++) {
    x[i] = 0;
    x[columns + i] = i < columns / 2 ? 0 : x[columns + i];
    x[2 * columns + i] = i % 2 === 0 ? 0.5 : -0.5;
    x[3 * columns + i] *= 1e-7;
    x[4 * columns + i] *= 1e8;
  }
  return x;
}

const CASES: readonly [string, PyramidCode, number, EncodeOptions][] = [
  ['exact, 3 bits', code(16, 23, 3), 160, {}],
  ['greedy', code(16, 11, 1), 160, { mode: 'greedy' }],
  ['best', code(8, 6, 2), 72, { mode: 'best' }],
  ['fixed point with polish', code(8, 13, 2, 3), 72, { mode: 'fixed-point', exchange: true }],
  ['a padded group', code(16, 14, 2), 75, {}],
  ['no gain bits, many levels', code(24, 35, 0), 96, {}],
  ['many gain bits, lengths kept', code(12, 9, 6), 96, { gainPolicy: 'norm' }],
  ['bitmap of zeros', code(8, 8, 2), 64, { zeroGroups: 'bitmap' }],
  ['capped', code(32, 40, 2), 128, { cap: 3, negativeCap: 2 }],
  ['weighted', code(16, 20, 3), 80, { importance: gaussian(80, 9).map((v) => v * v) }],
  ['weighted and padded, greedy', code(16, 9, 2), 71, { importance: gaussian(71, 8).map(Math.abs), mode: 'greedy' }],
  ['one weight a group', code(1, 1, 4), 9, {}],
];

describe('encoding of rows', () => {
  const modes = kernelModes();

  it.each(CASES)('gives the same bytes everywhere: %s', (_, used, columns, options) => {
    const rows = 23;
    const x = hardRows(rows, columns);
    const levels = lloyd(used, columns);
    const results = modes.flatMap((mode) => {
      mode.use();
      return [1, 3].map((threads) => encodeRows(x, rows, columns, used, levels, { ...options, threads }));
    });
    for (const result of results) {
      expect(result.encoded).toEqual(results[0].encoded);
      expect(result.statistics).toEqual(results[0].statistics);
    }
  });

  it.each(CASES)('reports what decoding gives: %s', (_, used, columns, options) => {
    const rows = 23;
    const x = hardRows(rows, columns);
    useBestKernels();
    const { encoded, statistics } = encodeRows(x, rows, columns, used, lloyd(used, columns), options);
    const decoded = new Float32Array(x.length);
    dequantizeRows(encoded, decoded);
    let [energy, error, cross, kept, largest] = [0, 0, 0, 0, 0];
    for (let i = 0; i < x.length; i++) {
      energy += x[i] * x[i];
      error += (x[i] - decoded[i]) ** 2;
      cross += x[i] * decoded[i];
      kept += decoded[i] * decoded[i];
      largest = Math.max(largest, Math.abs(Math.fround(x[i] - decoded[i])));
    }
    const close = (actual: number, expected: number): void => {
      expect(Math.abs(actual - expected)).toBeLessThanOrEqual(2e-6 * Math.abs(expected));
    };
    close(statistics.weightEnergy, energy);
    close(statistics.squaredError, error);
    close(statistics.crossEnergy, cross);
    close(statistics.decodedEnergy, kept);
    expect(statistics.largestError).toBe(largest);
    expect(statistics.shapeSquaredError + statistics.gainSquaredError).toBeCloseTo(statistics.squaredError, 6);
    // Row 0, half of row 1, and what is tiny or huge.
    const groups = Math.ceil(columns / used.groupLength);
    expect(statistics.zeroGroups).toBeGreaterThanOrEqual(groups);
    expect(statistics.singleScales).toBe(
      encoded.scales.filter((scale) => scale > 65504 || (scale > 0 && scale < 6.1e-5)).length,
    );
    expect(statistics.singleScales).toBeGreaterThanOrEqual(2);
    if (options.zeroGroups === 'bitmap') {
      for (let i = 0; i < 1.5 * columns; i++) expect(decoded[i]).toBe(0);
    }
  });

  it('chooses the nearest level, the lower one on a threshold, and the scale of least squares', () => {
    const used = code(2, 1, 1);
    const levels = Float32Array.of(0.5, 1);
    // Amplitudes 3, 6, 6, 4.5 along single coordinates.
    const x = Float32Array.of(3, 0, 0, -6, 6, 0, 0, 4.5);
    for (const mode of modes) {
      mode.use();
      const { encoded } = encodeRows(x, 1, 8, used, levels);
      const codes = new Uint8Array(4);
      unpackCodes(encoded.gain, 1, 4, 1, codes);
      const scale = encoded.scales[0];
      // Of both assignments of 4.5 the iteration keeps the one that its own scale confirms.
      const q = Array.from(codes, (c) => levels[c]);
      const s = [3, 6, 6, 4.5];
      const fitted = q.reduce((sum, v, i) => sum + v * s[i], 0) / q.reduce((sum, v) => sum + v * v, 0);
      expect(scale).toBe(storedScale(fitted));
      expect(Array.from(codes)).toEqual(s.map((v) => (v / scale > 0.75 ? 1 : 0)));
    }
  });

  it('puts a value on a threshold to the lower level', () => {
    const used = code(1, 1, 1);
    // Scale sqrt(16 + 9) = 5 at first; 3.75 / 5 = 0.75 would be a threshold. Two groups of equal size stay on it.
    const out = { pulses: new Int16Array(2), codes: new Uint8Array(2), decoded: new Float32Array(2) };
    for (const mode of modes) {
      mode.use();
      const scales = Float32Array.of(4);
      encodeBlock(Float32Array.of(3, -3.0000002), 1, 2, used, Float32Array.of(0.5, 1), scales, {}, out);
      expect(Array.from(out.codes)).toEqual([0, 1]);
      expect(Array.from(out.decoded)).toEqual([2, -4]);
    }
  });

  it('rounds scales once to f16, and to f32 where f16 cannot hold them', () => {
    expect(storedScale(1 + 2 ** -11)).toBe(1);
    expect(storedScale(1 + 3 * 2 ** -11)).toBe(1 + 2 ** -9);
    // Rounding to f32 first would go down to the tie and then to even.
    expect(storedScale(1 + 2 ** -11 + 2 ** -40)).toBe(1 + 2 ** -10);
    expect(storedScale(65504)).toBe(65504);
    expect(storedScale(65505)).toBe(65505);
    expect(storedScale(6e-5)).toBe(Math.fround(6e-5));
    expect(storedScale(0)).toBe(0);
    expect(storedScale(0.1)).toBe(0.0999755859375);
  });

  it('tells how many weights are not finite, and where', () => {
    const x = gaussian(4 * 32, 1);
    x[40] = Number.NaN;
    x[100] = Number.NEGATIVE_INFINITY;
    for (const mode of modes) {
      mode.use();
      for (const rows of [x, Float64Array.from(x)]) {
        const encode = () => encodeRows(rows, 4, 32, code(16, 8, 1), Float32Array.of(0.5, 0.8));
        expect(encode).toThrow(InputError);
        expect(encode).toThrow('2 weights are NaN or infinite, the first in row 1, column 8 (NaN)');
      }
    }
  });

  it('refuses what does not fit', () => {
    const x = gaussian(32, 1);
    const levels = Float32Array.of(0.5, 0.8);
    expect(() => encodeRows(x, 2, 32, code(16, 8, 1), levels)).toThrow(RangeError);
    expect(() => encodeRows(x, 1, 32, code(16, 8, 2), levels)).toThrow(RangeError);
    expect(() => encodeRows(x, 1, 32, code(16, 8, 1), Float32Array.of(0.8, 0.5))).toThrow(RangeError);
    expect(() => encodeRows(x, 1, 32, code(16, 40, 1), levels, { cap: 2 })).toThrow(RangeError);
    expect(() => encodeRows(x, 1, 32, code(16, 8, 1), levels, { importance: new Float32Array(3) })).toThrow(RangeError);
  });

  it('has no error for rows that are code words', () => {
    const y = new Float32Array(64);
    for (let g = 0; g < 4; g++) y.set([3, -2, 1, 0, 0, 0, 1, -1, 0, 0, 0, 0, 0, 0, 0, 0], g * 16);
    const { encoded, statistics } = encodeRows(y, 1, 64, code(16, 8, 0), Float32Array.of(0.5));
    const pulses = new Int16Array(64);
    unpackPulses(encoded.index, 1, 4, encoded.code, pulses);
    expect(Array.from(pulses)).toEqual(Array.from(y));
    expect(encoded.scales[0]).toBe(8);
    expect(statistics.squaredError).toBeLessThan(1e-12);
  });
});

describe('encoding of blocks', () => {
  const modes = kernelModes();
  const used = code(8, 12, 2);
  const [rows, width] = [37, 24];
  const x = gaussian(rows * width, 3);
  const levels = lloyd(used, 256);
  const scales = Float32Array.from({ length: rows }, (_, r) => (r === 4 ? 0 : 14 + r / 8));

  const encode = (target: Float32Array | Float64Array, metrics?: Float64Array) => {
    const decoded = target instanceof Float32Array ? new Float32Array(x.length) : new Float64Array(x.length);
    const out = { pulses: new Int16Array(x.length), codes: new Uint8Array(rows * 3), decoded };
    encodeBlock(target, rows, width, used, levels, scales, metrics === undefined ? {} : { metrics }, out);
    return out;
  };

  it('gives the same codes everywhere, those that a search and a decoder of whole rows give', () => {
    const results = modes.map((mode) => {
      mode.use();
      return encode(x);
    });
    for (const result of results) expect(result).toEqual(results[0]);
    const pulses = new Int16Array(x.length);
    searchPulses(x, rows, width, { D: 8, K: 12, mode: 'exact' }, pulses);
    expect(results[0].pulses).toEqual(pulses);
    const whole = encodeRows(x, rows, width, used, levels);
    const again = {
      pulses: new Int16Array(x.length),
      codes: new Uint8Array(rows * 3),
      decoded: new Float32Array(x.length),
    };
    encodeBlock(x, rows, width, used, levels, whole.encoded.scales, {}, again);
    const decoded = new Float32Array(x.length);
    dequantizeRows(whole.encoded, decoded);
    expect(again.decoded).toEqual(decoded);
  });

  it('is the unweighted block where the metric is the identity, up to its search', () => {
    useBestKernels();
    const identity = new Float64Array(3 * 64);
    for (let g = 0; g < 3; g++) for (let j = 0; j < 8; j++) identity[g * 64 + 9 * j] = 1;
    const plain = encode(Float64Array.from(x));
    expect(encode(Float64Array.from(x), identity)).toEqual(plain);
  });

  it('refuses weights that are not finite', () => {
    const bad = x.slice();
    bad[30] = Number.POSITIVE_INFINITY;
    for (const mode of modes) {
      mode.use();
      expect(() => encode(bad)).toThrow('1 weight is NaN or infinite, the first in row 1, column 6 (Infinity)');
      expect(() => encode(Float64Array.from(bad))).toThrow(InputError);
    }
  });

  it('decodes rows of scale 0 to zeros', () => {
    useBestKernels();
    expect(
      encode(x)
        .decoded.subarray(4 * width, 5 * width)
        .every((value) => value === 0),
    ).toBe(true);
  });
});

describe('fields', () => {
  it('are as many as the native kernel writes', () => expect(ROW_FIELDS).toHaveLength(9));
});
