import { eachBlock, type FeatureMatrix } from '../formats/feature-matrix.js';
import { addSecondMoment, multiply } from '../kernels/gemm.js';
import { createRandom } from '../random.js';
import type { LeadingSpectrum } from './factor-model.js';

const BLOCK_ROWS = 1024;

/** `X^T X / rows` `[d, d]`, both triangles, of rows in memory. */
export function secondMomentOf(x: Float64Array, rows: number, d: number): Float64Array {
  const sum = new Float64Array(d * d);
  for (let start = 0; start < rows; start += BLOCK_ROWS) {
    const count = Math.min(BLOCK_ROWS, rows - start);
    addSecondMoment(x.subarray(start * d, (start + count) * d), count, d, sum);
  }
  return mirrored(sum, d, 1 / rows);
}

function mirrored(lower: Float64Array, d: number, scale: number): Float64Array {
  for (let i = 0; i < d; i++) {
    for (let j = 0; j <= i; j++) {
      lower[i * d + j] *= scale;
      lower[j * d + i] = lower[i * d + j];
    }
  }
  return lower;
}

/** Means of the columns. @throws InputError for values that are not finite */
export async function meanOf(matrix: FeatureMatrix): Promise<Float64Array> {
  const mean = new Float64Array(matrix.columns);
  await eachBlock(matrix, BLOCK_ROWS, 'f64', (block, _, count) => {
    for (let r = 0; r < count; r++) for (let j = 0; j < mean.length; j++) mean[j] += block[r * mean.length + j];
  });
  return mean.map((value) => value / matrix.rows);
}

/** Features above this are never made into a `[d, d]` matrix. */
export const WIDEST_MOMENT = 5000;
/** Passes of subspace iteration over wide rows, and vectors beyond those that are wanted. */
const WIDE_PASSES = 12;
const OVERSAMPLING = 10;

/**
 * The `count` leading eigenpairs of the second moment about `centre` (zero without it), from rows that are streamed. Up
 * to 5,000 features the `[d, d]` matrix is summed; beyond, randomised subspace iteration reads the rows 13 times and
 * holds `count + 10` vectors (Halko, Martinsson & Tropp 2011).
 */
export async function streamedSpectrum(
  matrix: FeatureMatrix,
  count: number,
  centre: Float64Array | null,
  seed: number,
  eigenpairs: (moment: Float64Array, d: number) => LeadingSpectrum,
): Promise<{ spectrum: LeadingSpectrum; path: 'exact' | 'randomised' }> {
  const { columns: d, rows } = matrix;
  const shift = (block: Float64Array, size: number): void => {
    if (centre === null) return;
    for (let r = 0; r < size; r++) for (let j = 0; j < d; j++) block[r * d + j] -= centre[j];
  };
  if (d <= WIDEST_MOMENT) {
    const sum = new Float64Array(d * d);
    await eachBlock(matrix, BLOCK_ROWS, 'f64', (block, _, size) => {
      shift(block, size);
      addSecondMoment(block, size, d, sum);
    });
    return { spectrum: eigenpairs(mirrored(sum, d, 1 / rows), d), path: 'exact' };
  }
  const width = Math.min(d, rows, count + OVERSAMPLING);
  const random = createRandom(seed).fork(0x77696465);
  let basis = orthonormalRows(
    Float64Array.from({ length: width * d }, () => random.normal()),
    width,
    d,
  );
  let trace = 0;
  const image = new Float64Array(width * d);
  for (let pass = 0; pass <= WIDE_PASSES; pass++) {
    image.fill(0);
    trace = 0;
    const products = new Float64Array(BLOCK_ROWS * width);
    await eachBlock(matrix, BLOCK_ROWS, 'f64', (block, _, size) => {
      shift(block, size);
      for (const value of block) trace += value * value;
      multiply(block, basis, products, { m: size, n: width, k: d }, { transposeB: true });
      multiply(products, block, image, { m: width, n: d, k: size }, { transposeA: true, alpha: 1 / rows, beta: 1 });
    });
    if (pass < WIDE_PASSES) basis = orthonormalRows(image.slice(), width, d);
  }
  // Rayleigh-Ritz: S in the basis, `Q S Q^T`, whose eigenvectors turn the basis.
  const small = multiply(
    image,
    basis,
    new Float64Array(width * width),
    { m: width, n: width, k: d },
    { transposeB: true },
  );
  for (let i = 0; i < width; i++) {
    for (let j = 0; j < i; j++) {
      small[i * width + j] = 0.5 * (small[i * width + j] + small[j * width + i]);
      small[j * width + i] = small[i * width + j];
    }
  }
  const ritz = eigenpairs(small, width);
  const wanted = ritz.values.length;
  const vectors = multiply(ritz.vectors, basis, new Float64Array(wanted * d), { m: wanted, n: d, k: width });
  const spectrum = { values: ritz.values, vectors, trace: trace / rows, dimension: d };
  return { spectrum, path: 'randomised' };
}

/** Rows made orthonormal by Gram-Schmidt, twice. */
function orthonormalRows(rows: Float64Array, count: number, d: number): Float64Array {
  for (let i = 0; i < count; i++) {
    const own = rows.subarray(i * d, (i + 1) * d);
    for (let round = 0; round < 2; round++) {
      for (let k = 0; k < i; k++) {
        const other = rows.subarray(k * d, (k + 1) * d);
        let dot = 0;
        for (let j = 0; j < d; j++) dot += own[j] * other[j];
        for (let j = 0; j < d; j++) own[j] -= dot * other[j];
      }
    }
    const norm = Math.sqrt(own.reduce((sum, value) => sum + value * value, 0));
    for (let j = 0; j < d; j++) own[j] = norm > 0 ? own[j] / norm : 0;
  }
  return rows;
}
