import { InputError } from '../errors.js';
import type { TiledProducts } from '../linalg/tiled-products.js';
import { diffusionSpectrum } from './diffusion-entropy.js';
import { gaussianKernelOfPoints } from './diffusion-kernel.js';
import type { PointCloud } from './points.js';
import type { EntropyMethod, RepresentationSettings } from './settings.js';
import { spectralEntropy } from './spectral-entropy.js';

/** Diffusion entropies of a point cloud at one bandwidth, and how they were found. */
export interface EntropyEstimate {
  readonly method: EntropyMethod;
  /** For every diffusion time. */
  readonly bits: Float64Array;
  /** Standard errors of `bits`, where the method is random; null for exact spectra. */
  readonly standardErrorBits: Float64Array | null;
  /** The same entropies from half of the features or landmarks, which shows their bias; null for other methods. */
  readonly halfRankBits: Float64Array | null;
  /** Descending; all n of them for `exact`, the leading ones for low-rank methods, null for `slq`. */
  readonly eigenvalues: Float64Array | null;
  /** Mean of `G_ij / G_ii` over i != j. */
  readonly meanSimilarity: number;
}

/** What the methods need beside the points. */
export interface EstimateContext {
  readonly products: TiledProducts;
  readonly settings: Pick<
    RepresentationSettings,
    'times' | 'operator' | 'probes' | 'features' | 'landmarks' | 'seed' | 'threads' | 'maxMemoryBytes'
  >;
}

const TILE_BYTES = 8 * 1024 * 1024;

/** What an exact spectrum of n points in d dimensions holds at its peak: the matrix, a tile and three copies of the points. */
export function exactBytes(n: number, d: number): number {
  return 8 * n * n + TILE_BYTES + 3 * 8 * n * d;
}

/** The points and their centred copy. */
function pointBytes(n: number, d: number): number {
  return 2 * 8 * n * d;
}

/** Most points whose spectrum `auto` computes exactly: the work grows with the cube. */
export const MOST_EXACT = 10_000;

/**
 * The method for n points.
 * @throws InputError when the points do not fit into memory, or exact spectra are wanted and the matrix does not
 */
export function chooseMethod(
  wanted: EntropyMethod | 'auto',
  n: number,
  d: number,
  maxMemoryBytes: number,
  name: string,
): EntropyMethod {
  const fits = exactBytes(n, d) <= maxMemoryBytes;
  const mebibytes = (bytes: number): number => Math.ceil(bytes / 2 ** 20);
  if (pointBytes(n, d) > maxMemoryBytes) {
    throw new InputError(
      `${name}: ${n} rows of ${d} columns and a copy take ${mebibytes(pointBytes(n, d))} MiB, --max-memory is ` +
        `${mebibytes(maxMemoryBytes)} MiB; use fewer rows with --max-n`,
    );
  }
  if (wanted === 'auto') return fits && n <= MOST_EXACT ? 'exact' : 'slq';
  if (wanted === 'exact' && !fits) {
    throw new InputError(
      `${name}: an exact spectrum of ${n} rows holds ${mebibytes(exactBytes(n, d))} MiB, --max-memory is ` +
        `${mebibytes(maxMemoryBytes)} MiB; take --method slq, or fewer rows with --max-n`,
    );
  }
  return wanted;
}

/** All eigenvalues. O(n^2 d + n^3), an n x n matrix. */
export async function exactEntropy(
  cloud: PointCloud,
  sigma: number,
  { products, settings }: EstimateContext,
): Promise<EntropyEstimate> {
  const { n } = cloud;
  const kernel = await gaussianKernelOfPoints(cloud, sigma, products);
  const { eigenvalues, meanSimilarity } = diffusionSpectrum(kernel, n, settings.operator, settings.threads);
  return {
    method: 'exact',
    bits: Float64Array.from(settings.times, (t) => spectralEntropy(eigenvalues, t).bits),
    standardErrorBits: null,
    halfRankBits: null,
    eigenvalues,
    meanSimilarity,
  };
}

/** One point has one eigenvalue and no entropy; none has neither. */
export function pointEntropy(n: number, times: number, method: EntropyMethod): EntropyEstimate {
  return {
    method,
    bits: new Float64Array(times),
    standardErrorBits: null,
    halfRankBits: null,
    eigenvalues: new Float64Array(n).fill(1),
    meanSimilarity: Number.NaN,
  };
}
