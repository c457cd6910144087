/**
 * Dempster's rule on any number of simple support functions, in closed form and free of order. A piece of evidence gives
 * mass a to one of K hypotheses and 1 - a to the frame; u_l is the product of 1 - a over the pieces for hypothesis l.
 * Before normalisation m({l}) = (1 - u_l) prod of u over the others and m(frame) = prod of all u; divided by that
 * product they are the odds (1 - u_l) / u_l and 1. Logarithms of the odds keep hundreds of pieces that underflow as
 * products.
 * @param logU ln u_l of every hypothesis [K]; -Infinity where a piece is certain
 * @param out masses of the hypotheses, then of the frame [K + 1]
 * @returns ln(1 - conflict): -Infinity at total conflict, where `out` is NaN
 */
export function combineSupports(logU: Float64Array, out: Float64Array): number {
  const k = logU.length;
  let certain = -1;
  let sum = 0;
  let supported = 0;
  for (let l = 0; l < k; l++) {
    if (logU[l] < 0) supported++;
    if (logU[l] === Number.NEGATIVE_INFINITY) {
      if (certain >= 0) {
        out.fill(Number.NaN);
        return Number.NEGATIVE_INFINITY;
      }
      certain = l;
    } else sum += logU[l];
  }
  if (certain >= 0) {
    out.fill(0);
    out[certain] = 1;
    return sum;
  }
  let largest = 0;
  for (let l = 0; l < k; l++) {
    // ln((1 - u) / u); -Infinity without evidence.
    out[l] = Math.log(-Math.expm1(logU[l])) - logU[l];
    if (out[l] > largest) largest = out[l];
  }
  out[k] = 0;
  let total = 0;
  for (let l = 0; l <= k; l++) {
    out[l] = Math.exp(out[l] - largest);
    total += out[l];
  }
  for (let l = 0; l <= k; l++) out[l] /= total;
  // Pieces for one hypothesis never conflict; the sum would leave its rounding.
  return supported < 2 ? 0 : sum + largest + Math.log(total);
}

/**
 * Dempster's rule on pieces that give mass a to one of K hypotheses, b to all others together and 1 - a - b to the frame,
 * in closed form by commonalities: those of all subsets are products of sums that each hypothesis has of its own.
 */
export interface TwoSidedSums {
  /** Sum of ln(1 - b) over the pieces for each hypothesis [K]. */
  readonly single: Float64Array;
  /** Sum of ln(1 - a). */
  readonly without: Float64Array;
  /** Sum of ln(1 - a - b). */
  readonly frame: Float64Array;
}

/** Most hypotheses whose subsets are all listed. */
export const MOST_TWO_SIDED = 12;

/**
 * @param out masses of all subsets of the hypotheses by their masks, normalised; 0 at the empty set [2^K]
 * @returns ln(1 - conflict); -Infinity at total conflict, where `out` is NaN
 */
export function combineTwoSided(sums: TwoSidedSums, out: Float64Array): number {
  const k = sums.single.length;
  const sets = 1 << k;
  let largest = Number.NEGATIVE_INFINITY;
  for (let set = 1; set < sets; set++) {
    let log = 0;
    const alone = (set & (set - 1)) === 0;
    for (let l = 0; l < k; l++) {
      const inside = (set >> l) & 1;
      log += inside ? (alone ? sums.single[l] : sums.frame[l]) : sums.without[l];
    }
    out[set] = log;
    if (log > largest) largest = log;
  }
  out[0] = 0;
  if (largest === Number.NEGATIVE_INFINITY) {
    out.fill(Number.NaN);
    return largest;
  }
  for (let set = 1; set < sets; set++) out[set] = Math.exp(out[set] - largest);
  for (let bit = 1; bit < sets; bit <<= 1) {
    for (let set = 1; set < sets; set++) if (!(set & bit)) out[set] -= out[set | bit];
  }
  let total = 0;
  for (let set = 1; set < sets; set++) {
    if (out[set] < 0) out[set] = 0;
    total += out[set];
  }
  for (let set = 1; set < sets; set++) out[set] /= total;
  return largest + Math.log(total);
}

/** Masses of two hypotheses at `at` and `at + 1`, the rest on the frame: Dempster's rule with another such pair, in place. */
export function combinePair(masses: Float64Array, at: number, first: number, second: number): void {
  const [x, y] = [masses[at], masses[at + 1]];
  const rest = 1 - x - y;
  const other = 1 - first - second;
  const agreement = 1 - x * second - y * first;
  masses[at] = (x * first + x * other + rest * first) / agreement;
  masses[at + 1] = (y * second + y * other + rest * second) / agreement;
}
