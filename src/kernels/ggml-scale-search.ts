/**
 * Scales of groups of weights by weighted least squares over candidates: for fixed codes the best scale is a quotient of
 * two sums, so candidate scales are tried only to propose codes. All arithmetic is f64, in the order of the native code.
 */

/** Candidate scales of a search. */
export const SCALE_CANDIDATES = 20;
/** How far beyond the last code the largest weight may lie: candidates are extreme / (edge + offset). */
const FIRST_OFFSET = -1;
const OFFSET_STEP = 0.25;
const REFITS = 2;

/** Nearest integer, halves upwards. */
export const nearest = (value: number): number => Math.floor(value + 0.5);

const clamp = (value: number, low: number, high: number): number => (value < low ? low : Math.min(value, high));

/** A run of `count` weights `x` at `at` with their importances `w`. */
export interface WeightedGroup {
  readonly x: Float64Array;
  readonly w: Float64Array;
  at: number;
  count: number;
}

/** The entry of largest magnitude, with its sign; 0 for a group of zeros. */
function extreme({ x, at, count }: WeightedGroup): number {
  let found = 0;
  for (let i = at; i < at + count; i++) if (Math.abs(x[i]) > Math.abs(found)) found = x[i];
  return found;
}

/**
 * The scale s with the smallest sum of w (x - s q)^2 over codes q in low..high, found among candidates that put the
 * extreme weight near either edge. Zero for a group of zeros. The sign is free: it says which edge the extreme is at.
 */
export function searchScale(group: WeightedGroup, low: number, high: number): number {
  const { x, w, at, count } = group;
  const peak = extreme(group);
  if (peak === 0) return 0;
  let best = 0;
  let most = 0;
  const propose = (scale: number): void => {
    const inverse = 1 / scale;
    let products = 0;
    let squares = 0;
    for (let i = at; i < at + count; i++) {
      const code = clamp(nearest(x[i] * inverse), low, high);
      products += w[i] * x[i] * code;
      squares += w[i] * code * code;
    }
    // The error falls by products^2 / squares below that of all zeros.
    if (squares > 0 && products * products > most * squares) {
      most = (products * products) / squares;
      best = products / squares;
    }
  };
  for (let c = 0; c < SCALE_CANDIDATES; c++) {
    const offset = FIRST_OFFSET + OFFSET_STEP * c;
    propose(peak / (low - offset));
    if (high + offset > 0) propose(peak / (high + offset));
  }
  for (let pass = 0; pass < REFITS && best !== 0; pass++) propose(best);
  return best;
}

/** A scale and an offset: values are scale * code + offset. */
export interface AffineScale {
  scale: number;
  offset: number;
}

/**
 * Scale and offset with the smallest sum of w (x - s q - o)^2 over codes 0..high.
 * @param nonPositive the offset may not be above zero (K-quants store a minimum that is subtracted)
 */
export function searchAffine(group: WeightedGroup, high: number, nonPositive: boolean, result: AffineScale): void {
  const { x, w, at, count } = group;
  let low = nonPositive ? 0 : x[at];
  let top = x[at];
  for (let i = at; i < at + count; i++) {
    if (x[i] < low) low = x[i];
    if (x[i] > top) top = x[i];
  }
  result.scale = 0;
  result.offset = low;
  if (top <= low) return;
  let most = Number.NEGATIVE_INFINITY;
  const propose = (scale: number, offset: number): void => {
    const inverse = 1 / scale;
    let total = 0;
    let sum = 0;
    let codes = 0;
    let squares = 0;
    let products = 0;
    for (let i = at; i < at + count; i++) {
      const code = clamp(nearest((x[i] - offset) * inverse), 0, high);
      const weighted = w[i] * code;
      total += w[i];
      sum += w[i] * x[i];
      codes += weighted;
      squares += weighted * code;
      products += weighted * x[i];
    }
    const determinant = total * squares - codes * codes;
    if (!(determinant > 0)) return;
    let s = (total * products - codes * sum) / determinant;
    let o = (squares * sum - codes * products) / determinant;
    if (nonPositive && o > 0) {
      o = 0;
      s = products / squares;
    }
    if (!(s > 0)) return;
    // What the model takes off the weighted sum of squares.
    const gain = 2 * (s * products + o * sum) - (s * s * squares + 2 * s * o * codes + o * o * total);
    if (gain > most) {
      most = gain;
      result.scale = s;
      result.offset = o;
    }
  };
  for (let c = 0; c < SCALE_CANDIDATES; c++) {
    const steps = high + FIRST_OFFSET + OFFSET_STEP * c;
    if (steps > 0) propose((top - low) / steps, low);
  }
  for (let pass = 0; pass < REFITS && result.scale > 0; pass++) propose(result.scale, result.offset);
}

/** Index of the nearest of ascending levels; `between` are their midpoints. */
export function nearestIndex(value: number, between: Float64Array): number {
  let index = 0;
  while (index < between.length && value > between[index]) index++;
  return index;
}

/** As {@link searchScale} for codes that index a table of ascending levels. */
export function searchTableScale(group: WeightedGroup, levels: Float64Array, between: Float64Array): number {
  const { x, w, at, count } = group;
  const peak = extreme(group);
  if (peak === 0) return 0;
  let best = 0;
  let most = 0;
  const propose = (scale: number): void => {
    const inverse = 1 / scale;
    let products = 0;
    let squares = 0;
    for (let i = at; i < at + count; i++) {
      const level = levels[nearestIndex(x[i] * inverse, between)];
      products += w[i] * x[i] * level;
      squares += w[i] * level * level;
    }
    if (squares > 0 && products * products > most * squares) {
      most = (products * products) / squares;
      best = products / squares;
    }
  };
  const lowest = levels[0];
  const highest = levels[levels.length - 1];
  // Offsets are in units of the table's mean step.
  const step = (highest - lowest) / (levels.length - 1);
  for (let c = 0; c < SCALE_CANDIDATES; c++) {
    const offset = step * (FIRST_OFFSET + OFFSET_STEP * c);
    propose(peak / (lowest - offset));
    propose(peak / (highest + offset));
  }
  for (let pass = 0; pass < REFITS && best !== 0; pass++) propose(best);
  return best;
}
