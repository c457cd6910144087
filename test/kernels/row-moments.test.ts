import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { configureKernels } from '../../src/kernels/native.js';
import { rowMoments } from '../../src/kernels/row-moments.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

describe.each(kernelModes())('moments of rows, $name', (mode) => {
  beforeAll(mode.use);
  afterAll(useBestKernels);

  it('are sums of powers of what is finite', () => {
    const rows = Float64Array.of(1, -2, 3, Number.NaN, 0, -0, Number.POSITIVE_INFINITY, 0.5, -4, 2);
    const { moments, energies } = rowMoments(rows, 2, 5, 2);
    expect([...moments]).toEqual([4, 3, 2, 14, 20, 98, 4, 4, -1.5, 20.25, -55.875, 272.0625]);
    expect([...energies]).toEqual([5, 9, 0, 0, 16.25, 4]);
  });

  it('are the same bits as those of the reference', () => {
    const random = createRandom(3);
    for (const [rows, columns, group] of [
      [0, 8, 4],
      [3, 17, 4],
      [5, 64, 16],
      [2, 100, 16],
      [4, 7, 8],
      [2, 1, 1],
      [300, 1000, 24],
    ]) {
      for (const x of [new Float32Array(rows * columns), new Float64Array(rows * columns)]) {
        for (let i = 0; i < x.length; i++) x[i] = random.normal();
        if (x.length > 20) x[20] = Number.NaN;
        configureKernels({ native: false });
        const reference = rowMoments(x, rows, columns, group);
        mode.use();
        expect(rowMoments(x, rows, columns, group, 2)).toEqual(reference);
      }
    }
  });

  it('refuse what holds no rows', () => {
    expect(() => rowMoments(new Float32Array(5), 2, 3, 1)).toThrow('5 entries are no 2 rows of 3');
    expect(() => rowMoments(new Float32Array(6), 2, 3, 0)).toThrow('no group has 0 columns');
  });
});
