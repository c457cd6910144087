import type { FeatureMatrix } from '../formats/feature-matrix.js';
import { squaredDistances } from '../linalg/gram.js';
import type { TiledProducts } from '../linalg/tiled-products.js';
import {
  type Bandwidth,
  type BandwidthRule,
  bandwidthName,
  bandwidthRows,
  bandwidthWarning,
  chooseBandwidth,
} from './bandwidth.js';
import { RULE_THRESHOLD, type SweepRow, sweepCells } from './bandwidth-sweep.js';
import type { Categories } from './categories.js';
import { chooseMethod, type EntropyEstimate } from './entropy-estimate.js';
import { estimateEntropy } from './entropy-methods.js';
import { type CategoryTerm, drawSubsets, mutualInformationTerms } from './mutual-information.js';
import { distancesToAll, doubles, type LoadedPoints, loadPoints, type PointCloud, takePoints } from './points.js';
import type { RepresentationSettings, SweptBandwidth } from './settings.js';
import { type ShapeMeasures, shapeMeasures } from './shape-measures.js';
import { shareAbove } from './spectral-entropy.js';
import { type CurvePoint, halvedSizes, subsampleCurve } from './subsample-curve.js';
import { type VariantBits, variantEntropies } from './variant-entropies.js';

/** Mutual information with one reference. */
export interface Information {
  readonly reference: string;
  readonly kind: Categories['kind'];
  readonly terms: readonly CategoryTerm[];
}

/** Everything that is measured on one matrix of features. */
export interface SetMeasures {
  readonly name: string;
  readonly layer: number | 'final' | null;
  readonly dtype: string;
  /** Rows of the file or layer, and columns. */
  readonly rows: number;
  readonly columns: number;
  /** Rows that were used, and which, where not all were. */
  readonly used: number;
  readonly indices: Int32Array | null;
  readonly duplicates: number;
  readonly constantColumns: number;
  readonly bandwidth: Bandwidth;
  readonly estimate: EntropyEstimate;
  /** Share of the powered eigenvalues above 0.01, for every time; null where not all eigenvalues are known. */
  readonly shares: Float64Array | null;
  readonly shape: ShapeMeasures;
  readonly variants: VariantBits;
  readonly sweep: readonly SweepRow[];
  readonly curve: readonly CurvePoint[];
  readonly information: readonly Information[];
  readonly warnings: readonly string[];
}

/** Categories of the rows that are used, for each reference; given the rows of a set, so that they are made once. */
export type CategoriesOf = (
  rows: number,
  indices: Int32Array | null,
  name: string,
) => Promise<readonly { readonly reference: string; readonly categories: Categories }[]>;

export interface MeasureContext {
  readonly settings: RepresentationSettings;
  readonly products: TiledProducts;
  readonly categoriesOf: CategoriesOf;
  /** Says what is being done now; called before each spectrum. */
  step(label: string): void;
}

/** A bandwidth by a rule, for points in memory. */
async function bandwidthOf(rule: BandwidthRule, cloud: PointCloud, context: MeasureContext): Promise<Bandwidth> {
  const { settings, products } = context;
  const rows = bandwidthRows(cloud.n, settings.seed);
  const sample = rows.length === cloud.n ? { ...cloud, data: doubles(cloud) } : takePoints(cloud, rows);
  const among = await squaredDistances(doubles(sample), sample.n, sample.d, products);
  return chooseBandwidth(rule, cloud.n, rows, among, (block) => distancesToAll(cloud, block, products));
}

/**
 * All figures of one matrix.
 * @throws InputError for rows that are not finite, and for settings that the rows cannot serve
 */
