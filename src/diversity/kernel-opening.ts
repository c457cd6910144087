import { InputError } from '../errors.js';
import { openFeatures } from '../features/open-features.js';
import { eachBlock, type FeatureMatrix, type Floats, fitsSingle, loadMatrix } from '../formats/feature-matrix.js';
import { gaussianOperator, linearOperator, type Points } from '../linalg/kernel-operator.js';
import { drawLandmarks, nystromMap } from '../linalg/nystrom.js';
import { drawFrequencies, fourierMap } from '../linalg/random-features.js';
import type { TiledProducts } from '../linalg/tiled-products.js';
import { type Bandwidth, chooseBandwidth } from './bandwidth.js';
import { withCosinePairs } from './cosine-pairs.js';
import { editSimilarity } from './edit-similarity.js';
import { equalityClasses } from './exact-match.js';
import { dualSource, featureSource, type SpectralSource } from './feature-source.js';
import { gaussianGram, withGaussianPairs } from './gaussian-kernel.js';
import { gramSource } from './gram-source.js';
import { type KernelPlan, planKernel } from './kernel-plan.js';
import type { KernelSource } from './kernel-source.js';
import { matchSource } from './match-source.js';
import {
  ngramFeatures,
  type SparseRows,
  sparseDot,
  sparseGram,
  sparseOperator,
  sparsePowerSum,
  takeSparseRows,
} from './ngram-kernel.js';
import { quadratureSource } from './quadrature-source.js';
import type { DiversitySet, DiversitySettings } from './settings.js';
import { checkSimilarity } from './similarity-matrix.js';
import { rowsOf, scanRows, stackedRows, unitGram, unitRows } from './unit-rows.js';
import { checkWeights } from './weights.js';

/** A kernel over one set, or over several below each other. */
export interface OpenedKernel {
  readonly source: KernelSource;
  readonly plan: KernelPlan;
}

/** Sets whose rows have been looked at once. */
export interface OpenedSets {
  readonly items: readonly number[];
  /** Of features; 0 for texts and matrices. */
  readonly columns: number;
  /** Items of each set that equal an earlier one of it. */
  readonly duplicates: readonly number[];
  /** One bandwidth for all sets, so that their scores can be compared. */
  readonly bandwidth?: Bandwidth;
  /** The kernel over the sets `which`. `halved` takes half the landmarks, to see what they cost. */
  open(which: readonly number[], halved?: boolean): Promise<OpenedKernel>;
  close(): void;
}

/** Up to this many texts IntDiv takes all pairs. */
const MOST_PAIRED_TEXTS = 20_000;

/** Rows that are read at once. */
const LOADED_ROWS = 1024;

/** How messages name the kernel. */
export function kernelOrigin(settings: DiversitySettings, name: string): string {
  return settings.kernel === 'matrix' ? `${name} (--similarity)` : `--kernel ${settings.kernel} of ${name}`;
}

const nameOf = (sets: readonly DiversitySet[], which: readonly number[]): string =>
  which.map((set) => sets[set].name).join(' + ');

/** Opens sets and looks at every row once. Throws InputError for rows that no kernel can take. */
export async function openSets(
  sets: readonly DiversitySet[],
  settings: DiversitySettings,
  products: TiledProducts,
): Promise<OpenedSets> {
  const opened =
    sets[0].items.kind === 'texts' ? textSets(sets, settings) : await featureSets(sets, settings, products);
  try {
    sets.forEach(({ weights, groups, name }, set) => {
      const items = opened.items[set];
      if (weights) checkWeights(weights, items, `--weights of ${name}`);
      if (groups && groups.codes.length !== items)
        throw new InputError(`${name}: ${groups.codes.length} labels for ${items} items; give one label an item`);
    });
  } catch (error) {
    opened.close();
    throw error;
  }
  return opened;
}

function planFor(settings: DiversitySettings, items: number, columns: number, pointBytes = 0): KernelPlan {
  const { kernel, method, maxMemoryBytes, frequencies, landmarks } = settings;
  const plan = planKernel({ kernel, method, items, columns, maxMemoryBytes, frequencies, landmarks, pointBytes });
  if (plan.method === 'slq' && settings.truncations.length > 0) {
    throw new InputError(
      `--truncate needs a spectrum, which quadrature of ${items} items does not give; use --method ` +
        `${kernel === 'ngram' ? 'exact' : 'nystrom'}`,
    );
  }
  return plan;
}

const weightsOf = (sets: readonly DiversitySet[], which: readonly number[]): { weights?: Float64Array } => {
  const weights = which.length === 1 ? sets[which[0]].weights : undefined;
  return weights ? { weights } : {};
};

