import { eachBlock, type FeatureMatrix, loadMatrix } from '../formats/feature-matrix.js';
import { addSecondMoment, multiply, symmetricRankK } from '../kernels/gemm.js';
import { symmetricSpectrum } from '../kernels/symmetric-spectrum.js';
import { leadingEigenvectors } from '../linalg/leading-eigenvectors.js';
import { orient, type SourceOptions } from './gram-source.js';
import { similarityPower } from './internal-diversity.js';
import { type KernelSource, type LeadingModes, type ResamplingParts, randomParts } from './kernel-source.js';
import { squaredNorm } from './rke.js';
import { rowsOf } from './unit-rows.js';

export interface FeatureSourceOptions extends SourceOptions {
  readonly path: 'dual' | 'fkea' | 'nystrom';
  /** What the moments of resampling's parts may take; default 256 MiB. */
  readonly partBytes?: number;
  /** Element type of the products; sums of panels are added in double. Default f64. */
  readonly precision?: 'f32' | 'f64';
}

/** Entries of a block of rows that is read at once. */
const BLOCK_ENTRIES = 1 << 21;
/** Up to this many items a mean over all pairs is taken exactly. */
const MOST_PAIRED = 10_000;
/** Rows of a tile of similarities. */
const TILE_ROWS = 512;
/** As many parts as this make a resampling error of a few percent. */
const MOST_PARTS = 128;

/**
 * The kernel `K = X X^T` of feature rows through the second moment `sum_i p_i x_i x_i^T` `[columns, columns]`, which has
 * the same eigenvalues but zeros: rows stream through, and no matrix of n x n is held. Rows of length 1 make the trace 1;
 * Nyström features may miss it.
 */
export function featureSource(rows: FeatureMatrix, options: FeatureSourceOptions): KernelSource {
  const { columns: m, rows: n } = rows;
  const { weights, seed = 0, path } = options;
  const threads = options.threads === undefined ? {} : { threads: options.threads };
  let whole: Promise<Float64Array> | undefined;
  const moment = (): Promise<Float64Array> => {
    whole ??= secondMoment(rows, options, weights);
    return whole;
  };
  const spectrum = (matrix: Float64Array): Float64Array => symmetricSpectrum(matrix, m, threads);

  const ofRows = async (subset: Int32Array): Promise<Float64Array> => {
    const part = weights ? shares(weights, subset) : undefined;
    if (subset.length >= m) return spectrum(await secondMoment(rowsOf(rows, subset), options, part));
    const x = loadMatrix(rows, subset);
    for (let i = 0; i < subset.length; i++) {
      const factor = Math.sqrt(part ? part[i] : 1 / subset.length);
      for (let c = i * m; c < (i + 1) * m; c++) x[c] *= factor;
    }
    const size = subset.length;
    return symmetricSpectrum(
      symmetricRankK(x, new Float64Array(size * size), { n: size, k: m }, threads),
      size,
      threads,
    );
  };

  return {
    path,
    items: n,
    order: m,
    moment,
    eigenvalues: async (subset) => (subset ? ofRows(subset) : spectrum((await moment()).slice())),
    async eigenvaluesWithout(item) {
      const left = (await moment()).slice();
      const x = loadMatrix(rows, Int32Array.of(item));
      const share = weights ? weights[item] : 1 / n;
      for (let i = 0; i < m; i++) {
        for (let j = 0; j <= i; j++) left[i * m + j] = (left[i * m + j] - share * x[i] * x[j]) / (1 - share);
      }
      return spectrum(left);
    },
    squaredNorm: async () => squaredNorm(await moment()),
    rowSquares: async () => rowSquares(rows, await moment(), threads, weights),
    async meanPower(q) {
      if (q === 2) return squaredNorm(await moment());
      if (q !== 1) return n <= MOST_PAIRED ? pairedPower(rows, q, threads, weights) : undefined;
      const mean = new Float64Array(m);
      await eachRow(rows, (x, i) => {
        const share = weights ? weights[i] : 1 / n;
        for (let c = 0; c < m; c++) mean[c] += share * x[c];
      });
      return mean.reduce((sum, value) => sum + value * value, 0);
    },
    similarity(i, j) {
      const pair = loadMatrix(rows, Int32Array.of(i, j));
      let sum = 0;
      for (let c = 0; c < m; c++) sum += pair[c] * pair[m + c];
      return sum;
    },
    parts: (strata, partSeed) => momentParts(rows, strata, partSeed, options),
    async leading(count): Promise<LeadingModes> {
      const found = leadingEigenvectors(await moment(), m, count, { seed, ...threads });
      const kept = found.values.length;
      const scores = new Float64Array(kept * n);
      await eachRow(rows, (x, i) => {
        for (let v = 0; v < kept; v++) {
          let sum = 0;
          for (let c = 0; c < m; c++) sum += x[c] * found.vectors[v * m + c];
          scores[v * n + i] = sum;
        }
      });
      for (let v = 0; v < kept; v++) orient(scores.subarray(v * n, (v + 1) * n));
      return { eigenvalues: found.values, scores };
    },
  };
}

/** Weights of some rows, divided by their sum. */
function shares(weights: Float64Array, rows: Int32Array): Float64Array {
  const part = Float64Array.from(rows, (row) => weights[row]);
  const total = part.reduce((sum, weight) => sum + weight, 0);
  return part.map((weight) => weight / total);
}

