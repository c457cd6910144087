import { eachBlock, type FeatureMatrix, loadMatrix } from '../formats/feature-matrix.js';
import { multiply } from '../kernels/gemm.js';
import type { TiledProducts } from '../linalg/tiled-products.js';
import type { SpectralSource } from './feature-source.js';
import { similarityPower } from './internal-diversity.js';
import type { KernelSource } from './kernel-source.js';

/** Up to this many items a mean over all pairs is taken exactly. */
const MOST_PAIRED = 10_000;
/** Rows of a tile of similarities, and of a block that is read at once. */
const TILE_ROWS = 512;

/**
 * A source with cosines themselves where pairs of items are asked for: IntDiv does not inherit the error of landmarks or
 * probes.
 * @param rows of length 1
 */
export function withCosinePairs(
  source: SpectralSource,
  rows: FeatureMatrix,
  products: TiledProducts,
  weights?: Float64Array,
): KernelSource {
  const { columns } = rows;
  return {
    ...source,
    async meanPower(q) {
      if (q === 1) return squaredMean(rows, weights);
      return rows.rows <= MOST_PAIRED ? pairedPower(rows, q, products, weights) : undefined;
    },
    similarity(i, j) {
      const pair = loadMatrix(rows, Int32Array.of(i, j));
      let sum = 0;
      for (let c = 0; c < columns; c++) sum += pair[c] * pair[columns + c];
      return sum;
    },
  };
}

/** `sum_ij p_i p_j x_i . x_j`: the squared length of the mean row. */
async function squaredMean(rows: FeatureMatrix, weights: Float64Array | undefined): Promise<number> {
  const { columns, rows: n } = rows;
  const mean = new Float64Array(columns);
  await eachBlock(rows, TILE_ROWS, 'f64', (block, start, count) => {
    for (let r = 0; r < count; r++) {
      const share = weights ? weights[start + r] : 1 / n;
      for (let c = 0; c < columns; c++) mean[c] += share * block[r * columns + c];
    }
  });
  return mean.reduce((sum, value) => sum + value * value, 0);
}

/** `sum_ij p_i p_j (x_i . x_j)^q` over all pairs, tile by tile. */
async function pairedPower(
  rows: FeatureMatrix,
  q: number,
  { threads }: TiledProducts,
  weights: Float64Array | undefined,
): Promise<number> {
  const { columns: m, rows: n } = rows;
  const share = (row: number): number => (weights ? weights[row] : 1 / n);
  const tile = new Float64Array(Math.min(n, TILE_ROWS) ** 2);
  let total = 0;
  const load = (start: number): { block: Float64Array; count: number } => {
    const count = Math.min(TILE_ROWS, n - start);
    const block = new Float64Array(count * m);
    rows.readRows(start, count, block);
    return { block, count };
  };
  for (let i = 0; i < n; i += TILE_ROWS) {
    const left = load(i);
    for (let j = 0; j <= i; j += TILE_ROWS) {
      const right = j === i ? left : load(j);
      const sizes = { m: left.count, n: right.count, k: m };
      multiply(left.block, right.block, tile, sizes, { transposeB: true, threads });
      let sum = 0;
      for (let a = 0; a < left.count; a++) {
        let row = 0;
        for (let b = 0; b < right.count; b++) {
          // Rounding must not make the power of the diagonal depend on the path.
          const similarity = i + a === j + b ? 1 : tile[a * right.count + b];
          row += share(j + b) * similarityPower(similarity, q, i + a, j + b);
        }
        sum += share(i + a) * row;
      }
      total += i === j ? sum : 2 * sum;
    }
  }
  return total;
}
