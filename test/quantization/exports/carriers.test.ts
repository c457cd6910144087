import { describe, expect, it } from 'vitest';
import { InputError } from '../../../src/errors.js';
import { GGML_BLOCKS } from '../../../src/formats/ggml-blocks.js';
import { dequantizeGgml } from '../../../src/kernels/ggml.js';
import {
  checkExportable,
  describeRows,
  startCheck,
  wholeRows,
  writeCarrier,
} from '../../../src/quantization/exports/carriers.js';
import {
  carrierType,
  constraintsOf,
  EXPORT_FORMATS,
  exportBits,
  exportObstacle,
  exportPulses,
  parseExportFormat,
} from '../../../src/quantization/exports/export-format.js';
import { encodeStepRows, fitSteps, roundToHalf } from '../../../src/quantization/exports/step-rows.js';
import { createRandom } from '../../../src/random.js';
import { decode, encodePlain } from './coded-rows.js';

const ROWS = 6;
const COLUMNS = 512;
const random = createRandom(5).fork(0);
const WEIGHTS = Float32Array.from({ length: ROWS * COLUMNS }, (_, i) =>
  // One row of zeros, one of large weights.
  Math.floor(i / COLUMNS) === 2 ? 0 : random.normal() * (Math.floor(i / COLUMNS) === 4 ? 30 : 0.03),
);

function refusal(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return (error as Error).message;
  }
  throw new Error('it was accepted');
}

/** Decibels of weights over what is missing. */
function sqnr(decoded: Float32Array): number {
  let signal = 0;
  let noise = 0;
  decoded.forEach((value, i) => {
    signal += WEIGHTS[i] ** 2;
    noise += (WEIGHTS[i] - value) ** 2;
  });
  return 10 * Math.log10(signal / noise);
}

describe.each([
  ['gguf-q8_0', 32, 25],
  ['gguf-q8_0', 128, 25],
  ['gguf-q4_0', 32, 16],
  ['gguf-q4_0', 64, 16],
] as const)('%s with groups of %i', (format, D, decibels) => {
  const coded = encodePlain(WEIGHTS, ROWS, COLUMNS, format, D);
  const type = carrierType(format);
  if (!type) throw new Error('no type');

  it('holds whole numbers exactly and factors to the nearest f16', () => {
    const check = startCheck();
    const bytes = writeCarrier('w', wholeRows(coded, 0, ROWS), format, check);
    expect(bytes.length * 8).toBe(ROWS * COLUMNS * exportBits(format, D));
    const read = new Float32Array(ROWS * COLUMNS);
    dequantizeGgml(bytes, type, read);
    const meant = decode(coded);
    expect(check.weights).toBe(read.length);
    expect(check.largestRelativeError).toBeLessThanOrEqual(2 ** -11);
    expect(check.largestRelativeError).toBeGreaterThan(0);
    read.forEach((value, i) => {
      expect(Math.abs(value - meant[i])).toBeLessThanOrEqual(Math.abs(meant[i]) * 2 ** -11);
    });
    // Evenly spread over half a unit: that over the root of three at most.
    expect(Math.sqrt(check.squaredError / check.squaredWeights)).toBeLessThan(1.1 * (2 ** -11 / Math.sqrt(3)));
    expect(sqnr(read)).toBeGreaterThan(decibels);
  });

  it('writes the same bytes in bands', () => {
    const whole = writeCarrier('w', wholeRows(coded, 0, ROWS), format, startCheck());
    const bands = [0, 2, 4].map((first) => writeCarrier('w', wholeRows(coded, first, 2), format, startCheck()));
    expect(Buffer.concat(bands)).toEqual(Buffer.from(whole));
  });
});

