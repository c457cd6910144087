import { describe, expect, it } from 'vitest';
import { pyramidLog2 } from '../../src/kernels/pyramid.js';
import {
  bestSuperGroup,
  codeChoices,
  DEFAULT_LIMITS,
  expectedError,
  payloadBits,
  payloadBytes,
} from '../../src/quantization/code-choices.js';

describe('expected errors of codes', () => {
  it('are those measured on Gaussian rows', () => {
    // Specification of quantisation, section 9: rows of 3072.
    const measured: [number, number, number, number][] = [
      [8, 6, 1, 9.71],
      [8, 24, 4, 21.46],
      [16, 11, 1, 9.78],
      [16, 23, 3, 15.66],
      [16, 48, 4, 21.82],
      [32, 48, 2, 16.03],
      [32, 96, 4, 22.08],
    ];
    for (const [groupLength, pulses, gainBits, decibels] of measured) {
      const error = expectedError({ groupLength, pulses, gainBits, superGroup: 1 }, 3072, 'lloyd');
      expect(Math.abs(-10 * Math.log10(error) - decibels)).toBeLessThan(0.08);
    }
  });

  it('fall with K, also between points of the grid', () => {
    let last = 1;
    for (let pulses = 1; pulses < 200; pulses += 3) {
      const error = expectedError({ groupLength: 16, pulses, gainBits: 6, superGroup: 1 }, 4096, 'lloyd');
      expect(error).toBeLessThan(last);
      last = error;
    }
  });
});

describe('codeChoices', () => {
  it('holds no code that another one beats, with exact bytes', () => {
    const choices = codeChoices(64, 256, 'lloyd');
    for (let i = 1; i < choices.length; i++) {
      expect(choices[i].bytes).toBeGreaterThan(choices[i - 1].bytes);
      expect(choices[i].relativeError).toBeLessThan(choices[i - 1].relativeError);
    }
    for (const { code, bytes } of choices.slice(0, 50)) expect(bytes).toBe(payloadBytes(64, 256, code));
    const { code } = choices[Math.floor(choices.length / 2)];
    const own = 64 * ((256 * payloadBits(256, code)) / 8 + 2) + 4 * 2 ** code.gainBits;
    expect(payloadBytes(64, 256, code)).toBe(own);
  });

  it('joins groups into words where that saves bytes, within the bits that a word may have', () => {
    // log2 N(16, 23) = 44.05...: alone 45 bits, two in 89, and four would need 177.
    expect(pyramidLog2(16, 23)).toBeLessThan(44.5);
    expect(bestSuperGroup(16, 23, 64, DEFAULT_LIMITS)).toBe(2);
    expect(bestSuperGroup(16, 23, 64, { superGroups: [1, 2, 4], maxWordBits: 64 })).toBe(1);
    expect(bestSuperGroup(16, 23, 1, DEFAULT_LIMITS)).toBe(1);
  });

  it('gives no gain bits to rows of one group, whose length is the row scale', () => {
    expect(
      codeChoices(8, 16, 'lloyd', { ...DEFAULT_LIMITS, groupLengths: [16] }).every(({ code }) => code.gainBits === 0),
    ).toBe(true);
  });
});
