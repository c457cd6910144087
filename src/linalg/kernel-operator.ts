import { InputError } from '../errors.js';
import type { Floats } from '../formats/feature-matrix.js';
import { addTile } from '../kernels/kernel-tiles.js';
import {
  eachGaussianTile,
  gaussianDegrees,
  gaussianPowerSum,
  type Points,
  type ScaledPoints,
  scalePoints,
  type TileOptions,
} from './gaussian-tiles.js';
import { TILE, type TiledProducts } from './tiled-products.js';

export type { Points, TileOptions } from './gaussian-tiles.js';

/**
 * A symmetric matrix `[n, n]` that is known by its products alone. Vectors are rows: `v` `[b, n]` holds b vectors one
 * after another, and row p of `out` becomes K times row p of `v`. The bits of a row depend neither on the other rows nor
 * on the number of threads.
 */
export interface SymmetricOperator {
  readonly n: number;
  /** Arithmetic within a tile. */
  readonly precision: 'f32' | 'f64';
  /** tr K, exact up to rounding. */
  trace(): Promise<number>;
  /** tr K² = ‖K‖²_F, exact up to rounding, where a pass over the matrix or less gives it. */
  squaredNorm?(): Promise<number>;
  multiply(v: Float64Array, b: number, out: Float64Array): Promise<void>;
}

const floats = (precision: 'f32' | 'f64', length: number): Floats =>
  precision === 'f32' ? new Float32Array(length) : new Float64Array(length);

/**
 * Vectors `[b, n]` times `factors` `[n]` in blocks of TILE columns, each `[height, columns]` on its own. A single row
 * gets a companion of zeros: the runtime multiplies single rows by another kernel, whose bits differ.
 */
interface PackedVectors {
  readonly height: number;
  block(column: number, columns: number): Floats;
}

function packVectors(
  v: Float64Array,
  b: number,
  n: number,
  precision: 'f32' | 'f64',
  factors: Float64Array | undefined,
): PackedVectors {
  const height = Math.max(2, b);
  const packed = floats(precision, height * n);
  for (let column = 0; column < n; column += TILE) {
    const columns = Math.min(TILE, n - column);
    for (let p = 0; p < b; p++) {
      const to = height * column + p * columns;
      const from = p * n + column;
      if (factors) for (let j = 0; j < columns; j++) packed[to + j] = v[from + j] * factors[column + j];
      else packed.set(v.subarray(from, from + columns), to);
    }
  }
  return {
    height,
    block: (column, columns) => packed.subarray(height * column, height * (column + columns)),
  };
}

function checkVectors(v: Float64Array, b: number, n: number, out: Float64Array): void {
  if (v.length < b * n || out.length < b * n)
    throw new RangeError(`${v.length} and ${out.length} entries for ${b} vectors of ${n}`);
}

/** `out[p, i] *= factors[i]` */
function scaleColumns(out: Float64Array, b: number, factors: Float64Array): void {
  const n = factors.length;
  for (let p = 0; p < b; p++) for (let i = 0; i < n; i++) out[p * n + i] *= factors[i];
}

const sumOf = (values: Float64Array): number => values.reduce((sum, value) => sum + value, 0);

/** The operator `s_i s_j exp(-|x_i - x_j|²/2σ²)` of scaled points; `factors` s are 1 when absent. */
function scaledGaussian(
  points: ScaledPoints,
  options: TileOptions,
  factors: Float64Array | undefined,
): SymmetricOperator {
  const { n } = points;
  const { products } = options;
  const { threads } = products;
  const precision = points.data instanceof Float32Array ? 'f32' : 'f64';
  const squares = factors?.map((factor) => factor * factor);
  return {
    n,
    precision,
    trace: async () => (squares ? sumOf(squares) : n),
    squaredNorm: () => gaussianPowerSum(points, squares ?? new Float64Array(n).fill(1), 2, options),
    async multiply(v, b, out) {
      checkVectors(v, b, n, out);
      const packed = packVectors(v, b, n, precision, factors);
      const { height } = packed;
      const partial = floats(precision, height * Math.min(TILE, n));
      out.fill(0, 0, b * n);
      await eachGaussianTile(points, options, async ({ data, row, rows, column, columns }) => {
        const shape = { m: height, n: rows, k: columns };
        await products.multiply('nt', packed.block(column, columns), data, shape, partial);
        addTile({ data: partial, rows: b, columns: rows }, out, row, n, { threads });
        if (row === column) return;
        const mirrored = { m: height, n: columns, k: rows };
        await products.multiply('nn', packed.block(row, rows), data, mirrored, partial);
        addTile({ data: partial, rows: b, columns }, out, column, n, { threads });
      });
      if (factors) scaleColumns(out, b, factors);
    },
  };
}

