import { InputError } from '../../errors.js';
import { decreasingFit, softSortRows } from './soft-sort.js';

/** Maps a row of quantiles `[m]` in place to one that does not cross. */
export type RowMap = (row: Float64Array) => void;

const cummax: RowMap = (row) => {
  for (let j = 1; j < row.length; j++) row[j] = Math.max(row[j], row[j - 1]);
};

const cummin: RowMap = (row) => {
  for (let j = row.length - 2; j >= 0; j--) row[j] = Math.min(row[j], row[j + 1]);
};

/** Increasing least-squares fit (pool adjacent violators). */
const isotonic: RowMap = (row) => {
  const fit = decreasingFit(row.map((value) => -value));
  for (let j = 0; j < row.length; j++) row[j] = -fit[j];
};

/** From index floor(m / 2): running minimum going down, running maximum going up. */
const sweep: RowMap = (row) => {
  const centre = Math.floor(row.length / 2);
  for (let j = centre - 1; j >= 0; j--) row[j] = Math.min(row[j], row[j + 1]);
  for (let j = centre + 1; j < row.length; j++) row[j] = Math.max(row[j], row[j - 1]);
};

const meanOfBoth: RowMap = (row) => {
  const low = row.slice();
  cummin(low);
  cummax(row);
  for (let j = 0; j < row.length; j++) row[j] = (row[j] + low[j]) / 2;
};

/**
 * Maps that end crossings. Sorting and the isotonic fit never raise the pinball loss of any sample summed over levels
 * (Chernozhukov, Fernandez-Val & Galichon 2010; Fakoor et al. 2023, proposition 1); of the others no such thing holds.
 */
export const NON_CROSSING: Readonly<Record<string, RowMap>> = {
  none: () => undefined,
  sort: (row) => {
    row.sort();
  },
  isotonic,
  sweep,
  cummax,
  'mean-cummin-cummax': meanOfBoth,
};

export type NonCrossing = 'none' | 'sort' | 'isotonic' | 'sweep' | 'cummax' | 'mean-cummin-cummax';

/** How `sort` is done: the hard sort, or one of the two soft sorts. */
export const SORTS = ['hard', 'soft-library', 'soft-published'] as const;
export type Sort = (typeof SORTS)[number];

export const NON_CROSSINGS = Object.keys(NON_CROSSING) as NonCrossing[];

/** Strength of the soft sort in the authors' code. */
export const SOFT_SORT_EPSILON = 0.1;

/**
 * Rows of quantiles without crossings. A row with a missing cell is mapped without that cell.
 * @param quantiles `[n, m]`, left as they are
 * @returns `[n, m]`
 * @throws InputError for an unknown map
 */
export function withoutCrossing(
  quantiles: Float64Array,
  m: number,
  map: NonCrossing,
  sort: Sort = 'hard',
): Float64Array {
  if (map === 'sort' && sort !== 'hard') {
    if (quantiles.some(Number.isNaN)) throw new InputError(`--sort ${sort}: rows with missing quantiles need hard`);
    return softSortRows(quantiles, m, SOFT_SORT_EPSILON, sort === 'soft-library' ? 'library' : 'published');
  }
  const apply = NON_CROSSING[map];
  if (apply === undefined) throw new InputError(`${map}: unknown; one of ${NON_CROSSINGS.join(', ')} is needed`);
  const result = quantiles.slice();
  for (let start = 0; start < result.length; start += m) {
    const row = result.subarray(start, start + m);
    if (!row.some(Number.isNaN)) {
      apply(row);
      continue;
    }
    const places = Array.from(row.keys()).filter((j) => !Number.isNaN(row[j]));
    const present = Float64Array.from(places, (j) => row[j]);
    apply(present);
    places.forEach((j, at) => {
      row[j] = present[at];
    });
  }
  return result;
}

/** Share of adjacent pairs of levels with q[j + 1] < q[j], and of rows with such a pair. */
export function crossingRate(quantiles: ArrayLike<number>, m: number): { pairs: number; rows: number } {
  const n = quantiles.length / m;
  let pairs = 0;
  let rows = 0;
  for (let i = 0; i < n; i++) {
    const before = pairs;
    for (let j = 1; j < m; j++) if (quantiles[i * m + j] < quantiles[i * m + j - 1]) pairs++;
    if (pairs > before) rows++;
  }
  return { pairs: m > 1 ? pairs / (n * (m - 1)) : 0, rows: rows / n };
}

/** The largest gap between adjacent sorted entries of any row: beyond 1 the library's soft sort distorts. */
export function largestGap(quantiles: ArrayLike<number>, m: number): number {
  const row = new Float64Array(m);
  let largest = 0;
  for (let start = 0; start < quantiles.length; start += m) {
    for (let j = 0; j < m; j++) row[j] = quantiles[start + j];
    row.sort();
    for (let j = 1; j < m; j++) largest = Math.max(largest, row[j] - row[j - 1]);
  }
  return largest;
}
