/** Values within this of the observed one count as reaching it. */
export const TIE_NATS = 1e-12;

/** An observed value among those that shuffled data gave. */
export interface PermutationResult {
  readonly observed: number;
  /** (1 + #{null >= observed}) / (B + 1), never 0; the exact tail where all tables were enumerated. */
  readonly pValue: number;
  /** What the estimator gives without dependence: its bias. */
  readonly nullMean: number;
  readonly nullSd: number;
  readonly excess: number;
  /** Excess in standard deviations of the null; null where it has none. */
  readonly z: number | null;
}

/** @param values the measure on shuffled data, one a replicate */
export function judgeAgainst(observed: number, values: ArrayLike<number>): PermutationResult {
  let reached = 0;
  let sum = 0;
  for (let b = 0; b < values.length; b++) {
    if (values[b] >= observed - TIE_NATS) reached++;
    sum += values[b];
  }
  const nullMean = sum / values.length;
  let squares = 0;
  for (let b = 0; b < values.length; b++) squares += (values[b] - nullMean) ** 2;
  const nullSd = values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : 0;
  return summary(observed, (1 + reached) / (values.length + 1), nullMean, nullSd);
}

/** The same from a null law that is known exactly. */
export function judgeExactly(
  observed: number,
  values: ArrayLike<number>,
  probabilities: ArrayLike<number>,
): PermutationResult {
  let mass = 0;
  let tail = 0;
  let sum = 0;
  for (let i = 0; i < values.length; i++) {
    mass += probabilities[i];
    sum += probabilities[i] * values[i];
    if (values[i] >= observed - TIE_NATS) tail += probabilities[i];
  }
  const nullMean = sum / mass;
  let squares = 0;
  for (let i = 0; i < values.length; i++) squares += probabilities[i] * (values[i] - nullMean) ** 2;
  return summary(observed, Math.min(1, tail / mass), nullMean, Math.sqrt(squares / mass));
}

function summary(observed: number, pValue: number, nullMean: number, nullSd: number): PermutationResult {
  const excess = observed - nullMean;
  // A null of one value but for rounding has no spread to measure in.
  const z = nullSd > TIE_NATS ? excess / nullSd : null;
  return { observed, pValue, nullMean, nullSd, excess, z };
}
