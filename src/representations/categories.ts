import { InputError } from '../errors.js';
import type { Labels } from '../formats/labels.js';
import { scalarBins } from './binned-entropy.js';

/** A partition of the rows, by which mutual information is conditioned. */
export interface Categories {
  /** Category of every row, an index into `names`. */
  readonly codes: Int32Array;
  readonly names: readonly string[];
  /** How the categories came about. */
  readonly kind: 'classes' | 'bins' | 'clusters';
}

/** Categories of whole numbers or of any codes, in ascending order; codes that do not occur are left out. */
export function categoriesOfCodes(
  values: ArrayLike<number>,
  kind: Categories['kind'],
  nameOf: (code: number) => string = String,
): Categories {
  const present = [...new Set(Array.from(values))].sort((a, b) => a - b);
  const index = new Map(present.map((value, i) => [value, i]));
  return { codes: Int32Array.from(values, (value) => index.get(value) ?? 0), names: present.map(nameOf), kind };
}

/**
 * Categories of labels: classes as they are, numbers min-max scaled and cut into bins of equal width, of which the empty
 * ones are left out. Bins are named by their number, from 1.
 * @throws InputError when all numbers are equal
 */
export function categoriesOfLabels(labels: Labels, bins: number, name: string): Categories {
  if (labels.kind === 'classes') {
    return categoriesOfCodes(labels.codes, 'classes', (code) => labels.names[code]);
  }
  return categoriesOfCodes(scalarBins(labels.values, bins, name), 'bins');
}

/** Rows of every category, ascending. */
export function rowsByCategory({ codes, names }: Categories): Int32Array[] {
  const counts = new Int32Array(names.length);
  for (const code of codes) counts[code]++;
  const rows = Array.from(counts, (count) => new Int32Array(count));
  const filled = new Int32Array(names.length);
  codes.forEach((code, row) => {
    rows[code][filled[code]++] = row;
  });
  return rows;
}

/** Categories of the rows `indices`, in that order; those without rows are left out. */
export function takeCategories(categories: Categories, indices: Int32Array): Categories {
  const taken = Int32Array.from(indices, (row) => categories.codes[row]);
  return categoriesOfCodes(taken, categories.kind, (code) => categories.names[code]);
}

/** @throws InputError when there are not as many categories as rows */
export function checkCategoryCount(categories: Categories, rows: number, reference: string, name: string): void {
  if (categories.codes.length === rows) return;
  throw new InputError(
    `${reference}: ${categories.codes.length} rows, but ${name} has ${rows}; mutual information needs the same rows`,
  );
}
