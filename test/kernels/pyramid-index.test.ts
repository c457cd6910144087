import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import {
  type EncodedRows,
  type PyramidShape,
  pyramidCount,
  rowCodeBytes,
  rowIndexBytes,
  wordBits,
} from '../../src/kernels/pyramid.js';
import {
  decodeIndex,
  dequantizeRows,
  encodeIndex,
  packCodes,
  packPulses,
  unpackCodes,
  unpackPulses,
} from '../../src/kernels/pyramid-index.js';
import { dequantizeRowsReference, packPulsesReference, readBits } from '../../src/kernels/pyramid-index-reference.js';
import { createRandom, type Random } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

/** A point of P(D, K) from a random point of the simplex, so that coordinates are large and small. */
function randomPoint(random: Random, D: number, K: number): Int16Array {
  const weights = Float64Array.from({ length: D }, () => -Math.log(1 - random.uniform()));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const pulses = Int16Array.from(weights, (weight) => Math.floor((K * weight) / total));
  const sum = pulses.reduce((all, pulse) => all + pulse, 0);
  for (let left = K - sum; left > 0; left--) pulses[random.integer(D)]++;
  for (let i = 0; i < D; i++) if (random.uniform() < 0.5) pulses[i] = -pulses[i];
  return pulses;
}

/** First and last points, points on the axes, random ones. */
function somePoints(groups: number, D: number, K: number, seed = 1): Int16Array {
  const random = createRandom(seed);
  const pulses = new Int16Array(groups * D);
  for (let g = 0; g < groups; g++) {
    const at = pulses.subarray(g * D, (g + 1) * D);
    if (g % 7 === 0) at[(g / 7) % D] = g % 2 === 0 ? K : -K;
    else at.set(randomPoint(random, D, K));
  }
  return pulses;
}

/** All points of P(D, K) in the order of the spec: +k, ..., +1, 0, -k, ..., -1 coordinate by coordinate. */
function* allPoints(D: number, K: number): Generator<number[]> {
  if (D === 0) {
    if (K === 0) yield [];
    return;
  }
  const firsts = [...Array.from({ length: K + 1 }, (_, i) => K - i), ...Array.from({ length: K }, (_, i) => i - K)];
  for (const first of firsts) for (const rest of allPoints(D - 1, K - Math.abs(first))) yield [first, ...rest];
}

const shape = (groupLength: number, pulses: number, superGroup = 1): PyramidShape => ({
  groupLength,
  pulses,
  superGroup,
});

describe('indices in big integers', () => {
  it('numbers all points of small pyramids in order', () => {
    for (let D = 1; D <= 5; D++) {
      for (let K = 1; K <= 6; K++) {
        let index = 0n;
        for (const point of allPoints(D, K)) {
          expect(encodeIndex(point, K)).toBe(index);
          expect(Array.from(decodeIndex(index, D, K), (v) => v + 0)).toEqual(point);
          index++;
        }
        expect(index).toBe(pyramidCount(D, K));
      }
    }
  });

  it('takes K = 0 as the one word of zeros', () => {
    expect(encodeIndex([0, 0, 0], 0)).toBe(0n);
    expect(Array.from(decodeIndex(0n, 3, 0))).toEqual([0, 0, 0]);
  });

  it('returns every index of large pyramids', () => {
    const large = fc.record({ D: fc.integer({ min: 1, max: 256 }), K: fc.integer({ min: 1, max: 512 }) });
    fc.assert(
      fc.property(large, fc.bigInt({ min: 0n, max: 2n ** 1300n }), fc.nat(), ({ D, K }, number, seed) => {
        const index = number % pyramidCount(D, K);
        expect(encodeIndex(decodeIndex(index, D, K), K)).toBe(index);
        const point = randomPoint(createRandom(seed), D, K);
        expect(decodeIndex(encodeIndex(point, K), D, K)).toEqual(Int32Array.from(point));
      }),
      { numRuns: 40 },
    );
  });

  it('refuses indices outside the pyramid and pulses off it', () => {
    expect(() => decodeIndex(66n, 3, 4)).toThrow('index 66 is outside the pyramid P(3,4) with 66 codewords');
    expect(() => decodeIndex(-1n, 3, 4)).toThrow(InputError);
    expect(() => encodeIndex([1, 1], 3)).toThrow(InputError);
  });
});