function textSets(sets: readonly DiversitySet[], settings: DiversitySettings): OpenedSets {
  const textsOf = (which: readonly number[]): string[] =>
    which.flatMap((set) => {
      const { items } = sets[set];
      return items.kind === 'texts' ? items.texts : [];
    });
  const { threads, seed } = settings;
  return {
    items: sets.map((_, set) => textsOf([set]).length),
    columns: 0,
    duplicates: sets.map((_, set) => textsOf([set]).length - new Set(textsOf([set])).size),
    async open(which) {
      const texts = textsOf(which);
      const plan = planFor(settings, texts.length, 0);
      const options = { ...weightsOf(sets, which), threads, seed };
      if (settings.kernel === 'match' && plan.method === 'counts')
        return { source: matchSource(equalityClasses(texts), options.weights), plan };
      if (settings.kernel === 'ngram') {
        const { normalize, ngrams } = settings;
        const rows = ngramFeatures(texts, { ...ngrams, normalize }, nameOf(sets, which));
        const source = plan.method === 'slq' ? sparseQuadrature(rows, settings, options.weights) : undefined;
        return { source: source ?? gramSource(sparseGram(rows), texts.length, options), plan };
      }
      const k = settings.kernel === 'edit' ? editSimilarity(texts) : matchMatrix(texts);
      return { source: gramSource(k, texts.length, options), plan };
    },
    close: () => undefined,
  };
}

function matchMatrix(texts: readonly string[]): Float64Array {
  const { classOf } = equalityClasses(texts);
  const n = texts.length;
  return Float64Array.from({ length: n * n }, (_, at) => (classOf[Math.floor(at / n)] === classOf[at % n] ? 1 : 0));
}

/** `sqrt(p_i)`, `1 / sqrt(n)` each without weights. */
function rootWeights(items: number, weights: Float64Array | undefined): Float64Array {
  return weights ? weights.map(Math.sqrt) : new Float64Array(items).fill(1 / Math.sqrt(items));
}

function sparseQuadrature(rows: SparseRows, settings: DiversitySettings, weights?: Float64Array): KernelSource {
  const items = rows.starts.length - 1;
  const { threads } = settings;
  const source = quadratureSource(
    {
      operator: sparseOperator(rows, rootWeights(items, weights)),
      subset: async (taken) => gramSource(sparseGram(takeSparseRows(rows, taken)), taken.length, { threads }),
    },
    settings,
  );
  return {
    ...source,
    similarity: (i, j) => sparseDot(rows, i, j),
    meanPower: async (q) =>
      items <= MOST_PAIRED_TEXTS
        ? sparsePowerSum(rows, weights ?? new Float64Array(items).fill(1 / items), q)
        : undefined,
  };
}

