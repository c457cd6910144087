import { eachBlock, type FeatureMatrix, type Floats } from '../formats/feature-matrix.js';
import { symmetricRankK } from '../kernels/gemm.js';
import { scaleRows } from '../kernels/kernel-tiles.js';
import { FEATURE_BLOCK, type FeatureMap } from './feature-map.js';

/** Side of the squares in which a block is turned: a square of both sides stays in the first cache. */
const SQUARE = 16;

/** `[rows, columns]` to `[columns, rows]`. */
function transpose(source: Floats, rows: number, columns: number, target: Floats): void {
  for (let top = 0; top < rows; top += SQUARE) {
    const bottom = Math.min(rows, top + SQUARE);
    for (let left = 0; left < columns; left += SQUARE) {
      const right = Math.min(columns, left + SQUARE);
      for (let j = left; j < right; j++)
        for (let i = top; i < bottom; i++) target[j * rows + i] = source[i * columns + j];
    }
  }
}

/**
 * Rows as features of themselves: their inner products are a linear kernel, or the cosine where they have length 1.
 * @param precision arithmetic; f64 when absent
 */
export function rowMap(matrix: FeatureMatrix, precision: 'f32' | 'f64' = 'f64'): FeatureMap {
  const { rows: n, columns } = matrix;
  return {
    n,
    features: columns,
    name: `${columns} columns`,
    remedy: 'take another method',
    async eachBlock(visit) {
      const size = columns * Math.min(n, FEATURE_BLOCK);
      const turned = precision === 'f32' ? new Float32Array(size) : new Float64Array(size);
      await eachBlock(matrix, FEATURE_BLOCK, precision, async (block: Floats, start, count) => {
        transpose(block, count, columns, turned);
        await visit(turned.subarray(0, columns * count), start, count);
      });
    },
    // As rows they need not be turned.
    async addMoment(sum, { threads, roots, onProgress }) {
      await eachBlock(matrix, FEATURE_BLOCK, precision, (block: Floats, start, count) => {
        if (roots)
          scaleRows({ data: block, rows: count, columns }, roots.subarray(start, start + count), block, { threads });
        symmetricRankK(block, sum, { n: columns, k: count }, { transpose: true, beta: 1, threads });
        onProgress?.((start + count) / n);
      });
    },
    over: (points) => rowMap(points, precision),
  };
}
