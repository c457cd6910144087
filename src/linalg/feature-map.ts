import { InputError } from '../errors.js';
import type { FeatureMatrix, Floats } from '../formats/feature-matrix.js';
import { symmetricRankK } from '../kernels/gemm.js';
import { addColumnSums, addRowSums } from '../kernels/kernel-tiles.js';
import { leadingEigenvectors } from './leading-eigenvectors.js';
import type { TiledProducts } from './tiled-products.js';

/** Rows of a block of features: fixed, so that bits do not depend on a memory limit. */
export const FEATURE_BLOCK = 1024;
/**
 * Every point is as similar to itself as can be, so that its degree is at least 1. Estimates below this are noise of the
 * features, and dividing by them would make it the result.
 */
const LEAST_DEGREE = 0.5;

/** Features φ(x) `[features]` of n points, whose inner products approximate a kernel. They are made as they are needed. */
export interface FeatureMap {
  readonly n: number;
  readonly features: number;
  /** What the features are, for messages: `512 random frequencies at sigma 3`. */
  readonly name: string;
  /** What to change when the features are too coarse. */
  readonly remedy: string;
  /** Visits blocks of at most FEATURE_BLOCK points in order: `[features, count]`, memory that is used anew. */
  eachBlock(visit: (block: Floats, start: number, count: number) => Promise<void> | void): Promise<void>;
  /** The same features of other points. */
  over(points: FeatureMatrix): FeatureMap;
  /**
   * Adds `Σ_i w_i φ_i φ_iᵀ` to the lower triangle of `sum`, where the features lie in a form for which that is quicker than
   * by `eachBlock`. `roots` are the square roots of the weights.
   */
  readonly addMoment?: (
    sum: Float64Array,
    options: { readonly threads: number; readonly roots?: Float64Array; readonly onProgress?: (share: number) => void },
  ) => Promise<void>;
}

export interface CovarianceOptions {
  readonly products: TiledProducts;
  /** Weights `[n]` of the points; 1/n each when absent. Not together with `normalisations`. */
  readonly weights?: Float64Array;
  /** Called with the share of the work that is done. */
  readonly onProgress?: (share: number) => void;
}

/** Adds `Σ φ φᵀ` over a block `[m, count]` to the lower triangle of `sum`; f32 blocks in f32 over 256 points, beyond in f64. */
function addBlock(block: Floats, m: number, count: number, sum: Float64Array, threads: number): void {
  symmetricRankK(block, sum, { n: m, k: count }, { beta: 1, threads });
}

/** A matrix of order m given by its lower triangle, times `factor`: both triangles, in place. */
function mirrored(sum: Float64Array, m: number, factor: number): Float64Array {
  for (let i = 0; i < m; i++) {
    for (let j = 0; j <= i; j++) {
      const value = sum[i * m + j] * factor;
      sum[i * m + j] = value;
      sum[j * m + i] = value;
    }
  }
  return sum;
}

/** `block[f, i] *= factors[i]` */
function scalePoints(block: Floats, features: number, count: number, factors: Float64Array): void {
  for (let f = 0; f < features; f++) for (let i = 0; i < count; i++) block[f * count + i] *= factors[i];
}

/**
 * Adds `Σ_i w_i φ_i φ_iᵀ` to the lower triangle of `sum` `[features, features]`: covariances of parts of a sample, one
 * after another.
 */
export async function addFeatureMoment(
  map: FeatureMap,
  sum: Float64Array,
  options: { readonly products: TiledProducts; readonly weights?: Float64Array; onProgress?: (share: number) => void },
): Promise<void> {
  const { n, features } = map;
  const { products, weights, onProgress } = options;
  if (weights !== undefined && weights.length !== n) throw new RangeError(`${weights.length} weights for ${n} points`);
  const roots = weights?.map(Math.sqrt);
  if (map.addMoment) {
    await map.addMoment(sum, { threads: products.threads, ...(roots && { roots }), ...(onProgress && { onProgress }) });
    return;
  }
  await map.eachBlock((block, start, count) => {
    if (roots) scalePoints(block, features, count, roots.subarray(start, start + count));
    addBlock(block, features, count, sum, products.threads);
    onProgress?.((start + count) / n);
  });
}

/**
 * `Σ_i p_i φ_i φ_iᵀ` `[features, features]`, streamed: its eigenvalues are the non-zero ones of `√p_i φ_i·φ_j √p_j`.
 * Memory: the covariance, a block of features. O(n features²).
 */
export async function featureCovariance(map: FeatureMap, options: CovarianceOptions): Promise<Float64Array> {
  const { n, features } = map;
  const sum = new Float64Array(features * features);
  await addFeatureMoment(map, sum, options);
  return mirrored(sum, features, options.weights ? 1 : 1 / n);
}

export interface DiffusionCovariance {
  /** `[features, features]` */
  readonly covariance: Float64Array;
  /** Degrees of the approximate kernel, `[n]`. */
  readonly degrees: Float64Array;
}