describe.each([
  ['gguf-q6_k', 16],
  ['gguf-q6_k', 64],
  ['gguf-q3_k', 16],
  ['gguf-q3_k', 32],
  ['gguf-q2_k', 16],
] as const)('%s with groups of %i', (format, D) => {
  const K = exportPulses(format, D);
  const coded = encodeStepRows(WEIGHTS, ROWS, COLUMNS, format, { groupLength: D, pulses: K });

  it('holds every weight to the last bit', () => {
    const check = startCheck();
    const bytes = writeCarrier('w', wholeRows(coded, 0, ROWS), format, check);
    const type = carrierType(format);
    if (!type) throw new Error('no type');
    expect(bytes.length).toBe(((ROWS * COLUMNS) / 256) * GGML_BLOCKS[type].blockBytes);
    const read = new Float32Array(ROWS * COLUMNS);
    dequantizeGgml(bytes, type, read);
    expect(read).toEqual(decode(coded).map((value) => value + 0));
    expect(check).toMatchObject({ weights: read.length, largestRelativeError: 0, squaredError: 0 });
  });

  it('keeps to the code', () => {
    const { cap, negativeCap, largestStep = 0 } = constraintsOf(format);
    coded.points.forEach((y) => {
      expect(y <= cap && y >= -negativeCap).toBe(true);
    });
    coded.codes.forEach((code) => {
      expect(code).toBeLessThanOrEqual(largestStep);
    });
    for (let at = 0; at < coded.points.length; at += D) {
      expect(coded.points.subarray(at, at + D).reduce((sum, y) => sum + Math.abs(y), 0)).toBe(K);
    }
    coded.bases.forEach((base) => {
      expect(roundToHalf(base)).toBe(base);
    });
    // The row of zeros is zero.
    expect([...decode(coded).subarray(2 * COLUMNS, 3 * COLUMNS)].every((value) => value === 0)).toBe(true);
  });
});

describe('steps', () => {
  it('find the pair of least error of all bases near the best', () => {
    const products = Float64Array.of(3, 14, 0.5, 8);
    const squares = Float64Array.of(30, 40, 35, 10);
    const { base, codes } = fitSteps(products, squares, 15);
    const error = (candidate: number): number => {
      let sum = 0;
      products.forEach((xy, g) => {
        const code = Math.min(15, Math.max(0, Math.round(xy / squares[g] / candidate)));
        sum += squares[g] * (candidate * code - xy / squares[g]) ** 2;
      });
      return sum;
    };
    let own = 0;
    products.forEach((xy, g) => {
      own += squares[g] * (base * codes[g] - xy / squares[g]) ** 2;
    });
    expect(own).toBeLessThanOrEqual(error(roundToHalf(0.8 / 15)) + 1e-12);
    expect(own).toBeLessThan(0.02);
  });

  it('of zeros are zero', () => {
    expect(fitSteps(new Float64Array(4), new Float64Array(4).fill(9), 31)).toEqual({
      base: 0,
      codes: new Uint8Array(4),
    });
  });
});

describe('constraints', () => {
  it.each(EXPORT_FORMATS)('of %s are those that the formats check', (format) => {
    const { groupMultiple, columnMultiple, cap, negativeCap } = constraintsOf(format);
    const K = exportPulses(format, 2 * groupMultiple);
    expect(K).toBeGreaterThan(1);
    expect(K).toBeLessThanOrEqual(2 * groupMultiple * Math.min(cap, negativeCap));
    const shape = { groupLength: 2 * groupMultiple, pulses: K };
    expect(exportObstacle(format, 4 * columnMultiple, shape)).toBeUndefined();
    if (columnMultiple > 1)
      expect(exportObstacle(format, columnMultiple + 1, shape)).toContain('not a whole number of blocks');
    expect(exportObstacle(format, 4 * columnMultiple, { ...shape, groupLength: groupMultiple + 1 })).toContain(
      'not a multiple',
    );
  });

  it('are refused by name', () => {
    expect(refusal(() => parseExportFormat('gguf-q8_O'))).toMatch(/"gguf-q8_O" is no export format.*gguf-q8_0/);
    const coded = encodePlain(WEIGHTS, ROWS, COLUMNS, 'gguf-q8_0', 32, 200);
    expect(refusal(() => checkExportable('a.weight', describeRows(coded), 'gguf-q6_k'))).toMatch(
      /tensor "a.weight" cannot be stored exactly as gguf-q6_k: .*\(gain policy step\)/,
    );
    expect(refusal(() => writeCarrier('a.weight', wholeRows(coded, 0, ROWS), 'gguf-q4_0', startCheck()))).toMatch(
      /tensor "a.weight", row 0, column \d+: -?\d+ pulses are outside of the -8 to 7 that gguf-q4_0 holds/,
    );
  });
});