/** A bandwidth must be a positive number. @throws RangeError */
function checkSigma(sigma: number): void {
  if (!(sigma > 0 && Number.isFinite(sigma))) throw new RangeError(`a bandwidth of ${sigma}`);
}

/** 1/(σ√2π), the factor of the Gaussian density that spectra up to scale do not need. */
export const gaussianHeight = (sigma: number): number => 1 / (sigma * Math.sqrt(2 * Math.PI));

/**
 * The Gaussian kernel `s_i s_j exp(-|x_i - x_j|²/2σ²)` of n points, never held: a product forms its tiles anew, those of
 * the lower triangle only. Memory: the points, b vectors twice and a tile. Multiply by `gaussianHeight(sigma)` for the
 * kernel of the density.
 * @param factors s `[n]`, 1 when absent: √p_i for weights p, 1/√n for K/n
 */
export function gaussianOperator(
  points: Points,
  sigma: number,
  options: TileOptions,
  factors?: Float64Array,
): SymmetricOperator {
  checkSigma(sigma);
  return scaledGaussian(scalePoints(points, sigma, options.precision), options, factors);
}

/** An operator made of degrees, with the degrees it was made of. */
export interface DegreeOperator extends SymmetricOperator {
  /** Row sums of the Gaussian kernel (without its factor 1/(σ√2π)), `[n]`. */
  readonly degrees: Float64Array;
  /** Stationary weights up to scale `[n]`: their roots are an eigenvector of the eigenvalue 1. */
  readonly weights: Float64Array;
}

/**
 * The anisotropic kernel `K_ij = G_ij / √(deg_i deg_j)`, deg = G1, of diffusion spectral entropy (Liao et al. 2023): the
 * factor of G cancels. Degrees take one pass over the tiles.
 */
export async function anisotropicOperator(
  points: Points,
  sigma: number,
  options: TileOptions,
): Promise<DegreeOperator> {
  checkSigma(sigma);
  const scaled = scalePoints(points, sigma, options.precision);
  const degrees = await gaussianDegrees(scaled, options);
  const factors = degrees.map((degree) => 1 / Math.sqrt(degree));
  return { ...scaledGaussian(scaled, options, factors), degrees, weights: degrees };
}

/**
 * `diag(K1)^{-1/2} K diag(K1)^{-1/2}` of the anisotropic kernel K: symmetric, with the spectrum of the diffusion operator
 * `P = diag(K1)^{-1} K`. Two passes over the tiles.
 */
export async function diffusionOperator(points: Points, sigma: number, options: TileOptions): Promise<DegreeOperator> {
  checkSigma(sigma);
  const scaled = scalePoints(points, sigma, options.precision);
  const degrees = await gaussianDegrees(scaled, options);
  const factors = degrees.map((degree) => 1 / Math.sqrt(degree));
  const sums = new Float64Array(points.n);
  await scaledGaussian(scaled, options, factors).multiply(new Float64Array(points.n).fill(1), 1, sums);
  const both = factors.map((factor, i) => factor / Math.sqrt(sums[i]));
  return { ...scaledGaussian(scaled, options, both), degrees, weights: sums };
}

export interface LinearOptions {
  readonly products: TiledProducts;
  readonly precision?: 'f32' | 'f64';
  /** Divide every point by its length: the cosine kernel. */
  readonly normalise?: boolean;
  /** s `[n]`, 1 when absent: √p_i for weights p, 1/√n for K/n. */
  readonly factors?: Float64Array;
}

