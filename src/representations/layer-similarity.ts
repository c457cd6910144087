import { multiply, symmetricRankK } from '../kernels/gemm.js';
import { ckaOfHsic } from '../linalg/cka.js';
import { centredPoints, type PointCloud } from './points.js';

/** Sum of squares of a symmetric matrix given by its lower triangle. */
function squaredNormOfLower(matrix: Float64Array, n: number): number {
  let total = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) total += 2 * matrix[i * n + j] ** 2;
    total += matrix[i * n + i] ** 2;
  }
  return total;
}

/** `|X^T X|_F^2` by the smaller Gram matrix. */
function ownHsic(x: Float64Array, n: number, d: number, threads: number): number {
  const order = Math.min(n, d);
  const gram = new Float64Array(order * order);
  if (d <= n) symmetricRankK(x, gram, { n: d, k: n }, { transpose: true, threads });
  else symmetricRankK(x, gram, { n, k: d }, { threads });
  return squaredNormOfLower(gram, order);
}

/** `|X^T Y|_F^2` of features over the same n rows. */
function crossHsic(x: Float64Array, dx: number, y: Float64Array, dy: number, n: number, threads: number): number {
  const product = multiply(x, y, new Float64Array(dx * dy), { m: dx, n: dy, k: n }, { transposeA: true, threads });
  let total = 0;
  for (const value of product) total += value * value;
  return total;
}

/**
 * Pairwise linear centred kernel alignment `[m, m]` of sets of features over the same rows (Kornblith et al. 2019):
 * `|X^T Y|_F^2 / (|X^T X|_F |Y^T Y|_F)` of centred columns. NaN where a set has no variance.
 * @param open gives a set when it is its turn: two are held at a time
 */
export async function pairwiseCka(
  m: number,
  open: (index: number) => Promise<PointCloud>,
  threads: number,
  onPair: () => void = () => undefined,
): Promise<Float64Array> {
  const similarities = new Float64Array(m * m);
  const own = new Float64Array(m);
  for (let i = 0; i < m; i++) {
    const cloud = await open(i);
    const x = centredPoints(cloud.data, cloud.n, cloud.d);
    own[i] = ownHsic(x, cloud.n, cloud.d, threads);
    similarities[i * m + i] = own[i] > 0 ? 1 : Number.NaN;
    for (let j = 0; j < i; j++) {
      const other = await open(j);
      const y = centredPoints(other.data, other.n, other.d);
      const value = ckaOfHsic(crossHsic(x, cloud.d, y, other.d, cloud.n, threads), own[i], own[j]);
      similarities[i * m + j] = value;
      similarities[j * m + i] = value;
      onPair();
    }
  }
  return similarities;
}
