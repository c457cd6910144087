import { describe, expect, it } from 'vitest';
import { createRowBlocks } from '../../src/linalg/row-blocks.js';

describe('createRowBlocks', () => {
  it('passes on blocks of one size and then the rest, rows of all matrices together', () => {
    const seen: number[][][] = [];
    const blocks = createRowBlocks([2, 1], 3, (matrices, rows) => {
      expect(matrices.map((matrix) => matrix.length)).toEqual([2 * rows, rows]);
      seen.push(matrices.map((matrix) => Array.from(matrix)));
    });
    for (const row of [0, 1]) blocks.add([Float64Array.of(row, -row), Float32Array.of(10 * row)], 1);
    blocks.add([Float64Array.of(2, -2, 3, -3, 9, 9), Float32Array.of(20, 30, 90)], 2);
    blocks.finish();
    blocks.finish();
    expect(seen).toEqual([
      [
        [0, -0, 1, -1, 2, -2],
        [0, 10, 20],
      ],
      [[3, -3], [30]],
    ]);
  });
});
