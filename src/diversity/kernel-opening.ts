import { InputError } from '../errors.js';
import { openFeatures } from '../features/open-features.js';
import { type FeatureMatrix, loadMatrix } from '../formats/feature-matrix.js';
import { gaussianOperator, linearOperator } from '../linalg/kernel-operator.js';
import type { TiledProducts } from '../linalg/tiled-products.js';
import { type Bandwidth, chooseBandwidth } from './bandwidth.js';
import { editSimilarity } from './edit-similarity.js';
import { equalityClasses } from './exact-match.js';
import { fourierRows, nystromRows } from './feature-maps.js';
import { featureSource } from './feature-source.js';
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

function planFor(settings: DiversitySettings, items: number, columns: number): KernelPlan {
  const { kernel, method, maxMemoryBytes, frequencies, landmarks } = settings;
  const plan = planKernel({ kernel, method, items, columns, maxMemoryBytes, frequencies, landmarks });
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
  return quadratureSource(
    {
      operator: sparseOperator(rows, rootWeights(items, weights)),
      subset: async (taken) => gramSource(sparseGram(takeSparseRows(rows, taken)), taken.length, { threads }),
      similarity: (i, j) => sparseDot(rows, i, j),
      meanPower: async (q) =>
        items <= MOST_PAIRED_TEXTS
          ? sparsePowerSum(rows, weights ?? new Float64Array(items).fill(1 / items), q)
          : undefined,
    },
    settings,
  );
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
        const plan = planFor(settings, matrix.rows, columns);
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

async function openCosine(
  matrix: FeatureMatrix,
  plan: KernelPlan,
  settings: DiversitySettings,
  products: TiledProducts,
  weights: Float64Array | undefined,
  halved: boolean,
): Promise<KernelSource> {
  const { threads, seed, precision } = settings;
  const options = { ...(weights && { weights }), threads, seed, precision, partBytes: partShare(settings) };
  const rows = unitRows(matrix);
  if (plan.method === 'dual') return featureSource(rows, { ...options, path: 'dual' });
  if (plan.method === 'nystrom') {
    const mapped = await nystromRows(rows, { kernel: 'cosine' }, landmarksOf(settings, halved), seed, products);
    return featureSource(mapped, { ...options, path: 'nystrom' });
  }
  if (plan.method === 'slq') {
    const points = { data: loadMatrix(rows), n: rows.rows, d: rows.columns };
    const pairs = featureSource(rows, { ...options, path: 'dual' });
    return quadratureSource(
      {
        operator: linearOperator(points, { products, factors: rootWeights(rows.rows, weights) }),
        subset: async (taken) => gramSource(await unitGram(rowsOf(rows, taken), threads), taken.length, { threads }),
        similarity: pairs.similarity,
        meanPower: (q) => (q === 2 ? Promise.resolve(undefined) : pairs.meanPower(q)),
      },
      settings,
    );
  }
  return gramSource(await unitGram(rows, threads), rows.rows, options);
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
  const { threads, seed, precision, frequencies } = settings;
  const options = { ...(weights && { weights }), threads, seed, precision, partBytes: partShare(settings) };
  const { rows: n, columns: d } = matrix;
  if (plan.method === 'fkea') {
    const mapped = fourierRows(matrix, sigma, frequencies, seed, threads);
    return withGaussianPairs(featureSource(mapped, { ...options, path: 'fkea' }), matrix, sigma, products, weights);
  }
  if (plan.method === 'nystrom') {
    const mapped = await nystromRows(matrix, { kernel: 'rbf', sigma }, landmarksOf(settings, halved), seed, products);
    return withGaussianPairs(featureSource(mapped, { ...options, path: 'nystrom' }), matrix, sigma, products, weights);
  }
  const x = loadMatrix(matrix);
  if (plan.method === 'slq') {
    const gram = async (taken: Int32Array): Promise<KernelSource> => {
      const k = await gaussianGram(loadMatrix(matrix, taken), taken.length, d, sigma, products);
      return gramSource(k, taken.length, { threads });
    };
    const base = quadratureSource(
      {
        operator: gaussianOperator({ data: x, n, d }, sigma, { products }, rootWeights(n, weights)),
        subset: gram,
        similarity: () => Number.NaN,
        meanPower: async () => undefined,
      },
      settings,
    );
    return withGaussianPairs(base, matrix, sigma, products, weights);
  }
  return gramSource(await gaussianGram(x, n, d, sigma, products), n, options);
}
