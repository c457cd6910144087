import { arrayMatrix, type FeatureMatrix } from '../formats/feature-matrix.js';
import { multiply, symmetricRankK } from '../kernels/gemm.js';
import { symmetricSpectrum } from '../kernels/symmetric-spectrum.js';
import { addFeatureMoment, type FeatureMap, featureCovariance, leadingModes } from '../linalg/feature-map.js';
import { rowMap } from '../linalg/row-map.js';
import type { TiledProducts } from '../linalg/tiled-products.js';
import { withCosinePairs } from './cosine-pairs.js';
import type { SourceOptions } from './gram-source.js';
import { type KernelSource, type ResamplingParts, randomParts } from './kernel-source.js';
import { squaredNorm } from './rke.js';
import { rowsOf } from './unit-rows.js';

export interface FeatureSourceOptions extends Omit<SourceOptions, 'threads'> {
  readonly path: 'dual' | 'fkea' | 'nystrom';
  readonly products: TiledProducts;
  /** What the moments of resampling's parts may take; default 256 MiB. */
  readonly partBytes?: number;
  /** Element type of the rows that are held while parts are added up. Default f64. */
  readonly precision?: 'f32' | 'f64';
}

/** Entries of rows that are held while they are dealt to parts. */
const DEALT_ENTRIES = 1 << 23;
/** As many parts as this make a resampling error of a few percent. */
const MOST_PARTS = 128;

/** What features tell of a kernel; pairs of items come from elsewhere. */
export type SpectralSource = Omit<KernelSource, 'similarity' | 'meanPower'>;

/**
 * The kernel `K = Phi Phi^T` of features of items through the second moment `sum_i p_i phi_i phi_i^T` `[features, features]`,
 * which has the same eigenvalues but zeros: rows stream through, and no matrix of n x n is held. Features of length 1
 * make the trace 1; those of landmarks may miss it.
 * @param rows the items, of which `map` makes features
 */
export function featureSource(rows: FeatureMatrix, map: FeatureMap, options: FeatureSourceOptions): SpectralSource {
  const { n, features: m } = map;
  const { weights, seed = 0, path, products } = options;
  const { threads } = products;
  const of = (subset: Int32Array): FeatureMap => map.over(rowsOf(rows, subset));
  let whole: Promise<Float64Array> | undefined;
  const moment = (): Promise<Float64Array> => {
    whole ??= featureCovariance(map, { products, ...(weights && { weights }) });
    return whole;
  };
  const spectrum = (matrix: Float64Array): Float64Array => symmetricSpectrum(matrix, m, { threads });

  /** Through the smaller of the second moment and the kernel matrix. */
  const ofSubset = async (subset: Int32Array): Promise<Float64Array> => {
    const size = subset.length;
    const part = weights && shares(weights, subset);
    if (size >= m) return spectrum(await featureCovariance(of(subset), { products, ...(part && { weights: part }) }));
    const phi = await collect(of(subset));
    const roots = Float64Array.from({ length: size }, (_, i) => Math.sqrt(part ? part[i] : 1 / size));
    for (let f = 0; f < m; f++) for (let i = 0; i < size; i++) phi[f * size + i] *= roots[i];
    const gram = symmetricRankK(phi, new Float64Array(size * size), { n: size, k: m }, { transpose: true, threads });
    return symmetricSpectrum(gram, size, { threads });
  };

  return {
    path,
    items: n,
    order: m,
    moment,
    eigenvalues: async (subset) => (subset ? ofSubset(subset) : spectrum((await moment()).slice())),
    async eigenvaluesWithout(item) {
      const left = (await moment()).slice();
      const x = await collect(of(Int32Array.of(item)));
      const share = weights ? weights[item] : 1 / n;
      for (let i = 0; i < m; i++) {
        for (let j = 0; j <= i; j++) left[i * m + j] = (left[i * m + j] - share * x[i] * x[j]) / (1 - share);
      }
      return spectrum(left);
    },
    squaredNorm: async () => squaredNorm(await moment()),
    rowSquares: async () =>
      rowSquares(map, weights ? await featureCovariance(map, { products }) : await moment(), threads),
    parts: (strata, partSeed) => momentParts(rows, map, strata, partSeed, options),
    leading: async (count) => leadingModes(map, await moment(), { modes: count, seed }, products),
  };
}

/** Rows of length 1 as features of themselves: the dual of the cosine kernel. */
export function dualSource(rows: FeatureMatrix, options: Omit<FeatureSourceOptions, 'path'>): KernelSource {
  const { weights, products, precision = 'f64' } = options;
  const source = featureSource(rows, rowMap(rows, precision), { ...options, path: 'dual' });
  const paired = withCosinePairs(source, rows, products, weights);
  return { ...paired, meanPower: (q) => (q === 2 ? source.squaredNorm() : paired.meanPower(q)) };
}

