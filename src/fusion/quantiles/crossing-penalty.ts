import { quantileOfSorted } from '../../linalg/quantile-sketch.js';

/**
 * Margins delta_lj that the quantile at a higher level must keep from a lower one (Fakoor et al. 2023, section 4.3):
 * one number for all pairs, or relu(delta_j - delta_l) times a scale from one number a level.
 */
export type Margins =
  | { readonly kind: 'single'; readonly margin: number }
  | { readonly kind: 'levels'; readonly margins: ArrayLike<number>; readonly scale: number };

/** Margin of the pair l < j. */
function marginOf(margins: Margins, l: number, j: number): number {
  if (margins.kind === 'single') return margins.margin;
  return Math.max(0, margins.margins[j] - margins.margins[l]) * margins.scale;
}

/** Margins of all pairs as `[m, m]`; only l < j is set. */
export function marginTable(margins: Margins, m: number): Float64Array {
  const table = new Float64Array(m * m);
  for (let l = 0; l < m; l++) for (let j = l + 1; j < m; j++) table[l * m + j] = marginOf(margins, l, j);
  return table;
}

/** Margins `vec` of the authors' code: delta_j = tau_j / 100. */
export const levelMargins = (levels: ArrayLike<number>): Float64Array => Float64Array.from(levels, (t) => t * 1e-2);

/**
 * Sum over rows of the penalty: mean over the m (m - 1) / 2 pairs l < j of relu(q_l - q_j + delta_lj).
 * @param quantiles `[n, m]`
 * @param table `[m, m]` of {@link marginTable}
 * @param gradient where d(factor * penalty)/dq is added, `[n, m]`
 * @returns the sum, not multiplied by `factor`
 */
export function crossingPenalty(
  quantiles: ArrayLike<number>,
  m: number,
  table: Float64Array,
  gradient?: Float64Array,
  factor = 1,
): number {
  const n = quantiles.length / m;
  const pairs = (m * (m - 1)) / 2;
  if (pairs === 0) return 0;
  const slope = factor / pairs;
  let sum = 0;
  for (let i = 0; i < n; i++) {
    const base = i * m;
    for (let l = 0; l < m; l++) {
      const low = quantiles[base + l];
      for (let j = l + 1; j < m; j++) {
        const excess = low - quantiles[base + j] + table[l * m + j];
        if (!(excess > 0)) continue;
        sum += excess;
        if (gradient) {
          gradient[base + l] += slope;
          gradient[base + j] -= slope;
        }
      }
    }
  }
  return sum / pairs;
}

/** Median of the finite entries, the mean of the two middle ones where their number is even; NaN without any. */
export function medianOf(values: Float64Array): number {
  const sorted = values.filter((value) => !Number.isNaN(value)).sort();
  const half = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/**
 * Margins `adapt` of the authors' code: the empirical tau-quantiles of y - c, where c is the median over models of the
 * forecasts at the central level floor(m / 2).
 * @param values z `[n, p, m]`
 * @param rows which rows count; all of them when absent
 * @returns `[m]`
 */
export function adaptiveMargins(
  values: ArrayLike<number>,
  outcomes: ArrayLike<number>,
  models: number,
  levels: ArrayLike<number>,
  rows: ArrayLike<number> = Array.from(outcomes, (_, i) => i),
): Float64Array {
  const m = levels.length;
  const centre = Math.floor(m / 2);
  const errors = new Float64Array(rows.length);
  const across = new Float64Array(models);
  for (let at = 0; at < rows.length; at++) {
    const i = rows[at];
    for (let k = 0; k < models; k++) across[k] = values[(i * models + k) * m + centre];
    errors[at] = outcomes[i] - medianOf(across);
  }
  const sorted = errors.filter((error) => !Number.isNaN(error)).sort();
  return Float64Array.from(levels, (level) => quantileOfSorted(sorted, level));
}
