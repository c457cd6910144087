import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import {
  bitLength,
  checkIndexFits,
  indexBits,
  largestPulses,
  MOST_PULSES,
  pyramidCount,
  pyramidLog2,
  rowCodeBytes,
  rowGroups,
  rowIndexBytes,
  wordBits,
} from '../../src/kernels/pyramid.js';

/** N by trying all vectors. */
function countByTrying(D: number, K: number): number {
  if (D === 0) return K === 0 ? 1 : 0;
  let count = 0;
  for (let first = -K; first <= K; first++) count += countByTrying(D - 1, K - Math.abs(first));
  return count;
}

const shape = (groupLength: number, pulses: number, superGroup = 1) => ({ groupLength, pulses, superGroup });

describe('the number of points', () => {
  it('equals what trying all vectors gives', () => {
    for (let D = 0; D <= 5; D++) {
      for (let K = 0; K <= 6; K++) expect(pyramidCount(D, K)).toBe(BigInt(countByTrying(D, K)));
    }
  });

  it('follows the recurrence of Fischer at any size', () => {
    const size = fc.integer({ min: 1, max: 600 });
    fc.assert(
      fc.property(size, size, (D, K) => {
        const sum = pyramidCount(D - 1, K) + pyramidCount(D, K - 1) + pyramidCount(D - 1, K - 1);
        expect(pyramidCount(D, K)).toBe(sum);
      }),
      { numRuns: 40 },
    );
  });

  it.each([
    [4, 29, 15.992],
    [8, 16, 23.854],
    [8, 36, 31.921],
    [12, 47, 47.921],
    [16, 12, 31.735],
    [16, 27, 47.596],
    [16, 40, 55.824],
    [16, 58, 63.738],
    [24, 82, 95.985],
    [32, 22, 63.071],
    [32, 50, 95.624],
    [32, 105, 127.797],
    [64, 43, 127.663],
    [64, 96, 191.853],
    [128, 84, 255.567],
  ])('P(%i, %i) takes %f bits', (D, K, bits) => {
    expect(pyramidLog2(D, K)).toBeCloseTo(bits, 3);
    expect(wordBits(shape(D, K))).toBe(Math.ceil(bits));
    expect(largestPulses(D, Math.ceil(bits))).toBeGreaterThanOrEqual(K);
  });

  it('has a logarithm where no double holds the number', () => {
    const count = pyramidCount(512, 1024);
    expect(Number(count)).toBe(Number.POSITIVE_INFINITY);
    const leading = Number(count >> 1000n);
    expect(Number.isFinite(leading)).toBe(true);
    expect(Math.abs(pyramidLog2(512, 1024) / (1000 + Math.log2(leading)) - 1)).toBeLessThan(1e-15);
    expect(pyramidLog2(0, 3)).toBe(Number.NEGATIVE_INFINITY);
    expect(pyramidLog2(5, 0)).toBe(0);
  });

  it('refuses sizes that are no counts', () => {
    expect(() => pyramidCount(-1, 3)).toThrow(InputError);
    expect(() => pyramidCount(3, 1.5)).toThrow(InputError);
    expect(() => wordBits(shape(0, 3))).toThrow('D is 0');
    expect(() => wordBits(shape(3, 0))).toThrow('K is 0');
    expect(() => wordBits(shape(3, 4, 0))).toThrow('super-group');
    expect(() => wordBits(shape(3, MOST_PULSES + 1))).toThrow('16 bits');
  });
});

describe('bits', () => {
  it('counts binary digits as their text has them', () => {
    expect(bitLength(0n)).toBe(0);
    fc.assert(
      fc.property(fc.bigInt({ min: 1n, max: 2n ** 700n }), (value) => {
        expect(bitLength(value)).toBe(value.toString(2).length);
      }),
    );
    for (const power of [1n, 3n, 4n, 63n, 64n, 65n, 1024n]) {
      expect(indexBits(2n ** power)).toBe(Number(power));
      expect(indexBits(2n ** power + 1n)).toBe(Number(power) + 1);
    }
  });

  it('takes one bit for one weight, and none for no groups', () => {
    expect(wordBits(shape(1, 7))).toBe(1);
    expect(wordBits(shape(1, 7, 20))).toBe(20);
    expect(wordBits(shape(16, 23), 0)).toBe(0);
  });

  it('removes the slack of single indices by super-groups', () => {
    // P(8, 6): 14.72 bits take 15; in words of 32 groups 14.72 and a bit.
    expect(wordBits(shape(8, 6)) - pyramidLog2(8, 6)).toBeCloseTo(0.279, 3);
    const word = wordBits(shape(8, 6, 32));
    expect(word).toBe(Math.ceil(32 * pyramidLog2(8, 6)));
    // 70 groups: two words of 32, one of 6, padded to a byte.
    const bits = 2 * word + Math.ceil(6 * pyramidLog2(8, 6));
    expect(rowIndexBytes(shape(8, 6, 32), 70)).toBe(Math.ceil(bits / 8));
    expect(rowIndexBytes(shape(8, 6), 70)).toBe(Math.ceil((70 * 15) / 8));
  });

  it('pads rows to groups and bytes', () => {
    expect(rowGroups(48, 16)).toBe(3);
    expect(rowGroups(49, 16)).toBe(4);
    expect(rowCodeBytes(3, 5)).toBe(2);
    expect(rowCodeBytes(0, 5)).toBe(0);
  });
});

describe('the largest number of pulses', () => {
  it('is the last that fits', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 128 }), fc.integer({ min: 8, max: 260 }), (D, bits) => {
        const K = largestPulses(D, bits);
        expect(indexBits(pyramidCount(D, K))).toBeLessThanOrEqual(bits);
        if (K < MOST_PULSES) expect(indexBits(pyramidCount(D, K + 1))).toBeGreaterThan(bits);
      }),
      { numRuns: 60 },
    );
  });

  it('gives those of the common words', () => {
    expect(largestPulses(16, 32)).toBe(12);
    expect(largestPulses(16, 31)).toBe(11);
    expect(largestPulses(16, 45)).toBe(23);
    expect(largestPulses(16, 64)).toBe(58);
    expect(largestPulses(128, 508)).toBe(378);
  });

  it('ends for one and two weights', () => {
    expect(largestPulses(1, 1)).toBe(1);
    expect(largestPulses(1, 64)).toBe(1);
    expect(largestPulses(2, 10)).toBe(256);
    expect(largestPulses(2, 64)).toBe(MOST_PULSES);
  });

  it('says what one pulse takes when that is too much', () => {
    expect(() => largestPulses(16, 4)).toThrow('takes 5 bits, more than 4');
    expect(() => largestPulses(1, 0)).toThrow(InputError);
  });

  it('says which number would fit a word', () => {
    expect(() => checkIndexFits(16, 59, 64)).toThrow(
      'K = 59 overflows the index word: an index of P(16, 59) takes 65 bits, more than 64; the largest K of D = 16 is 58',
    );
    checkIndexFits(16, 58, 64);
  });
});
