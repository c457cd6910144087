/** Entropy of a powered spectrum, in both units. */
export interface SpectralEntropy {
  readonly bits: number;
  readonly nats: number;
}

/**
 * Entropy of `p_i = |l_i|^t / sum_j |l_j|^t` with 0 log 0 = 0. Eigenvalues are taken relative to the largest, so that a
 * high power underflows to 0 and never all at once.
 * @param eigenvalues in any order and of any sign
 * @param t diffusion time, > 0
 */
export function spectralEntropy(eigenvalues: ArrayLike<number>, t: number): SpectralEntropy {
  let largest = 0;
  for (let i = 0; i < eigenvalues.length; i++) largest = Math.max(largest, Math.abs(eigenvalues[i]));
  if (largest === 0) return { bits: 0, nats: 0 };
  // With w = (l / max)^t: -sum p log p = log W - sum w log w / W, W = sum w.
  let total = 0;
  let weighted = 0;
  for (let i = 0; i < eigenvalues.length; i++) {
    const ratio = Math.abs(eigenvalues[i]) / largest;
    const weight = t === 1 ? ratio : ratio ** t;
    if (weight === 0) continue;
    total += weight;
    weighted += weight * t * Math.log(ratio);
  }
  const nats = Math.max(0, Math.log(total) - weighted / total);
  return { bits: nats / Math.LN2, nats };
}

/** Share of the powered eigenvalues |l|^t that exceed `threshold`: about 1 % above 0.01 is the authors' rule of thumb. */
export function shareAbove(eigenvalues: ArrayLike<number>, t: number, threshold: number): number {
  let above = 0;
  for (let i = 0; i < eigenvalues.length; i++) if (Math.abs(eigenvalues[i]) ** t > threshold) above++;
  return eigenvalues.length === 0 ? 0 : above / eigenvalues.length;
}

/** Entropy `-sum p log2 p` in bits of counts or other nonnegative weights, normalised here; 0 for no weight at all. */
export function entropyBitsOfWeights(weights: Iterable<number>): number {
  let total = 0;
  let weighted = 0;
  for (const weight of weights) {
    if (weight === 0) continue;
    total += weight;
    weighted += weight * Math.log(weight);
  }
  return total === 0 ? 0 : Math.max(0, (Math.log(total) - weighted / total) / Math.LN2);
}
