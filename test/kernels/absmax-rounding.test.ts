import { afterAll, describe, expect, it } from 'vitest';
import { roundToAbsmax } from '../../src/kernels/absmax-rounding.js';
import { halfValue } from '../../src/kernels/dtypes-reference.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

afterAll(useBestKernels);

describe('rounding to nearest', () => {
  const modes = kernelModes();
  const [rows, columns, group] = [9, 301, 64];
  const random = createRandom(2);
  const x = Float32Array.from({ length: rows * columns }, (_, i) =>
    i < columns + 100 && i >= columns ? 0 : random.normal() * 10 ** (Math.floor(i / columns) - 4),
  );
  const results = modes.flatMap((mode) =>
    [1, 3].map((threads) => {
      mode.use();
      return roundToAbsmax(x, rows, columns, group, threads);
    }),
  );

  it('gives the same codes everywhere', () => {
    for (const result of results) expect(result).toEqual(results[0]);
  });

  it('gives the nearest of 15 multiples of the scale', () => {
    const { scales, codes } = results[0];
    const groups = Math.ceil(columns / group);
    for (let r = 0; r < rows; r++) {
      for (let j = 0; j < columns; j++) {
        const scale = halfValue(scales[r * groups + Math.floor(j / group)]);
        const code = ((codes[r * Math.ceil(columns / 2) + (j >> 1)] >> (4 * (j & 1))) & 15) - 8;
        const value = x[r * columns + j];
        expect(Math.abs(code)).toBeLessThanOrEqual(7);
        if (scale === 0) expect(code).toBe(0);
        else if (Math.abs(value / scale) < 7) expect(Math.abs(value / scale - code)).toBeLessThanOrEqual(0.5 + 1e-5);
      }
    }
  });

  it('refuses what does not fit', () => {
    expect(() => roundToAbsmax(x, rows, columns + 1, group)).toThrow(RangeError);
    expect(() => roundToAbsmax(x, rows, columns, 0)).toThrow(RangeError);
  });
});
