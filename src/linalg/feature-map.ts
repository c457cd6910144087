import { InputError } from '../errors.js';
import type { Floats } from '../formats/feature-matrix.js';
import { addColumnSums, addRowSums, addTile } from '../kernels/kernel-tiles.js';
import { leadingEigenvectors } from './leading-eigenvectors.js';
import type { TiledProducts } from './tiled-products.js';

/** Rows of a block of features: fixed, so that bits do not depend on a memory limit. */
export const FEATURE_BLOCK = 1024;
/** Features of a panel of a covariance. */
const PANEL = 512;
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
}

export interface CovarianceOptions {
  readonly products: TiledProducts;
  /** Weights `[n]` of the points; 1/n each when absent. Not together with `normalisations`. */
  readonly weights?: Float64Array;
  /** Called with the share of the work that is done. */
  readonly onProgress?: (share: number) => void;
}

/** Adds up `Σ φ φᵀ` over blocks `[m, count]`: lower panels only, in f64 between blocks. */
function createPanelSums(m: number, products: TiledProducts) {
  const sum = new Float64Array(m * m);
  let tile: Floats | undefined;
  return {
    async add(block: Floats, count: number): Promise<void> {
      const side = Math.min(PANEL, m);
      tile ??= block instanceof Float32Array ? new Float32Array(side * side) : new Float64Array(side * side);
      for (let row = 0; row < m; row += PANEL) {
        const rows = Math.min(PANEL, m - row);
        const left = block.subarray(row * count, (row + rows) * count);
        for (let column = 0; column <= row; column += PANEL) {
          const columns = Math.min(PANEL, m - column);
          const right = block.subarray(column * count, (column + columns) * count);
          await products.product(left, rows, right, columns, count, tile);
          addTile({ data: tile, rows, columns }, sum, row * m + column, m, { threads: products.threads });
        }
      }
    },
    /** The sums times `factor`, both triangles. */
    finish(factor: number): Float64Array {
      for (let i = 0; i < m; i++) {
        for (let j = 0; j <= i; j++) {
          const value = sum[i * m + j] * factor;
          sum[i * m + j] = value;
          sum[j * m + i] = value;
        }
      }
      return sum;
    },
  };
}

/** `block[f, i] *= factors[i]` */
function scalePoints(block: Floats, features: number, count: number, factors: Float64Array): void {
  for (let f = 0; f < features; f++) for (let i = 0; i < count; i++) block[f * count + i] *= factors[i];
}

/**
 * `Σ_i p_i φ_i φ_iᵀ` `[features, features]`, streamed: its eigenvalues are the non-zero ones of `√p_i φ_i·φ_j √p_j`.
 * Memory: the covariance, a block of features. O(n features²).
 */
export async function featureCovariance(map: FeatureMap, options: CovarianceOptions): Promise<Float64Array> {
  const { n, features } = map;
  const { products, weights, onProgress } = options;
  if (weights !== undefined && weights.length !== n) throw new RangeError(`${weights.length} weights for ${n} points`);
  const sums = createPanelSums(features, products);
  const roots = weights?.map(Math.sqrt);
  await map.eachBlock(async (block, start, count) => {
    if (roots) scalePoints(block, features, count, roots.subarray(start, start + count));
    await sums.add(block, count);
    onProgress?.((start + count) / n);
  });
  return sums.finish(weights ? 1 : 1 / n);
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
  const sums = createPanelSums(features, products);
  await map.eachBlock(async (block, start, count) => {
    scalePoints(block, features, count, normalise(block, start, count));
    await sums.add(block, count);
    onProgress?.((normalisations + (start + count) / n) / (normalisations + 1));
  });
  refuseDegrees(map, checked);
  return { covariance: sums.finish(1), degrees };
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

/** One mode: a leading eigenvector of the covariance and the points that it weighs most. */
export interface Mode {
  /** Its share of the trace. */
  readonly share: number;
  /** The points of largest projection, descending. */
  readonly rows: Int32Array;
  readonly projections: Float64Array;
}

/** The `top` largest values seen, descending, with their rows; the first of equal values wins. */
function createTop(top: number) {
  const rows: number[] = [];
  const values: number[] = [];
  return {
    rows,
    values,
    offer(row: number, value: number): void {
      if (rows.length === top && !(value > values[top - 1])) return;
      let at = rows.length === top ? top - 1 : rows.length;
      while (at > 0 && values[at - 1] < value) {
        values[at] = values[at - 1];
        rows[at] = rows[at - 1];
        at--;
      }
      values[at] = value;
      rows[at] = row;
    },
  };
}

/**
 * Modes of a sample (Ospanov et al. 2024): the points are projected on the leading eigenvectors of the covariance, each
 * with the sign that makes the sum of its projections positive, and the points of largest projection stand for the mode.
 * One pass over the features.
 */
export async function leadingModes(
  map: FeatureMap,
  covariance: Float64Array,
  wanted: { readonly modes: number; readonly top: number; readonly seed?: number },
  { threads }: TiledProducts,
): Promise<Mode[]> {
  const { features } = map;
  const { values, vectors } = leadingEigenvectors(covariance, features, wanted.modes, {
    threads,
    ...(wanted.seed !== undefined && { seed: wanted.seed }),
  });
  let trace = 0;
  for (let i = 0; i < features; i++) trace += covariance[i * (features + 1)];
  const found = Array.from(values, () => ({ sum: 0, largest: createTop(wanted.top), least: createTop(wanted.top) }));
  await map.eachBlock((block, start, count) => {
    found.forEach((mode, k) => {
      const projections = new Float64Array(count);
      const weights = vectors.subarray(k * features, (k + 1) * features);
      addColumnSums({ data: block, rows: features, columns: count }, projections, { weights, threads });
      for (let i = 0; i < count; i++) {
        mode.sum += projections[i];
        mode.largest.offer(start + i, projections[i]);
        mode.least.offer(start + i, -projections[i]);
      }
    });
  });
  return found.map(({ sum, largest, least }, k) => {
    const side = sum >= 0 ? largest : least;
    return {
      share: values[k] / trace,
      rows: Int32Array.from(side.rows),
      projections: Float64Array.from(side.values),
    };
  });
}
