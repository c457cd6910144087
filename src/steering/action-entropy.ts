/** Entropies of an action from counts of parsed completions, nats. */
export interface CountEntropy {
  /** Completions that parsed. */
  readonly valid: number;
  /** `-Σ π ln π` of the observed shares; NaN without a count. The one that EAST weighs with. */
  readonly pluginNats: number;
  /** Plug-in plus (observed actions - 1) / (2 valid) (Miller 1955); NaN without a count. */
  readonly millerMadowNats: number;
}

/**
 * Entropy of the action that counts show, by two estimators. With few completions the plug-in is biased down by about
 * (A - 1) / (2M): specification of steering, sections 1.2 and 1.5.
 * @param counts completions by action [A]
 */
export function countEntropy(counts: ArrayLike<number>): CountEntropy {
  let valid = 0;
  let observed = 0;
  for (let a = 0; a < counts.length; a++) {
    valid += counts[a];
    if (counts[a] > 0) observed++;
  }
  if (valid === 0) return { valid, pluginNats: Number.NaN, millerMadowNats: Number.NaN };
  let pluginNats = 0;
  for (let a = 0; a < counts.length; a++) {
    const share = counts[a] / valid;
    if (share > 0) pluginNats -= share * Math.log(share);
  }
  return { valid, pluginNats, millerMadowNats: pluginNats + (observed - 1) / (2 * valid) };
}

/** `-Σ p ln p` with 0 ln 0 = 0, nats. */
export function distributionEntropy(probabilities: ArrayLike<number>): number {
  let entropy = 0;
  for (let i = 0; i < probabilities.length; i++) {
    if (probabilities[i] > 0) entropy -= probabilities[i] * Math.log(probabilities[i]);
  }
  return entropy;
}