async function eachRow(rows: FeatureMatrix, visit: (x: Float64Array, index: number) => void): Promise<void> {
  const { columns } = rows;
  await eachBlock(rows, Math.ceil(BLOCK_ENTRIES / columns), 'f64', (block, start, count) => {
    for (let r = 0; r < count; r++) visit(block.subarray(r * columns, (r + 1) * columns), start + r);
  });
}

/**
 * `sum_i p_i x_i x_i^T` `[columns, columns]`, both triangles; rows stream through.
 * @param weights `[rows]`; `1/rows` each when absent
 */
export async function secondMoment(
  rows: FeatureMatrix,
  options: Pick<FeatureSourceOptions, 'threads' | 'precision'>,
  weights?: Float64Array,
): Promise<Float64Array> {
  const m = rows.columns;
  const sum = new Float64Array(m * m);
  const threads = options.threads === undefined ? {} : { threads: options.threads };
  await eachBlock(rows, Math.ceil(BLOCK_ENTRIES / m), options.precision ?? 'f64', (block, start, count) => {
    if (weights) {
      for (let r = 0; r < count; r++) {
        const factor = Math.sqrt(weights[start + r]);
        for (let c = r * m; c < (r + 1) * m; c++) block[c] *= factor;
      }
    }
    addSecondMoment(block, count, m, sum, threads);
  });
  if (!weights) for (let i = 0; i < sum.length; i++) sum[i] /= rows.rows;
  for (let i = 0; i < m; i++) for (let j = 0; j < i; j++) sum[j * m + i] = sum[i * m + j];
  return sum;
}

/** `sum_ij p_i p_j (x_i . x_j)^q` over all pairs, tile by tile. */
async function pairedPower(
  rows: FeatureMatrix,
  q: number,
  threads: { readonly threads?: number },
  weights: Float64Array | undefined,
): Promise<number> {
  const { columns: m, rows: n } = rows;
  const share = (row: number): number => (weights ? weights[row] : 1 / n);
  const tile = new Float64Array(Math.min(n, TILE_ROWS) ** 2);
  let total = 0;
  const load = (start: number): { block: Float64Array; count: number } => {
    const count = Math.min(TILE_ROWS, n - start);
    const block = new Float64Array(count * m);
    rows.readRows(start, count, block);
    return { block, count };
  };
  for (let i = 0; i < n; i += TILE_ROWS) {
    const left = load(i);
    for (let j = 0; j <= i; j += TILE_ROWS) {
      const right = j === i ? left : load(j);
      const sizes = { m: left.count, n: right.count, k: m };
      multiply(left.block, right.block, tile, sizes, { transposeB: true, ...threads });
      let sum = 0;
      for (let a = 0; a < left.count; a++) {
        let row = 0;
        for (let b = 0; b < right.count; b++) {
          // Rounding must not make the power of the diagonal depend on the path.
          const similarity = i + a === j + b ? 1 : tile[a * right.count + b];
          row += share(j + b) * similarityPower(similarity, q, i + a, j + b);
        }
        sum += share(i + a) * row;
      }
      total += i === j ? sum : 2 * sum;
    }
  }
  return total;
}

/** `sum_j K_ij^2 = n x_i^T M x_i` with the moment M of equal weights. */
async function rowSquares(
  rows: FeatureMatrix,
  moment: Float64Array,
  threads: { readonly threads?: number },
  weights: Float64Array | undefined,
): Promise<Float64Array> {
  const { columns: m, rows: n } = rows;
  const plain = weights ? await secondMoment(rows, threads) : moment;
  const result = new Float64Array(n);
  const blockRows = Math.ceil(BLOCK_ENTRIES / m);
  const turned = new Float64Array(Math.min(n, blockRows) * m);
  await eachBlock(rows, blockRows, 'f64', (block, start, count) => {
    multiply(block, plain, turned, { m: count, n: m, k: m }, threads);
    for (let r = 0; r < count; r++) {
      let sum = 0;
      for (let c = r * m; c < (r + 1) * m; c++) sum += block[c] * turned[c];
      result[start + r] = n * sum;
    }
  });
  return result;
}

/**
 * Moments of random parts: a moment of any union of parts is their sum, so that a resample costs one decomposition and no
 * pass over the rows. As many parts as `partBytes` hold, at most one an item.
 */
async function momentParts(
  rows: FeatureMatrix,
  strata: readonly number[],
  seed: number,
  options: FeatureSourceOptions,
): Promise<ResamplingParts> {
  const { columns: m, rows: n } = rows;
  const held = Math.floor((options.partBytes ?? 1 << 28) / (8 * m * m));
  const count = Math.max(2 * strata.length, Math.min(n, held, MOST_PARTS * strata.length));
  const drawn = randomParts(strata, Math.max(1, n / count), seed);
  const moments: Float64Array[] = [];
  for (const part of drawn.rows) moments.push(await secondMoment(rowsOf(rows, part), options));
  const sizes = Int32Array.from(drawn.rows, ({ length }) => length);
  const threads = options.threads === undefined ? {} : { threads: options.threads };
  return {
    sizes,
    strata: drawn.strata,
    async eigenvalues(parts) {
      const sum = new Float64Array(m * m);
      let total = 0;
      for (const part of parts) total += sizes[part];
      for (const part of parts) {
        const share = sizes[part] / total;
        const moment = moments[part];
        for (let i = 0; i < sum.length; i++) sum[i] += share * moment[i];
      }
      return symmetricSpectrum(sum, m, threads);
    },
  };
}