async function featureSets(
  sets: readonly DiversitySet[],
  settings: DiversitySettings,
  products: TiledProducts,
): Promise<OpenedSets> {
  const matrices: FeatureMatrix[] = [];
  const close = (): void => {
    for (const matrix of matrices) matrix.close();
  };
  try {
    const duplicates: number[] = [];
    for (const { items, name } of sets) {
      if (items.kind === 'texts') throw new RangeError('texts among features');
      const matrix = { ...(await openFeatures(items.source)), name };
      matrices.push(matrix);
      duplicates.push((await scanRows(matrix, settings.kernel === 'cosine')).duplicates);
    }
    const bandwidth =
      settings.kernel === 'rbf' ? chooseBandwidth(stackedRows(matrices), settings.sigma, settings.seed) : undefined;
    const columns = matrices[0].columns;
    return {
      items: matrices.map(({ rows }) => rows),
      columns: settings.kernel === 'matrix' ? 0 : columns,
      duplicates,
      ...(bandwidth && { bandwidth }),
      async open(which, halved = false) {
        const matrix = stackedRows(which.map((set) => matrices[set]));
        const pointBytes = matrix.rows * columns * (arithmetic(settings, matrix) === 'f32' ? 4 : 8);
        const plan = planFor(settings, matrix.rows, columns, pointBytes);
        const weights = weightsOf(sets, which).weights;
        const source =
          settings.kernel === 'matrix'
            ? openMatrix(matrix, settings, weights)
            : settings.kernel === 'cosine'
              ? await openCosine(matrix, plan, settings, products, weights, halved)
              : await openGaussian(matrix, plan, settings, products, bandwidth?.sigma ?? 1, weights, halved);
        return { source, plan };
      },
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

function openMatrix(matrix: FeatureMatrix, settings: DiversitySettings, weights?: Float64Array): KernelSource {
  const { rows, columns, name } = matrix;
  if (rows !== columns)
    throw new InputError(`${name}: [${rows}, ${columns}] is no similarity matrix; it must be square`);
  const k = loadMatrix(matrix);
  checkSimilarity(k, rows, { name, normalize: settings.normalize, ...(matrix.dtype !== 'F64' && { tolerance: 1e-6 }) });
  const { threads, seed } = settings;
  return gramSource(k, rows, { ...(weights && { weights }), threads, seed });
}

/** Memory that moments of parts may take: a quarter of what there is, and no more than brings digits. */
const partShare = (settings: DiversitySettings): number => Math.min(2 ** 30, Math.floor(settings.maxMemoryBytes / 4));

/**
 * Arithmetic of random features and of quadrature: as asked for, else single precision for rows that are stored in it. Its
 * rounding fills null spaces with eigenvalues of 1e-7 of the largest, which orders below 1 would count.
 */
function arithmetic({ precision, orders }: DiversitySettings, { dtype }: FeatureMatrix): 'f32' | 'f64' {
  if (precision !== 'auto') return precision;
  return fitsSingle(dtype) && orders.every((q) => q >= 1) ? 'f32' : 'f64';
}

/** What quadrature may hold beside the points and their scaled copy. */
function besidePoints(settings: DiversitySettings, { data }: Points): DiversitySettings {
  return { ...settings, maxMemoryBytes: settings.maxMemoryBytes - 2 * data.byteLength };
}

async function openCosine(
  matrix: FeatureMatrix,
  plan: KernelPlan,
  settings: DiversitySettings,
  products: TiledProducts,
  weights: Float64Array | undefined,
  halved: boolean,
): Promise<KernelSource> {
  const { threads, seed, precision } = settings;
  const options = { ...(weights && { weights }), seed, products, partBytes: partShare(settings) };
  const rows = unitRows(matrix);
  // Of exact paths all orders shall be exact, unless asked otherwise.
  if (plan.method === 'dual') return dualSource(rows, { ...options, precision: precision === 'f32' ? 'f32' : 'f64' });
  if (plan.method === 'nystrom') {
    const landmarks = drawLandmarks(rows.rows, landmarksOf(settings, halved), seed);
    const map = await nystromMap(rows, { kind: 'cosine' }, landmarks, products);
    return withCosinePairs(featureSource(rows, map, { ...options, path: 'nystrom' }), rows, products, weights);
  }
  if (plan.method === 'slq') {
    const arithmeticOf = arithmetic(settings, matrix);
    const points = await loadPoints(rows, arithmeticOf);
    const factors = rootWeights(rows.rows, weights);
    const source = quadratureSource(
      {
        operator: linearOperator(points, { products, factors, precision: arithmeticOf }),
        subset: async (taken) => gramSource(await unitGram(rowsOf(rows, taken), threads), taken.length, { threads }),
      },
      besidePoints(settings, points),
    );
    return withCosinePairs(source, rows, products, weights);
  }
  return gramSource(await unitGram(rows, threads), rows.rows, { ...options, threads });
}

const landmarksOf = ({ landmarks }: DiversitySettings, halved: boolean): number =>
  halved ? Math.max(1, landmarks >> 1) : landmarks;

async function openGaussian(
  matrix: FeatureMatrix,
  plan: KernelPlan,
  settings: DiversitySettings,
  products: TiledProducts,
  sigma: number,
  weights: Float64Array | undefined,
  halved: boolean,
): Promise<KernelSource> {
  const source = await gaussianSpectrum(matrix, plan, settings, products, sigma, weights, halved);
  if (source.path === 'exact') return source as KernelSource;
  return withGaussianPairs(source, matrix, sigma, products, weights);
}

async function gaussianSpectrum(
  matrix: FeatureMatrix,
  { method }: KernelPlan,
  settings: DiversitySettings,
  products: TiledProducts,
  sigma: number,
  weights: Float64Array | undefined,
  halved: boolean,
): Promise<SpectralSource> {
  const { threads, seed, frequencies } = settings;
  const { rows: n, columns: d } = matrix;
  const precision = arithmetic(settings, matrix);
  const options = { ...(weights && { weights }), seed, products, precision, partBytes: partShare(settings) };
  if (method === 'fkea') {
    const omega = drawFrequencies(d, frequencies, sigma, seed);
    const map = fourierMap(matrix, omega, frequencies, { products, precision, sigma });
    return featureSource(matrix, map, { ...options, path: 'fkea' });
  }
  if (method === 'nystrom') {
    const landmarks = drawLandmarks(n, landmarksOf(settings, halved), seed);
    const map = await nystromMap(matrix, { kind: 'gaussian', sigma }, landmarks, products);
    return featureSource(matrix, map, { ...options, path: 'nystrom' });
  }
  if (method === 'slq') {
    const points = await loadPoints(matrix, precision);
    const gram = async (taken: Int32Array): Promise<KernelSource> => {
      const k = await gaussianGram(loadMatrix(matrix, taken), taken.length, d, sigma, products);
      return gramSource(k, taken.length, { threads });
    };
    const operator = gaussianOperator(points, sigma, { products, precision }, rootWeights(n, weights));
    return quadratureSource({ operator, subset: gram }, besidePoints(settings, points));
  }
  return gramSource(await gaussianGram(loadMatrix(matrix), n, d, sigma, products), n, { ...options, threads });
}

/** All rows in memory. */
async function loadPoints(matrix: FeatureMatrix, precision: 'f32' | 'f64'): Promise<Points> {
  const { rows: n, columns: d } = matrix;
  const data = precision === 'f32' ? new Float32Array(n * d) : new Float64Array(n * d);
  await eachBlock(matrix, LOADED_ROWS, precision, (block: Floats, start) => data.set(block, start * d));
  return { data, n, d };
}