/**
 * The kernel `s_i s_j x_i·x_j` as X (Xᵀ v): O(n d) a vector, nothing of size n x n.
 * @throws InputError for a point of length zero under `normalise`
 */
export function linearOperator(points: Points, options: LinearOptions): SymmetricOperator {
  const { n, d } = points;
  const { products, precision = 'f64', normalise = false, factors } = options;
  const x = floats(precision, n * d);
  const diagonal = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    let squares = 0;
    for (let j = i * d; j < (i + 1) * d; j++) squares += points.data[j] * points.data[j];
    if (normalise && squares === 0)
      throw new InputError(`row ${i} is all zeros and has no direction to compare; drop it or use another kernel`);
    const factor = (factors?.[i] ?? 1) / (normalise ? Math.sqrt(squares) : 1);
    for (let j = i * d; j < (i + 1) * d; j++) x[j] = points.data[j] * factor;
    diagonal[i] = squares * factor * factor;
  }
  const { threads } = products;
  return {
    n,
    precision,
    trace: async () => sumOf(diagonal),
    async multiply(v, b, out) {
      checkVectors(v, b, n, out);
      const packed = packVectors(v, b, n, precision, undefined);
      const { height } = packed;
      const projections = new Float64Array(height * d);
      const partial = floats(precision, height * d);
      for (let row = 0; row < n; row += TILE) {
        const rows = Math.min(TILE, n - row);
        const block = x.subarray(row * d, (row + rows) * d);
        await products.multiply('nn', packed.block(row, rows), block, { m: height, n: d, k: rows }, partial);
        addTile({ data: partial, rows: height, columns: d }, projections, 0, d, { threads });
      }
      const narrowed = precision === 'f32' ? Float32Array.from(projections) : projections;
      const result = floats(precision, height * Math.min(TILE, n));
      out.fill(0, 0, b * n);
      for (let row = 0; row < n; row += TILE) {
        const rows = Math.min(TILE, n - row);
        await products.product(narrowed, height, x.subarray(row * d, (row + rows) * d), rows, d, result);
        addTile({ data: result, rows: b, columns: rows }, out, row, n, { threads });
      }
    },
  };
}

/**
 * `s_i K_ij s_j` of a symmetric matrix K `[n, n]` that is held, row-major, both triangles.
 * @param factors s `[n]`, 1 when absent: √p_i for weights p
 */
export function matrixOperator(
  matrix: Float64Array,
  n: number,
  products: TiledProducts,
  factors?: Float64Array,
): SymmetricOperator {
  if (matrix.length !== n * n) throw new RangeError(`${matrix.length} entries are no matrix of order ${n}`);
  const squareAt = (i: number): number => (factors ? factors[i] ** 2 : 1);
  return {
    n,
    precision: 'f64',
    trace: async () => {
      let sum = 0;
      for (let i = 0; i < n; i++) sum += squareAt(i) * matrix[i * (n + 1)];
      return sum;
    },
    squaredNorm: async () => {
      let total = 0;
      for (let i = 0; i < n; i++) {
        let sum = 0;
        for (let j = 0; j < n; j++) sum += squareAt(j) * matrix[i * n + j] ** 2;
        total += squareAt(i) * sum;
      }
      return total;
    },
    async multiply(v, b, out) {
      checkVectors(v, b, n, out);
      const height = Math.max(2, b);
      const vectors = new Float64Array(height * n);
      vectors.set(v.subarray(0, b * n));
      if (factors) scaleColumns(vectors, b, factors);
      const result = new Float64Array(height * Math.min(TILE, n));
      for (let row = 0; row < n; row += TILE) {
        const rows = Math.min(TILE, n - row);
        await products.product(vectors, height, matrix.subarray(row * n, (row + rows) * n), rows, n, result);
        for (let p = 0; p < b; p++) out.set(result.subarray(p * rows, (p + 1) * rows), p * n + row);
      }
      if (factors) scaleColumns(out, b, factors);
    },
  };
}
