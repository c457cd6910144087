import { type Operand, productReference, type Reals } from './gemm-reference.js';
import { kernelThreads, nativeKernels } from './native.js';

/**
 * A matrix argument is row-major; its rows are `stride` elements apart (default: its number of columns). Operands are
 * Float64Array with a Float64Array result, or Float32Array with either: into a Float64Array, single sums over panels
 * of 256 are added up in double, so that a sum of a million terms keeps the digits of its terms.
 */
export interface ProductOptions {
  /** A is stored as [k, m]. */
  readonly transposeA?: boolean;
  /** B is stored as [n, k]. */
  readonly transposeB?: boolean;
  readonly strideA?: number;
  readonly strideB?: number;
  readonly strideC?: number;
  /** Factor of the product; default 1. */
  readonly alpha?: number;
  /** Factor of what C holds; default 0, which also forgets a NaN. */
  readonly beta?: number;
  /** Results are the same bits whatever the number. */
  readonly threads?: number;
}

export interface RankOptions {
  /** X is stored as [k, n], and the product is XᵀX: the second moment of k rows. Default X [n, k], XXᵀ. */
  readonly transpose?: boolean;
  readonly strideX?: number;
  readonly strideC?: number;
  readonly alpha?: number;
  readonly beta?: number;
  readonly threads?: number;
}

interface Sizes {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

/** @throws RangeError when [rows, columns] with this stride does not fit the array */
function checkMatrix(name: string, data: Reals, rows: number, columns: number, stride: number): void {
  if (![rows, columns, stride].every((size) => Number.isInteger(size) && size >= 0) || stride < columns) {
    throw new RangeError(`${name}: [${rows}, ${columns}] with row stride ${stride} is no matrix`);
  }
  if (rows > 0 && columns > 0 && (rows - 1) * stride + columns > data.length) {
    throw new RangeError(`${name}: [${rows}, ${columns}] with row stride ${stride} needs more than ${data.length}`);
  }
}

/** @throws TypeError when the widths of the arrays do not go together */
function checkWidths(a: Reals, b: Reals, c: Reals): void {
  const single = a instanceof Float32Array;
  if (single !== b instanceof Float32Array) throw new TypeError('the operands of a product differ in width');
  if (!single && c instanceof Float32Array) throw new TypeError('a product of doubles needs a Float64Array');
}

function product(
  a: Operand,
  b: Operand,
  c: Reals,
  sizes: Sizes,
  options: { strideC: number; alpha?: number; beta?: number; lower: boolean; threads?: number },
): void {
  const { m, n, k } = sizes;
  const { strideC, alpha = 1, beta = 0, lower } = options;
  const native = nativeKernels();
  if (native === undefined) {
    productReference(a, b, c, { m, n, k, strideC, alpha, beta, lower });
    return;
  }
  const widths = a.data instanceof Float64Array ? 0 : c instanceof Float32Array ? 1 : 2;
  native.multiplyMatrices(
    widths,
    a.data,
    a.rowStep,
    a.columnStep,
    b.data,
    b.rowStep,
    b.columnStep,
    c,
    strideC,
    m,
    n,
    k,
    alpha,
    beta,
    lower ? 1 : 0,
    kernelThreads(options.threads),
  );
}

/**
 * C = beta C + alpha op(A) op(B) with op(A) [m, k], op(B) [k, n] and C [m, n]; C must not overlap A or B.
 * @returns c
 * @throws RangeError when a matrix does not fit its array, TypeError when widths do not go together
 */
export function multiply<C extends Reals>(a: Reals, b: Reals, c: C, sizes: Sizes, options: ProductOptions = {}): C {
  const { m, n, k } = sizes;
  const { transposeA = false, transposeB = false } = options;
  const strideA = options.strideA ?? (transposeA ? m : k);
  const strideB = options.strideB ?? (transposeB ? k : n);
  const strideC = options.strideC ?? n;
  checkWidths(a, b, c);
  checkMatrix('A', a, transposeA ? k : m, transposeA ? m : k, strideA);
  checkMatrix('B', b, transposeB ? n : k, transposeB ? k : n, strideB);
  checkMatrix('C', c, m, n, strideC);
  const left = { data: a, rowStep: transposeA ? 1 : strideA, columnStep: transposeA ? strideA : 1 };
  const right = { data: b, rowStep: transposeB ? 1 : strideB, columnStep: transposeB ? strideB : 1 };
  product(left, right, c, sizes, { ...options, strideC, lower: false });
  return c;
}

/**
 * Lower triangle, diagonal included, of C = beta C + alpha XXᵀ with X [n, k] (XᵀX with X [k, n] under `transpose`);
 * what lies above the diagonal of C [n, n] is left alone.
 * @returns c
 * @throws RangeError when a matrix does not fit its array, TypeError when widths do not go together
 */
export function symmetricRankK<C extends Reals>(
  x: Reals,
  c: C,
  sizes: { readonly n: number; readonly k: number },
  options: RankOptions = {},
): C {
  const { n, k } = sizes;
  const transpose = options.transpose ?? false;
  const strideX = options.strideX ?? (transpose ? n : k);
  const strideC = options.strideC ?? n;
  checkWidths(x, x, c);
  checkMatrix('X', x, transpose ? k : n, transpose ? n : k, strideX);
  checkMatrix('C', c, n, n, strideC);
  const [rowStep, columnStep] = transpose ? [1, strideX] : [strideX, 1];
  const left = { data: x, rowStep, columnStep };
  const right = { data: x, rowStep: columnStep, columnStep: rowStep };
  product(left, right, c, { m: n, n, k }, { ...options, strideC, lower: true });
  return c;
}

/**
 * Lower triangle of C = beta C + alpha (XYᵀ + YXᵀ) with X and Y [n, k] ([k, n] under `transpose`, XᵀY + YᵀX), rows of
 * both `strideX` apart.
 * @returns c
 * @throws RangeError when a matrix does not fit its array, TypeError when widths do not go together
 */
export function symmetricRank2K<C extends Reals>(
  x: Reals,
  y: Reals,
  c: C,
  sizes: { readonly n: number; readonly k: number },
  options: RankOptions = {},
): C {
  const { n, k } = sizes;
  const transpose = options.transpose ?? false;
  const strideX = options.strideX ?? (transpose ? n : k);
  const strideC = options.strideC ?? n;
  checkWidths(x, y, c);
  checkMatrix('X', x, transpose ? k : n, transpose ? n : k, strideX);
  checkMatrix('Y', y, transpose ? k : n, transpose ? n : k, strideX);
  checkMatrix('C', c, n, n, strideC);
  const [rowStep, columnStep] = transpose ? [1, strideX] : [strideX, 1];
  const left = (data: Reals): Operand => ({ data, rowStep, columnStep });
  const right = (data: Reals): Operand => ({ data, rowStep: columnStep, columnStep: rowStep });
  product(left(x), right(y), c, { m: n, n, k }, { ...options, strideC, lower: true });
  product(left(y), right(x), c, { m: n, n, k }, { ...options, beta: 1, strideC, lower: true });
  return c;
}

/**
 * Adds XᵀX of a block of rows X [rows, columns] to the lower triangle of `into` [columns, columns]: panels of single
 * sums, added in double. The second moment of long data, block by block.
 * @returns into
 */
export function addSecondMoment(
  x: Float32Array | Float64Array,
  rows: number,
  columns: number,
  into: Float64Array,
  options: { readonly strideX?: number; readonly threads?: number } = {},
): Float64Array {
  return symmetricRankK(x, into, { n: columns, k: rows }, { ...options, transpose: true, beta: 1 });
}