/** [D, K, groups, superGroup]: one limb, 64 bits, two limbs, several, super-groups of each, K >> D and K << D. */
const SHAPES: readonly [number, number, number, number][] = [
  [1, 5, 13, 1],
  [1, 3, 70, 64],
  [2, 32767, 5, 1],
  [3, 300, 9, 4],
  [4, 29, 33, 1],
  [7, 11, 12, 5],
  [8, 6, 41, 7],
  [16, 11, 40, 1],
  [16, 23, 19, 1],
  [16, 48, 19, 3],
  [16, 58, 19, 1],
  [16, 59, 10, 1],
  [24, 10, 11, 10],
  [24, 82, 11, 1],
  [32, 22, 9, 2],
  [32, 50, 9, 1],
  [32, 105, 9, 1],
  [64, 14, 9, 1],
  [64, 96, 9, 1],
  [64, 190, 5, 3],
  [128, 84, 5, 1],
  [128, 378, 5, 2],
  [256, 512, 3, 1],
  [300, 2, 5, 3],
];

/** Indices as plain words of one row, whatever they are. */
function packWords(indices: readonly bigint[], bits: number): Uint8Array {
  const bytes = new Uint8Array(Math.ceil((indices.length * bits) / 8));
  let all = 0n;
  for (let g = indices.length - 1; g >= 0; g--) all = (all << BigInt(bits)) | indices[g];
  for (let i = 0; i < bytes.length; i++, all >>= 8n) bytes[i] = Number(all & 255n);
  return bytes;
}

/** Stored rows with scales of both signs of an exponent, all gain codes, and some zero groups. */
function someRows(columns: number, gainBits: number, code: PyramidShape, zeros: boolean): EncodedRows {
  const rows = 5;
  const groups = Math.ceil(columns / code.groupLength);
  const random = createRandom(columns + gainBits);
  const index = new Uint8Array(rows * rowIndexBytes(code, groups));
  packPulses(somePoints(rows * groups, code.groupLength, code.pulses, 3), rows, groups, code, index);
  const codes = Uint8Array.from({ length: rows * groups }, () => random.integer(2 ** gainBits));
  const gain = new Uint8Array(rows * rowCodeBytes(gainBits, groups));
  packCodes(codes, rows, groups, gainBits, gain);
  const scales = Float32Array.from({ length: rows }, () => Math.exp(3 * random.normal()));
  const levels = Float32Array.from({ length: 2 ** gainBits }, () => random.uniform()).sort();
  const zeroGroups = new Uint8Array(rows * rowCodeBytes(1, groups));
  packCodes(
    Uint8Array.from(codes, () => random.integer(2)),
    rows,
    groups,
    1,
    zeroGroups,
  );
  const stored = { rows, columns, code: { ...code, gainBits }, index, gain, scales, levels };
  return zeros ? { ...stored, zeroGroups } : stored;
}

/** Weights by the formula, from the pulses, gain codes and bits that the packed arrays hold. */
function weightsOf(encoded: EncodedRows): Float32Array {
  const { rows, columns, code, scales, levels, zeroGroups } = encoded;
  const D = code.groupLength;
  const groups = Math.ceil(columns / D);
  const pulses = new Int16Array(rows * groups * D);
  unpackPulses(encoded.index, rows, groups, code, pulses);
  const codes = new Uint8Array(rows * groups);
  unpackCodes(encoded.gain, rows, groups, code.gainBits, codes);
  const zeros = new Uint8Array(rows * groups);
  if (zeroGroups !== undefined) unpackCodes(zeroGroups, rows, groups, 1, zeros);
  return Float32Array.from({ length: rows * columns }, (_, at) => {
    const row = Math.floor(at / columns);
    const column = at % columns;
    const g = row * groups + Math.floor(column / D);
    if (zeros[g] === 1) return 0;
    const y = pulses.subarray(g * D, (g + 1) * D);
    const norm = Math.hypot(...y);
    return (scales[row] * levels[codes[g]] * y[column % D]) / norm;
  });
}

