import { InputError } from '../errors.js';
import { openFeatures } from '../features/open-features.js';
import type { FeatureMatrix } from '../formats/feature-matrix.js';
import { checkLabelCount } from '../formats/labels.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { configureKernels } from '../kernels/native.js';
import { openProducts, type TiledProducts } from '../linalg/tiled-products.js';
import {
  type Categories,
  categoriesOfCodes,
  categoriesOfLabels,
  checkCategoryCount,
  takeCategories,
} from './categories.js';
import { pairwiseCka } from './layer-similarity.js';
import { type CategoriesOf, measureSet, type SetMeasures } from './measure-set.js';
import { pointsOf, subsampleRows } from './points.js';
import type { Reference, RepresentationSet, RepresentationSettings } from './settings.js';
import { spectralClusters } from './spectral-clustering.js';

export interface RepresentationArguments {
  readonly sets: readonly RepresentationSet[];
  readonly references: readonly Reference[];
  readonly settings: RepresentationSettings;
}

export interface RepresentationMeasures {
  readonly sets: readonly SetMeasures[];
  /** Linear CKA of all pairs `[m, m]`; null for one set, or sets over different rows. */
  readonly similarity: Float64Array | null;
  readonly warnings: readonly string[];
}

/** What the job says while it works. */
export interface RepresentationProgress {
  readonly done: number;
  readonly label: string;
}

async function withMatrix<R>(set: RepresentationSet, work: (matrix: FeatureMatrix) => Promise<R>): Promise<R> {
  const matrix = await openFeatures(set.source);
  try {
    return await work(matrix);
  } finally {
    matrix.close();
  }
}

/** Categories of the rows that are used: of labels as they are, of features by bins or by spectral clustering. */
async function makeCategories(
  reference: Reference,
  rows: number,
  indices: Int32Array | null,
  name: string,
  settings: RepresentationSettings,
  products: TiledProducts,
  warn: (message: string) => void,
): Promise<Categories> {
  if (reference.kind === 'labels') {
    checkLabelCount(reference.labels, rows, reference.name, name);
    const categories = categoriesOfLabels(reference.labels, settings.categories, reference.name);
    return indices === null ? categories : takeCategories(categories, indices);
  }
  const matrix = await openFeatures(reference.source);
  try {
    if (matrix.rows !== rows) {
      throw new InputError(
        `${reference.name}: ${matrix.rows} rows, but ${name} has ${rows}; mutual information needs the same rows`,
      );
    }
    const { data, n, d } = pointsOf(matrix, indices ?? undefined);
    if (d === 1) {
      if (data.every((value) => Number.isInteger(value))) return categoriesOfCodes(data, 'classes');
      const values = Float64Array.from(data);
      return categoriesOfLabels({ kind: 'numbers', values }, settings.categories, reference.name);
    }
    if (n < settings.categories) {
      throw new InputError(`${reference.name}: ${n} rows for ${settings.categories} clusters; lower --clusters`);
    }
    const clusters = await spectralClusters(
      Float64Array.from(data),
      n,
      d,
      settings.categories,
      settings.seed,
      products,
    );
    if (clusters.components > settings.categories) {
      warn(
        `${reference.name}: its neighbour graph has ${clusters.components} components, more than the ` +
          `${settings.categories} clusters, which are then one choice of many; raise --clusters or give labels`,
      );
    }
    return categoriesOfCodes(clusters.codes, 'clusters');
  } finally {
    matrix.close();
  }
}

/**
 * Measures all sets, one after another; runs in a thread of its own.
 * @throws InputError for features, labels or settings that do not fit each other
 */
export async function measureRepresentations(
  { sets, references, settings }: RepresentationArguments,
  progress: (value: unknown) => void,
): Promise<RepresentationMeasures> {
  configureKernels({ threads: settings.threads });
  const products = openProducts({ threads: settings.threads });
  const warnings: string[] = [];
  const made = new Map<string, Categories>();
  const categoriesOf: CategoriesOf = async (rows, indices, name) => {
    const found = [];
    for (const reference of references) {
      const key = `${reference.name} ${indices?.length ?? rows}`;
      let categories = made.get(key);
      if (categories === undefined) {
        const warn = (message: string): unknown => warnings.push(message);
        categories = await makeCategories(reference, rows, indices, name, settings, products, warn);
        made.set(key, categories);
      }
      checkCategoryCount(categories, indices?.length ?? rows, reference.name, name);
      found.push({ reference: reference.name, categories });
    }
    return found;
  };
  let done = 0;
  const step = (label: string): void => progress({ done: done++, label } satisfies RepresentationProgress);
  try {
    const measures: SetMeasures[] = [];
    for (const set of sets) {
      measures.push(
        await withMatrix(set, (matrix) => measureSet(matrix, set.layer, { settings, products, categoriesOf, step })),
      );
    }
    const similarity = await similarityOf(sets, measures, settings, step);
    return { sets: measures, similarity, warnings: [...warnings, ...measures.flatMap((set) => set.warnings)] };
  } finally {
    await products.close();
  }
}

/** CKA needs the same rows in all sets. */
async function similarityOf(
  sets: readonly RepresentationSet[],
  measures: readonly SetMeasures[],
  settings: RepresentationSettings,
  step: (label: string) => void,
): Promise<Float64Array | null> {
  const rows = measures[0]?.rows ?? 0;
  if (sets.length < 2 || rows < 2 || measures.some((set) => set.rows !== rows)) return null;
  const indices = subsampleRows(rows, settings.mostRows, settings.seed) ?? undefined;
  const open = (index: number) => withMatrix(sets[index], async (matrix) => pointsOf(matrix, indices));
  return pairwiseCka(sets.length, open, settings.threads, () => step('similarity of the sets'));
}

export const MEASURE_REPRESENTATIONS: ComputeReference<RepresentationArguments, RepresentationMeasures> = {
  module: import.meta.url,
  job: measureRepresentations,
};