/**
 * The covariance whose non-zero eigenvalues are those of the anisotropic kernel `K = G_ij / √(deg_i deg_j)` for
 * `G ≈ Φ Φᵀ`: `Φᵀ diag(1/deg) Φ` with `deg = Φ (Φᵀ 1)`. With `normalisations` 2, those of
 * `diag(K1)^{-1/2} K diag(K1)^{-1/2}`, which has the spectrum of the diffusion operator P. One pass more than
 * normalisations; nothing of size n x n.
 * @throws InputError when a degree comes out below 0.5, though none can be below 1: the features are too coarse
 */
export async function diffusionCovariance(
  map: FeatureMap,
  normalisations: 1 | 2,
  options: Omit<CovarianceOptions, 'weights'>,
): Promise<DiffusionCovariance> {
  const { n, features } = map;
  const { products, onProgress } = options;
  const { threads } = products;
  const scales = new Float64Array(n).fill(1);
  const degrees = new Float64Array(n);
  // At the second level (K1)_i deg_i, which is at least 1 as well.
  const checked = new Float64Array(n);
  let totals: Float64Array | undefined;
  let level = 0;
  /** Divides the block's scales by the square roots of the degrees under the totals of the last pass. */
  const normalise = (block: Floats, start: number, count: number): Float64Array => {
    const own = scales.subarray(start, start + count);
    if (totals === undefined) return own;
    const sums = new Float64Array(count);
    addColumnSums({ data: block, rows: features, columns: count }, sums, { weights: totals, threads });
    for (let i = 0; i < count; i++) {
      const degree = sums[i] * own[i];
      if (level === 1) degrees[start + i] = degree;
      checked[start + i] = level === 1 ? degree : degree * degrees[start + i];
      // What is below any use is counted and refused after the pass.
      own[i] = degree > 0 ? own[i] / Math.sqrt(degree) : 0;
    }
    return own;
  };
  for (; level < normalisations; level++) {
    const next = new Float64Array(features);
    await map.eachBlock((block, start, count) => {
      const weights = normalise(block, start, count);
      addRowSums({ data: block, rows: features, columns: count }, next, { weights, threads });
      onProgress?.((level + (start + count) / n) / (normalisations + 1));
    });
    if (level > 0) refuseDegrees(map, checked);
    totals = next;
  }
  const sum = new Float64Array(features * features);
  await map.eachBlock((block, start, count) => {
    scalePoints(block, features, count, normalise(block, start, count));
    addBlock(block, features, count, sum, threads);
    onProgress?.((normalisations + (start + count) / n) / (normalisations + 1));
  });
  refuseDegrees(map, checked);
  return { covariance: mirrored(sum, features, 1), degrees };
}

function refuseDegrees({ name, remedy }: FeatureMap, degrees: Float64Array): void {
  let count = 0;
  let worst = 0;
  for (let i = 0; i < degrees.length; i++) {
    if (degrees[i] < LEAST_DEGREE) count++;
    if (degrees[i] < degrees[worst]) worst = i;
  }
  if (count === 0) return;
  throw new InputError(
    `${name} are too coarse for this diffusion operator: ${count} of ${degrees.length} rows get a degree below ${LEAST_DEGREE} ` +
      `(row ${worst}: ${degrees[worst].toPrecision(4)}) where none can be below 1; ${remedy}`,
  );
}

/** Leading eigenvectors of a covariance as scores of the points. */
export interface Modes {
  /** Descending. */
  readonly eigenvalues: Float64Array;
  /** `[modes, n]`: projections of the points, each mode with the sign that makes their sum positive. */
  readonly scores: Float64Array;
}

/**
 * Modes of a sample (Ospanov et al. 2024): the points are projected on the leading eigenvectors of the covariance; those
 * of largest projection stand for a mode. One pass over the features.
 */
export async function leadingModes(
  map: FeatureMap,
  covariance: Float64Array,
  wanted: { readonly modes: number; readonly seed?: number },
  { threads }: TiledProducts,
): Promise<Modes> {
  const { n, features } = map;
  const { values, vectors } = leadingEigenvectors(covariance, features, wanted.modes, {
    threads,
    ...(wanted.seed !== undefined && { seed: wanted.seed }),
  });
  const scores = new Float64Array(values.length * n);
  await map.eachBlock((block, start, count) => {
    for (let mode = 0; mode < values.length; mode++) {
      const weights = vectors.subarray(mode * features, (mode + 1) * features);
      const own = scores.subarray(mode * n + start, mode * n + start + count);
      addColumnSums({ data: block, rows: features, columns: count }, own, { weights, threads });
    }
  });
  for (let mode = 0; mode < values.length; mode++) orient(scores.subarray(mode * n, (mode + 1) * n));
  return { eigenvalues: values, scores };
}

/** Turns a vector so that its sum is positive. */
export function orient(scores: Float64Array): void {
  let sum = 0;
  for (const score of scores) sum += score;
  if (sum < 0) for (let i = 0; i < scores.length; i++) scores[i] = -scores[i];
}

/** Indices of the `count` largest values, descending; the first of equal values wins. */
export function largestOf(values: Float64Array, count: number): Int32Array {
  const found: number[] = [];
  for (let i = 0; i < values.length; i++) {
    if (found.length === count && !(values[i] > values[found[count - 1]])) continue;
    let at = found.length === count ? count - 1 : found.length;
    while (at > 0 && values[found[at - 1]] < values[i]) {
      found[at] = found[at - 1];
      at--;
    }
    found[at] = i;
  }
  return Int32Array.from(found);
}
