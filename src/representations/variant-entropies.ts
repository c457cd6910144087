import { InputError } from '../errors.js';
import type { FeatureMatrix } from '../formats/feature-matrix.js';
import { directSquaredDistances } from '../linalg/point-distances.js';
import type { TiledProducts } from '../linalg/tiled-products.js';
import { gaussianAdjacencyEntropyBits, neighbourAdjacencyEntropyBits } from './adjacency-entropy.js';
import { binnedEntropy } from './binned-entropy.js';
import { diffusionOperator, gaussianKernelOfPoints, matrixEntryEntropyBits } from './diffusion-kernel.js';
import { exactBytes } from './entropy-estimate.js';
import { doubles, type PointCloud } from './points.js';
import type { RepresentationSettings, Variant } from './settings.js';

/** Entropies in bits of the variants that were asked for. */
export type VariantBits = { readonly [K in Variant]?: number };

/** Largest neighbour graph: eigenvalues of matrices that are not symmetric take 10 n^3 operations in one thread. */
export const MOST_NEIGHBOUR_ROWS = 3000;

/**
 * The other entropies of the same points.
 * @throws InputError for more rows than a variant can take, more neighbours than rows, a constant column
 */
export async function variantEntropies(
  matrix: Pick<FeatureMatrix, 'name' | 'columnNames'>,
  cloud: PointCloud,
  sigma: number,
  settings: RepresentationSettings,
  products: TiledProducts,
): Promise<VariantBits> {
  const { n, d } = cloud;
  const { threads } = settings;
  const found: { [K in Variant]?: number } = {};
  const kernelFor = async (variant: Variant): Promise<Float64Array> => {
    if (exactBytes(n, d) > settings.maxMemoryBytes) {
      throw new InputError(
        `${matrix.name}: --variants ${variant} holds a matrix of ${n} x ${n}, more than --max-memory; lower --max-n`,
      );
    }
    return gaussianKernelOfPoints(cloud, sigma, products);
  };
  for (const variant of settings.variants) {
    if (variant === 'matrix-entry') {
      const kernel = await kernelFor(variant);
      diffusionOperator(kernel, n, 'K');
      found[variant] = matrixEntryEntropyBits(kernel, n);
    } else if (variant === 'adjacency' || variant === 'anisotropic') {
      const kernel = await kernelFor(variant);
      found[variant] = gaussianAdjacencyEntropyBits(kernel, n, variant === 'anisotropic', threads);
    } else if (variant === 'knn') found[variant] = neighbourEntropy(matrix.name, cloud, settings.neighbours);
    else found[variant] = shannonEntropy(matrix, cloud, settings);
  }
  return found;
}

function neighbourEntropy(name: string, cloud: PointCloud, k: number): number {
  const { n, d } = cloud;
  if (n > MOST_NEIGHBOUR_ROWS) {
    throw new InputError(`${name}: --variants knn takes at most ${MOST_NEIGHBOUR_ROWS} rows, got ${n}; lower --max-n`);
  }
  if (k > n) throw new InputError(`${name}: --knn ${k} counts the row itself, and there are only ${n} rows`);
  return neighbourAdjacencyEntropyBits(directSquaredDistances(doubles(cloud), n, d), n, k);
}

function shannonEntropy(
  { name, columnNames }: Pick<FeatureMatrix, 'name' | 'columnNames'>,
  cloud: PointCloud,
  { bins, constantColumns }: RepresentationSettings,
): number {
  const columnName = (column: number): string =>
    `${name}: ${columnNames ? `column "${columnNames[column]}"` : `column ${column}`}`;
  return binnedEntropy(doubles(cloud), cloud.n, cloud.d, bins, constantColumns, columnName).bits;
}
