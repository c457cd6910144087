import { type FeatureMatrix, loadMatrix } from '../formats/feature-matrix.js';
import { multiply } from '../kernels/gemm.js';
import { cosSinFeatures } from '../kernels/kernel-tiles.js';
import { squaredDistances } from '../linalg/gram.js';
import { drawLandmarks, NYSTROM_CUT } from '../linalg/nystrom.js';
import { drawFrequencies } from '../linalg/random-features.js';
import { symmetricEigen } from '../linalg/symmetric-eigen.js';
import type { TiledProducts } from '../linalg/tiled-products.js';

/** Rows that are mapped at once. */
const MAPPED_ROWS = 512;

/** Rows of a matrix mapped to other features as they are read. */
function mappedRows(
  matrix: FeatureMatrix,
  columns: number,
  map: (rows: Float64Array, count: number, target: Float64Array) => void,
): FeatureMatrix {
  const input = new Float64Array(MAPPED_ROWS * matrix.columns);
  const output = new Float64Array(MAPPED_ROWS * columns);
  return {
    name: matrix.name,
    dtype: 'F64',
    rows: matrix.rows,
    columns,
    readRows(start, count, target) {
      for (let at = 0; at < count; at += MAPPED_ROWS) {
        const block = Math.min(MAPPED_ROWS, count - at);
        matrix.readRows(start + at, block, input.subarray(0, block * matrix.columns));
        map(input, block, output);
        target.set(output.subarray(0, block * columns), at * columns);
      }
    },
    close: () => matrix.close(),
  };
}

/**
 * Random Fourier features of the Gaussian kernel as rows, `phi(x) = [cos(w_r . x), sin(w_r . x)] / sqrt(D)` with
 * `w_r ~ N(0, I / sigma^2)`, r = 1..D: rows of length 1 whose inner products are the kernel on average (FKEA, Ospanov et
 * al. 2024). With finite D scores are low. Half as many frequencies are the first half of these.
 */
export function fourierRows(
  matrix: FeatureMatrix,
  sigma: number,
  frequencies: number,
  seed: number,
  threads: number,
): FeatureMatrix {
  const d = matrix.columns;
  const omega = drawFrequencies(d, frequencies, sigma, seed);
  const angles = new Float64Array(frequencies * MAPPED_ROWS);
  const features = new Float64Array(2 * angles.length);
  return mappedRows(matrix, 2 * frequencies, (rows, count, target) => {
    const sizes = { m: frequencies, n: count, k: d };
    multiply(omega, rows, angles, sizes, { transposeA: true, transposeB: true, threads });
    const tile = { data: angles, rows: frequencies, columns: count };
    cosSinFeatures(tile, 1 / Math.sqrt(frequencies), features, { threads });
    for (let r = 0; r < count; r++) {
      const row = r * 2 * frequencies;
      for (let f = 0; f < 2 * frequencies; f++) target[row + f] = features[f * count + r];
    }
  });
}

export type LandmarkKernel = { readonly kernel: 'cosine' } | { readonly kernel: 'rbf'; readonly sigma: number };

/**
 * Nyström features `K_nm K_mm^{-1/2}` of random landmarks: inner products are the kernel projected on the landmarks, so
 * that rows are at most of length 1 and the trace falls short of 1 by what the landmarks do not span.
 */
export async function nystromRows(
  matrix: FeatureMatrix,
  { kernel, ...options }: LandmarkKernel,
  landmarks: number,
  seed: number,
  products: TiledProducts,
): Promise<FeatureMatrix> {
  const d = matrix.columns;
  const t = Math.min(landmarks, matrix.rows);
  const chosen = drawLandmarks(matrix.rows, t, seed);
  const x = loadMatrix(matrix, chosen);
  const sigma = 'sigma' in options ? options.sigma : 1;
  const { threads } = products;
  const norms = Float64Array.from({ length: t }, (_, i) => squaredLength(x, i * d, d));
  const similarities = (rows: Float64Array, count: number): Float64Array => {
    const tile = multiply(
      rows,
      x,
      new Float64Array(count * t),
      { m: count, n: t, k: d },
      { transposeB: true, threads },
    );
    if (kernel === 'cosine') return tile;
    for (let r = 0; r < count; r++) {
      const own = squaredLength(rows, r * d, d);
      for (let j = 0; j < t; j++) {
        const square = Math.max(0, own + norms[j] - 2 * tile[r * t + j]);
        tile[r * t + j] = Math.exp(-square / (2 * sigma * sigma));
      }
    }
    return tile;
  };
  let own: Float64Array;
  if (kernel === 'cosine') own = similarities(x, t);
  else {
    own = await squaredDistances(x, t, d, products);
    for (let i = 0; i < own.length; i++) own[i] = Math.exp(-own[i] / (2 * sigma * sigma));
  }
  const { values, vectors } = symmetricEigen(own, t);
  const kept = values.findIndex((value) => value > NYSTROM_CUT * values[t - 1]);
  const rank = t - kept;
  const whitening = new Float64Array(t * rank);
  for (let v = 0; v < rank; v++) {
    const factor = 1 / Math.sqrt(values[kept + v]);
    for (let j = 0; j < t; j++) whitening[j * rank + v] = factor * vectors[(kept + v) * t + j];
  }
  return mappedRows(matrix, rank, (rows, count, target) => {
    multiply(similarities(rows, count), whitening, target, { m: count, n: rank, k: t }, { threads });
  });
}

function squaredLength(data: Float64Array, start: number, count: number): number {
  let sum = 0;
  for (let i = start; i < start + count; i++) sum += data[i] * data[i];
  return sum;
}
