import { symmetricRankK } from '../kernels/gemm.js';
import { symmetricSpectrum } from '../kernels/symmetric-spectrum.js';
import { type RankMeasures, rankMeasures, singularValuesOfGram } from '../linalg/rank-measures.js';
import { centredPoints, type PointCloud } from './points.js';

/** How many directions a feature matrix uses, and how evenly. */
export interface ShapeMeasures extends RankMeasures {
  /** Singular values of the features as they are, descending, `[min(n, d)]`. */
  readonly singularValues: Float64Array;
  /** Largest over smallest singular value; infinite where the smallest is below the resolution, `1e-8` of the largest. */
  readonly conditionNumber: number;
  /** `S = -sum l log l` of the eigenvalues l of the centred covariance over its trace, nats; 0 without variance. */
  readonly vonNeumannNats: number;
  /** `e^S`. */
  readonly effectiveDimension: number;
  /** Shares l, descending; all 0 without variance. */
  readonly covarianceShares: Float64Array;
}

/** Squares of singular values are known to the rounding of the largest one, so values below this share are rounding. */
const RESOLUTION = 1e-8;

/** Eigenvalues of the smaller of `X^T X` and `X X^T`, ascending. */
function gramSpectrum(x: Float64Array | Float32Array, n: number, d: number, threads: number): Float64Array {
  const order = Math.min(n, d);
  const gram = new Float64Array(order * order);
  if (d <= n) symmetricRankK(x, gram, { n: d, k: n }, { transpose: true, threads });
  else symmetricRankK(x, gram, { n, k: d }, { threads });
  return symmetricSpectrum(gram, order, { threads });
}

/**
 * Rank measures of the features as they are, and the von Neumann entropy of their centred covariance, through the smaller
 * of both Gram matrices.
 */
export function shapeMeasures({ data, n, d }: PointCloud, threads: number): ShapeMeasures {
  const order = Math.min(n, d);
  const singularValues = singularValuesOfGram(gramSpectrum(data, n, d, threads), order);
  const largest = singularValues[0];
  const smallest = singularValues[order - 1];
  const centred = centredPoints(data, n, d);
  const covarianceShares = sharesOf(gramSpectrum(centred, n, d, threads), largest * largest);
  const vonNeumannNats = entropyOfShares(covarianceShares);
  return {
    ...rankMeasures(singularValues),
    singularValues,
    conditionNumber: smallest > RESOLUTION * largest ? largest / smallest : Number.POSITIVE_INFINITY,
    vonNeumannNats,
    effectiveDimension: Math.exp(vonNeumannNats),
    covarianceShares,
  };
}

/** Eigenvalues over their sum, descending. What is rounding beside the uncentred matrix is no variance. */
function sharesOf(eigenvalues: Float64Array, scale: number): Float64Array {
  const positive = eigenvalues.map((value) => Math.max(0, value)).reverse();
  const total = positive.reduce((sum, value) => sum + value, 0);
  if (!(total > 1e-24 * scale)) return positive.fill(0);
  return positive.map((value) => value / total);
}

function entropyOfShares(shares: Float64Array): number {
  let entropy = 0;
  for (const share of shares) if (share > 0) entropy -= share * Math.log(share);
  return Math.max(0, entropy);
}
