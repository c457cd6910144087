import { createRandom } from '../random.js';
import { type Categories, rowsByCategory } from './categories.js';

/** What one category adds to the mutual information. */
export interface CategoryTerm {
  readonly name: string;
  readonly count: number;
  /** Share p_b of the rows. */
  readonly weight: number;
  /** DSE of the rows of the category, bits, for every diffusion time. */
  readonly givenBits: Float64Array;
  /** DSE of random subsets of the same size, bits: `[repetitions]` of `[times]`. */
  readonly subsetBits: readonly Float64Array[];
}

/** Mutual information at one diffusion time. */
export interface MutualInformation {
  /** Not clamped: slightly negative values say that there is none. */
  readonly bits: number;
  /** Standard error from the spread over random subsets; NaN for one repetition. */
  readonly standardError: number;
  /** `p_b (mean of subsets - DSE given b)` of every category; they add up to `bits`. */
  readonly termBits: Float64Array;
}

/** Random subsets of `size` of n rows without repetition, ascending; the stream is the category's own. */
export function drawSubsets(
  n: number,
  size: number,
  repetitions: number,
  seed: number,
  category: number,
): Int32Array[] {
  const random = createRandom(seed).fork(SUBSET_STREAM).fork(category);
  return Array.from({ length: repetitions }, (_, r) => random.fork(r).permutation(n).slice(0, size).sort());
}

const SUBSET_STREAM = 0x6d_69;

/**
 * Terms of `DSMI(Z; B) = sum_b p_b [mean_r DSE(random n_b rows of Z) - DSE(Z | B = b)]` (Liao et al. 2023): entropies of
 * the same number of points are compared, because DSE grows with it.
 * @param subsets the random rows for a category of this size; drawn from all rows
 * @param entropies DSE, bits, of some rows, for every diffusion time; 0 for one row
 */
export async function mutualInformationTerms(
  categories: Categories,
  subsets: (category: number, size: number) => readonly Int32Array[],
  entropies: (rows: Int32Array) => Promise<Float64Array>,
): Promise<CategoryTerm[]> {
  const n = categories.codes.length;
  const terms: CategoryTerm[] = [];
  for (const [b, rows] of rowsByCategory(categories).entries()) {
    const givenBits = await entropies(rows);
    const subsetBits: Float64Array[] = [];
    for (const subset of subsets(b, rows.length)) subsetBits.push(await entropies(subset));
    terms.push({ name: categories.names[b], count: rows.length, weight: rows.length / n, givenBits, subsetBits });
  }
  return terms;
}

/** Mutual information at the diffusion time of index `time`. */
export function mutualInformation(terms: readonly CategoryTerm[], time: number): MutualInformation {
  const termBits = new Float64Array(terms.length);
  let bits = 0;
  let variance = 0;
  terms.forEach(({ weight, givenBits, subsetBits }, b) => {
    const repetitions = subsetBits.length;
    const mean = subsetBits.reduce((sum, values) => sum + values[time], 0) / repetitions;
    const spread = subsetBits.reduce((sum, values) => sum + (values[time] - mean) ** 2, 0) / (repetitions - 1);
    termBits[b] = weight * (mean - givenBits[time]);
    bits += termBits[b];
    variance += (weight * weight * spread) / repetitions;
  });
  return { bits, standardError: Math.sqrt(variance), termBits };
}
