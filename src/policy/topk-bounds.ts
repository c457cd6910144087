/** Bounds on the entropy of distributions of which the likeliest tokens are known, [rows] each, nats. */
export interface EntropyBounds {
  /** -sum p ln p over the kept tokens alone: no bound, and no entropy. */
  readonly truncatedSum: Float64Array;
  /** The tail as one token: a lower bound. */
  readonly lowerLump: Float64Array;
  /** The tail in as few tokens as the smallest kept probability allows: the largest lower bound there is. */
  readonly lower: Float64Array;
  /** The tail spread evenly over the rest of the vocabulary; absent where its size is not known. */
  readonly upper?: Float64Array;
  /** Probability that is not in the kept tokens. */
  readonly tailMass: Float64Array;
}

const plogp = (p: number): number => (p > 0 ? p * Math.log(p) : 0);

/**
 * Entropy bounds from the k likeliest tokens of every row (spec 0.1, rule 5). With s = -sum p ln p over them and m = max(0, 1 - sum p):
 * the lump bound is s - m ln m; the tight one, p_k the smallest kept probability, packs the tail in n = min(floor(m / p_k), V - k)
 * tokens of p_k and one of r = m - n p_k: s - n p_k ln p_k - r ln r; the upper bound is s - m ln(m / (V - k)).
 * @param logProbs [rows, k], nats; -Infinity where a row has fewer tokens.
 * @param vocabularySize V; without it the upper bound is absent and n is not limited by it.
 */
export function topKEntropyBounds(
  logProbs: Float64Array,
  rows: number,
  k: number,
  vocabularySize?: number,
): EntropyBounds {
  const truncatedSum = new Float64Array(rows);
  const lowerLump = new Float64Array(rows);
  const lower = new Float64Array(rows);
  const upper = vocabularySize === undefined ? undefined : new Float64Array(rows);
  const tailMass = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    let sum = 0;
    let mass = 0;
    let kept = 0;
    let smallest = Number.POSITIVE_INFINITY;
    for (let j = row * k; j < (row + 1) * k; j++) {
      const logProb = logProbs[j];
      if (logProb === Number.NEGATIVE_INFINITY) continue;
      const p = Math.exp(logProb);
      sum -= p * logProb;
      mass += p;
      if (p < smallest) smallest = p;
      kept++;
    }
    const tail = Math.max(0, 1 - mass);
    const left = vocabularySize === undefined ? Number.POSITIVE_INFINITY : Math.max(0, vocabularySize - kept);
    truncatedSum[row] = sum;
    tailMass[row] = tail;
    lowerLump[row] = sum - plogp(tail);
    // Without a kept token, or with one of probability 0, nothing limits the tokens of the tail.
    const packed = kept > 0 && smallest > 0 ? Math.min(Math.floor(tail / smallest), left) : 0;
    const rest = Math.max(0, tail - packed * smallest);
    lower[row] = packed > 0 ? sum - packed * plogp(smallest) - plogp(rest) : lowerLump[row];
    if (upper !== undefined)
      upper[row] = left > 0 ? sum - (tail > 0 ? tail * Math.log(tail / left) : 0) : lowerLump[row];
  }
  return { truncatedSum, lowerLump, lower, ...(upper && { upper }), tailMass };
}