describe.each(kernelModes())('packed pulses, $name', (mode) => {
  beforeAll(() => mode.use());
  afterAll(() => useBestKernels());

  it.each(SHAPES)('D = %i, K = %i, %i groups by %i', (D, K, groups, superGroup) => {
    const rows = 3;
    const pulses = somePoints(rows * groups, D, K);
    const code = shape(D, K, superGroup);
    const packed = new Uint8Array(rows * rowIndexBytes(code, groups)).fill(255);
    packPulses(pulses, rows, groups, code, packed);
    const expected = new Uint8Array(packed.length);
    packPulsesReference(pulses, rows, groups, code, expected);
    expect(packed).toEqual(expected);
    for (const threads of [1, 3]) {
      const back = new Int16Array(pulses.length);
      unpackPulses(packed, rows, groups, code, back, threads);
      expect(back).toEqual(pulses);
    }
  });

  it('decodes every index of small pyramids', () => {
    for (const [D, K] of [
      [1, 4],
      [2, 9],
      [3, 4],
      [4, 5],
      [5, 4],
      [6, 3],
    ]) {
      const count = Number(pyramidCount(D, K));
      const code = shape(D, K, count);
      const pulses = Int16Array.from([...allPoints(D, K)].flat());
      const plain = shape(D, K);
      const packed = new Uint8Array(rowIndexBytes(plain, count));
      packPulses(pulses, 1, count, plain, packed);
      const bits = wordBits(plain);
      expect(packed).toEqual(
        packWords(
          Array.from({ length: count }, (_, i) => BigInt(i)),
          bits,
        ),
      );
      const back = new Int16Array(pulses.length);
      unpackPulses(packed, 1, count, plain, back);
      expect(back).toEqual(pulses);
      // All of them in one word of mixed radix.
      const word = new Uint8Array(rowIndexBytes(code, count));
      packPulses(pulses, 1, count, code, word);
      unpackPulses(word, 1, count, code, back);
      expect(back).toEqual(pulses);
    }
  });

  it.each([
    [16, 23],
    [16, 58],
    [64, 15],
    [32, 50],
    [32, 105],
    [64, 96],
    [128, 84],
  ])('decodes indices at the edges between words of P(%i, %i)', (D, K) => {
    // Where the first coordinate changes the rest is 0 or the last: numbers that agree in their leading digits.
    const count = pyramidCount(D, K);
    const edges = [0n, 1n, count - 1n, count - 2n];
    for (let first = -K; first <= K; first++) {
      const point = new Int16Array(D);
      point[0] = first;
      point[1] = K - Math.abs(first);
      const index = encodeIndex(point, K);
      for (const near of [index - 1n, index, index + 1n]) if (near >= 0n && near < count) edges.push(near);
    }
    const code = shape(D, K);
    const packed = packWords(edges, wordBits(code));
    const back = new Int16Array(edges.length * D);
    unpackPulses(packed, 1, edges.length, code, back);
    edges.forEach((index, g) => {
      expect(Array.from(back.subarray(g * D, (g + 1) * D))).toEqual(Array.from(decodeIndex(index, D, K)));
    });
  });

  it.each([
    [48, 3, shape(16, 23), false],
    [50, 0, shape(16, 11), true],
    [37, 1, shape(8, 6, 3), true],
    [64, 8, shape(4, 14), false],
    [200, 5, shape(64, 190, 2), true],
    [7, 2, shape(24, 10), false],
    [33, 4, shape(32, 120), true],
  ])('dequantises rows of %i columns and %i gain bits', (columns, gainBits, code, zeros) => {
    const encoded = someRows(columns, gainBits, code, zeros);
    const weights = new Float32Array(encoded.rows * columns);
    dequantizeRows(encoded, weights);
    const expected = weightsOf(encoded);
    weights.forEach((weight, i) => {
      expect(Math.abs(weight - expected[i])).toBeLessThanOrEqual(1.2e-7 * Math.abs(expected[i]));
    });
    const reference = new Float32Array(weights.length);
    dequantizeRowsReference(encoded, reference, 0, encoded.rows);
    expect(weights).toEqual(reference);
    const some = new Float32Array(2 * columns);
    dequantizeRows(encoded, some, { firstRow: 2, rowCount: 2, threads: 2 });
    expect(some).toEqual(weights.subarray(2 * columns, 4 * columns));
    const last = new Float32Array(columns);
    dequantizeRows(encoded, last, { firstRow: encoded.rows - 1 });
    expect(last).toEqual(weights.subarray((encoded.rows - 1) * columns));
  });

  it('names row, group and index of a word that is no point', () => {
    for (const [code, groups] of [
      [shape(16, 23), 40],
      [shape(32, 50), 12],
      [shape(8, 6, 5), 12],
      [shape(24, 82, 3), 8],
    ] as const) {
      const rows = 3;
      const rowBytes = rowIndexBytes(code, groups);
      const packed = new Uint8Array(rows * rowBytes);
      packPulses(somePoints(rows * groups, code.groupLength, code.pulses), rows, groups, code, packed);
      packed.fill(255, 2 * rowBytes);
      // The last of the first whole word's groups carries the excess.
      const group = code.superGroup - 1;
      const target = new Int16Array(rows * groups * code.groupLength);
      const message = new RegExp(
        `^row 2, group ${group}: index \\d+ is outside the pyramid P\\(${code.groupLength},${code.pulses}\\) with ${pyramidCount(code.groupLength, code.pulses)} codewords$`,
      );
      expect(() => unpackPulses(packed, rows, groups, code, target, 2)).toThrow(message);
      const encoded: EncodedRows = {
        rows,
        columns: groups * code.groupLength,
        code: { ...code, gainBits: 0 },
        index: packed,
        gain: new Uint8Array(0),
        scales: new Float32Array(rows).fill(1),
        levels: new Float32Array([1]),
      };
      const weights = new Float32Array(rows * encoded.columns);
      expect(() => dequantizeRows(encoded, weights)).toThrow(message);
      dequantizeRows(encoded, weights, { rowCount: 2 });
    }
  });

  it('names row and group of pulses off the pyramid', () => {
    const pulses = somePoints(12, 4, 7);
    pulses[4 * 7 + 1] += pulses[4 * 7 + 1] < 0 ? -1 : 1;
    const code = shape(4, 7);
    const packed = new Uint8Array(3 * rowIndexBytes(code, 4));
    expect(() => packPulses(pulses, 3, 4, code, packed)).toThrow(
      'row 1, group 3: the absolute values of the pulses sum to 8, not to K = 7',
    );
  });

  it('takes rows without groups', () => {
    packPulses(new Int16Array(0), 4, 0, shape(4, 7), new Uint8Array(0));
    unpackPulses(new Uint8Array(0), 4, 0, shape(4, 7), new Int16Array(0));
  });

  it('refuses arrays that are too short and pyramids that are too large', () => {
    const code = shape(16, 23);
    expect(() => packPulses(new Int16Array(16), 1, 2, code, new Uint8Array(12))).toThrow(InputError);
    expect(() => unpackPulses(new Uint8Array(11), 1, 2, code, new Int16Array(32))).toThrow(
      'has 11 entries and needs 12',
    );
    expect(() => packPulses(new Int16Array(0), 0, 0, shape(4096, 32767), new Uint8Array(0))).toThrow('too large');
    expect(() => packPulses(new Int16Array(0), 0, 0, shape(16, 0), new Uint8Array(0))).toThrow('K is 0');
    const encoded = someRows(48, 3, code, false);
    const target = new Float32Array(5 * 48);
    expect(() => dequantizeRows({ ...encoded, gain: encoded.gain.subarray(1) }, target)).toThrow('gain codes');
    expect(() => dequantizeRows({ ...encoded, scales: encoded.scales.subarray(1) }, target)).toThrow('row scales');
    expect(() => dequantizeRows({ ...encoded, levels: encoded.levels.subarray(1) }, target)).toThrow('gain levels');
    expect(() => dequantizeRows(encoded, target, { firstRow: 3, rowCount: 3 })).toThrow('rows 3 to 6 are wanted of 5');
  });
});

describe('codes', () => {
  it('packs codes of every length from the lowest bits', () => {
    const random = createRandom(5);
    for (let bits = 0; bits <= 8; bits++) {
      const [rows, groups] = [3, 11];
      const codes = Uint8Array.from({ length: rows * groups }, () => random.integer(2 ** bits));
      const rowBytes = rowCodeBytes(bits, groups);
      const packed = new Uint8Array(rows * rowBytes).fill(255);
      packCodes(codes, rows, groups, bits, packed);
      codes.forEach((code, i) => {
        const at = 8 * rowBytes * Math.floor(i / groups) + bits * (i % groups);
        expect(Number(readBits(packed, at, bits))).toBe(code);
      });
      const back = new Uint8Array(codes.length);
      unpackCodes(packed, rows, groups, bits, back);
      expect(back).toEqual(codes);
    }
  });

  it('refuses codes that need more bits, and more than eight', () => {
    expect(() => packCodes(Uint8Array.of(1, 4), 1, 2, 2, new Uint8Array(1))).toThrow('row 0, group 1: code 4');
    expect(() => packCodes(Uint8Array.of(1), 1, 1, 9, new Uint8Array(2))).toThrow('0 to 8 bits');
  });
});
