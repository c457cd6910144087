/** Added to every share of the nuclear norm by RankMe; part of its definition. */
const RANKME_EPSILON = 1e-7;

/** How many directions a feature matrix uses, by five definitions on its singular values. */
export interface RankMeasures {
  /** `exp(-sum p log p)` with `p = s / sum s + 1e-7` (Garrido et al. 2023). */
  readonly rankMe: number;
  /** The same without the 1e-7 (Roy & Vetterli 2007). */
  readonly effectiveRank: number;
  /** Of the squared values, `p = s^2 / sum s^2`: the exponential of the von Neumann entropy of the second moment. */
  readonly effectiveRankSquared: number;
  /** `(sum s^2)^2 / sum s^4`. */
  readonly participationRatio: number;
  /** `sum s^2 / max s^2`. */
  readonly stableRank: number;
}

/** `exp(-sum p log p)` with `p = value / total + epsilon` and 0 log 0 = 0. */
function entropyRank(values: ArrayLike<number>, total: number, epsilon: number): number {
  let entropy = 0;
  for (let i = 0; i < values.length; i++) {
    const p = values[i] / total + epsilon;
    if (p > 0) entropy -= p * Math.log(p);
  }
  return Math.exp(entropy);
}

/**
 * Rank measures from singular values `[min(n, d)]`, in any order. All of them are NaN when every value is zero: a matrix
 * of zeros has no direction to count.
 *
 * RankMe depends on how many values there are, zeros included: give all `min(n, d)`.
 * @throws RangeError for a value that is negative or not finite
 */
export function rankMeasures(singularValues: ArrayLike<number>): RankMeasures {
  const squares = new Float64Array(singularValues.length);
  let largest = 0;
  for (let i = 0; i < squares.length; i++) {
    const value = singularValues[i];
    if (!(value >= 0 && value < Number.POSITIVE_INFINITY)) throw new RangeError(`a singular value is ${value}`);
    largest = Math.max(largest, value);
  }
  if (largest === 0) {
    const none = Number.NaN;
    return {
      rankMe: none,
      effectiveRank: none,
      effectiveRankSquared: none,
      participationRatio: none,
      stableRank: none,
    };
  }
  // Over the largest value, so that neither squares nor fourth powers leave the range of doubles.
  let sum = 0;
  let sumSquares = 0;
  let sumFourth = 0;
  const scaled = Float64Array.from(singularValues, (value) => value / largest);
  for (let i = 0; i < scaled.length; i++) {
    squares[i] = scaled[i] * scaled[i];
    sum += scaled[i];
    sumSquares += squares[i];
    sumFourth += squares[i] * squares[i];
  }
  return {
    rankMe: entropyRank(scaled, sum, RANKME_EPSILON),
    effectiveRank: entropyRank(scaled, sum, 0),
    effectiveRankSquared: entropyRank(squares, sumSquares, 0),
    participationRatio: (sumSquares * sumSquares) / sumFourth,
    stableRank: sumSquares,
  };
}

/**
 * Singular values of `X [n, d]`, descending, from the eigenvalues of `X^T X` or `X X^T`: the `min(n, d)` largest. What
 * rounding has pushed below zero is zero. A singular value is right to about `1e-8` of the largest, since its square is
 * right to `1e-16` of the largest square.
 * @throws RangeError when there are fewer than `count` eigenvalues
 */
export function singularValuesOfGram(eigenvalues: ArrayLike<number>, count: number): Float64Array {
  if (eigenvalues.length < count)
    throw new RangeError(`${eigenvalues.length} eigenvalues for ${count} singular values`);
  const values = Float64Array.from(eigenvalues, (value) => Math.sqrt(Math.max(0, value)));
  return values.sort().reverse().slice(0, count);
}