/** Weights of some rows, divided by their sum. */
function shares(weights: Float64Array, rows: Int32Array): Float64Array {
  const part = Float64Array.from(rows, (row) => weights[row]);
  const total = part.reduce((sum, weight) => sum + weight, 0);
  return part.map((weight) => weight / total);
}

/** All features of few points, `[features, n]`. */
async function collect({ n, features, eachBlock }: FeatureMap): Promise<Float64Array> {
  const phi = new Float64Array(features * n);
  await eachBlock((block, start, count) => {
    for (let f = 0; f < features; f++) phi.set(block.subarray(f * count, (f + 1) * count), f * n + start);
  });
  return phi;
}

/** `sum_j K_ij^2 = n phi_i^T M phi_i` with the moment M of equal weights. */
async function rowSquares(map: FeatureMap, moment: Float64Array, threads: number): Promise<Float64Array> {
  const { n, features: m } = map;
  const result = new Float64Array(n);
  const single = Float32Array.from(moment);
  let turned = new Float64Array(0);
  await map.eachBlock((block, start, count) => {
    if (turned.length < m * count) turned = new Float64Array(m * count);
    const left = block instanceof Float32Array ? single : moment;
    multiply(left, block, turned, { m, n: count, k: m }, { threads });
    for (let f = 0; f < m; f++)
      for (let i = 0; i < count; i++) result[start + i] += n * block[f * count + i] * turned[f * count + i];
  });
  return result;
}

/** Random parts as a part for every row. */
function dealt(parts: readonly Int32Array[], n: number): Int32Array {
  const partOf = new Int32Array(n);
  parts.forEach((rows, part) => {
    for (const row of rows) partOf[row] = part;
  });
  return partOf;
}

/**
 * Moments of random parts: a moment of any union of parts is their sum, so that a resample costs one decomposition and no
 * pass over the rows. As many parts as `partBytes` hold, at most one an item. The rows are read once, in order.
 */
async function momentParts(
  rows: FeatureMatrix,
  map: FeatureMap,
  strata: readonly number[],
  seed: number,
  options: FeatureSourceOptions,
): Promise<ResamplingParts> {
  const { n, features: m } = map;
  const { products } = options;
  const held = Math.floor((options.partBytes ?? 1 << 28) / (8 * m * m));
  const count = Math.max(2 * strata.length, Math.min(n, held, MOST_PARTS * strata.length));
  const drawn = randomParts(strata, Math.max(1, n / count), seed);
  const sizes = Int32Array.from(drawn.rows, ({ length }) => length);
  const moments = drawn.rows.map(() => new Float64Array(m * m));
  const partOf = dealt(drawn.rows, n);
  await eachStretch(rows, options.precision ?? 'f64', async (stretch, start) => {
    const members = moments.map((): number[] => []);
    for (let r = 0; r < stretch.rows; r++) members[partOf[start + r]].push(r);
    for (const [part, own] of members.entries()) {
      const points = rowsOf(stretch, Int32Array.from(own));
      if (own.length > 0) await addFeatureMoment(map.over(points), moments[part], { products });
    }
  });
  return {
    sizes,
    strata: drawn.strata,
    async eigenvalues(parts) {
      const sum = new Float64Array(m * m);
      let total = 0;
      for (const part of parts) total += sizes[part];
      for (const part of parts) {
        const moment = moments[part];
        // The lower triangle is all that is known and needed.
        for (let i = 0; i < m; i++) for (let at = i * m; at <= i * m + i; at++) sum[at] += moment[at] / total;
      }
      return symmetricSpectrum(sum, m, { threads: products.threads });
    },
  };
}

/** Long stretches of rows in memory, one after another. */
async function eachStretch(
  rows: FeatureMatrix,
  precision: 'f32' | 'f64',
  visit: (stretch: FeatureMatrix, start: number) => Promise<void>,
): Promise<void> {
  const { columns, name } = rows;
  const most = Math.min(rows.rows, Math.ceil(DEALT_ENTRIES / columns));
  const buffer = precision === 'f32' ? new Float32Array(most * columns) : new Float64Array(most * columns);
  for (let start = 0; start < rows.rows; start += most) {
    const count = Math.min(most, rows.rows - start);
    const held = buffer.subarray(0, count * columns);
    rows.readRows(start, count, held);
    await visit(arrayMatrix(name, held, count, columns), start);
  }
}