export async function measureSet(
  matrix: FeatureMatrix,
  layer: number | 'final' | null,
  context: MeasureContext,
): Promise<SetMeasures> {
  const { settings, products } = context;
  const { name } = matrix;
  const kept = Math.min(matrix.rows, settings.mostRows);
  const method = chooseMethod(settings.method, kept, matrix.columns, settings.maxMemoryBytes, name);
  context.step(`${name}: read`);
  const precision = method === 'exact' || matrix.dtype === 'F64' ? 'f64' : 'f32';
  const loaded = await loadPoints(matrix, settings.mostRows, settings.seed, precision);
  const { points } = loaded;
  const bandwidth = await bandwidthOf(settings.sigma, points, context);
  const estimate = (cloud: PointCloud, sigma: number): Promise<EntropyEstimate> =>
    estimateEntropy(cloud, sigma, method, { products, settings });
  context.step(`${name}: spectrum`);
  const whole = await estimate(points, bandwidth.sigma);
  const { eigenvalues } = whole;
  const bitsOfRows = async (rows: Int32Array): Promise<Float64Array> => {
    if (rows.length === points.n) return whole.bits;
    return (await estimate(takePoints(points, rows), bandwidth.sigma)).bits;
  };
  context.step(`${name}: ranks`);
  const shape = shapeMeasures(points, settings.threads);
  const variants = await variantEntropies(matrix, points, bandwidth.sigma, settings, products);
  const sweep = await sweepBandwidths(points, bandwidth, estimate, context, name);
  const sizes =
    settings.curveSizes === 'auto' ? halvedSizes(points.n) : settings.curveSizes.filter((size) => size <= points.n);
  if (sizes.length > 0) context.step(`${name}: curve`);
  const curve = await subsampleCurve(points.n, sizes, settings.repetitions, settings.seed, bitsOfRows);
  const information: Information[] = [];
  for (const { reference, categories } of await context.categoriesOf(matrix.rows, loaded.indices, name)) {
    context.step(`${name}: information with ${reference}`);
    const subsets = (category: number, size: number): Int32Array[] =>
      drawSubsets(points.n, size, settings.repetitions, settings.seed, category);
    const terms = await mutualInformationTerms(categories, subsets, bitsOfRows);
    information.push({ reference, kind: categories.kind, terms });
  }
  return {
    name,
    layer,
    dtype: matrix.dtype,
    rows: matrix.rows,
    columns: matrix.columns,
    used: points.n,
    indices: loaded.indices,
    duplicates: loaded.duplicates,
    constantColumns: loaded.constantColumns,
    bandwidth,
    estimate: whole,
    shares:
      eigenvalues?.length === points.n
        ? Float64Array.from(settings.times, (t) => shareAbove(eigenvalues, t, RULE_THRESHOLD))
        : null,
    shape,
    variants,
    sweep,
    curve,
    information,
    warnings: warningsOf(name, loaded, bandwidth, whole, shape, information),
  };
}

/** Entropies at other bandwidths; those of the chosen one are not computed again. */
async function sweepBandwidths(
  cloud: PointCloud,
  chosen: Bandwidth,
  estimate: (cloud: PointCloud, sigma: number) => Promise<EntropyEstimate>,
  context: MeasureContext,
  name: string,
): Promise<SweepRow[]> {
  const { settings } = context;
  const rows: SweepRow[] = [];
  for (const swept of settings.sweep) {
    context.step(`${name}: sweep ${sweptName(swept)}`);
    const sigma =
      swept.kind === 'multiple' ? swept.factor * chosen.sigma : (await bandwidthOf(swept, cloud, context)).sigma;
    const { bits, eigenvalues, meanSimilarity } = await estimate(cloud, sigma);
    const all = eigenvalues?.length === cloud.n ? eigenvalues : null;
    const cells = sweepCells(all, settings.times, bits);
    rows.push({ name: sweptName(swept), sigma, meanSimilarity, cells });
  }
  return rows.sort((a, b) => a.sigma - b.sigma);
}

export function sweptName(swept: SweptBandwidth): string {
  return swept.kind === 'multiple' ? `x${swept.factor}` : bandwidthName(swept);
}

function warningsOf(
  name: string,
  loaded: LoadedPoints,
  bandwidth: Bandwidth,
  estimate: EntropyEstimate,
  shape: ShapeMeasures,
  information: readonly Information[],
): string[] {
  const warnings: string[] = [];
  const { n, d } = loaded.points;
  if (n === 1) warnings.push(`${name}: one row: every entropy is 0`);
  if (loaded.duplicates > 0) {
    warnings.push(
      `${name}: ${loaded.duplicates} of ${n} rows equal an earlier one; they add to no spectrum, and lower the entropy ` +
        'against log2 n',
    );
  }
  if (loaded.constantColumns > 0) warnings.push(`${name}: ${loaded.constantColumns} of ${d} columns are constant`);
  if (n > 1 && shape.covarianceShares.every((share) => share === 0)) {
    warnings.push(`${name}: the rows do not vary: von Neumann entropy 0`);
  }
  const range = bandwidthWarning(name, bandwidth, estimate.meanSimilarity);
  if (range !== undefined && n > 1) warnings.push(range);
  for (const { reference, terms } of information) {
    const single = terms.filter(({ count }) => count === 1).length;
    if (single > 0) warnings.push(`${name}: ${single} categories of ${reference} have one row, whose entropy is 0`);
    if (terms.length === 1) warnings.push(`${name}: ${reference} has one category: mutual information is 0`);
  }
  return warnings;
}
