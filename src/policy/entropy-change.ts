import { pearson } from '../linalg/correlation.js';

/**
 * Change of the entropy of a tabular softmax policy under one update of its logits (Cui et al. 2025, arXiv 2505.22617, Lemma 1
 * and Theorems 1 and 2; spec 1.3). States are rows, actions columns.
 */

/** A policy pi(a | s) = softmax(z_s)_a with advantages A(s, a). */
export interface TabularPolicy {
  readonly states: number;
  readonly actions: number;
  /** [states, actions]. */
  readonly logits: Float64Array;
  /** [states, actions]; a constant a state changes nothing, since they are centred under the policy. */
  readonly advantages: Float64Array;
}

/** Policy gradient moves logits by eta pi(a) A(a), natural policy gradient by eta A(a). */
export type UpdateRule = 'pg' | 'npg';

export interface EntropyChange {
  /** [states]: entropies before the update, nats. */
  readonly entropy: Float64Array;
  /** [states, actions]: advantages less their mean under the policy. */
  readonly centredAdvantages: Float64Array;
  /** [states]: Cov under pi of ln pi(a) with the direction: pi(a) A(a) or A(a). */
  readonly covariance: Float64Array;
  /** [states]: first-order change, -eta covariance. */
  readonly predicted: Float64Array;
  /** [states]: H(z + dz) - H(z). */
  readonly exact: Float64Array;
  /** Correlation of predicted and exact over states; NaN with fewer than two states or where either is constant. */
  readonly correlation: number;
}

/** ln softmax of a row. */
function logSoftmax(logits: Float64Array): Float64Array {
  let max = Number.NEGATIVE_INFINITY;
  for (const z of logits) if (z > max) max = z;
  let sum = 0;
  for (const z of logits) sum += Math.exp(z - max);
  const logSum = max + Math.log(sum);
  return logits.map((z) => z - logSum);
}

/** Entropy of a row of logits, H = lse(z) - sum p z, in nats; logits of -Infinity have no part in it. */
export function softmaxEntropy(logits: Float64Array): number {
  let entropy = 0;
  for (const logP of logSoftmax(logits)) if (logP > Number.NEGATIVE_INFINITY) entropy -= Math.exp(logP) * logP;
  return entropy;
}

/** Cov under p of x and y, both centred first. Entries of probability 0 have no part in it. */
function covarianceUnder(p: Float64Array, x: Float64Array, y: Float64Array): number {
  const meanOf = (values: Float64Array): number => {
    let mean = 0;
    for (let a = 0; a < p.length; a++) if (p[a] > 0) mean += p[a] * values[a];
    return mean;
  };
  const meanX = meanOf(x);
  const meanY = meanOf(y);
  let sum = 0;
  for (let a = 0; a < p.length; a++) if (p[a] > 0) sum += p[a] * (x[a] - meanX) * (y[a] - meanY);
  return sum;
}

/** First-order change of the entropy of softmax(logits) under logits + change: -Cov(ln pi, change), nats (Lemma 1). */
export function firstOrderEntropyChange(logits: Float64Array, change: Float64Array): number {
  const logP = logSoftmax(logits);
  return -covarianceUnder(logP.map(Math.exp), logP, change);
}

/**
 * Predicted and exact change of the entropy of every state under one update of step size `eta`. Advantages are centred under
 * the policy first.
 * @throws RangeError when the arrays do not hold [states, actions].
 */
export function entropyChange(policy: TabularPolicy, eta: number, rule: UpdateRule): EntropyChange {
  const { states, actions, logits, advantages } = policy;
  if (logits.length !== states * actions || advantages.length !== states * actions) {
    throw new RangeError(`${logits.length} logits and ${advantages.length} advantages are no [${states}, ${actions}]`);
  }
  const entropy = new Float64Array(states);
  const centredAdvantages = new Float64Array(states * actions);
  const covariance = new Float64Array(states);
  const predicted = new Float64Array(states);
  const exact = new Float64Array(states);
  for (let s = 0; s < states; s++) {
    const row = logits.subarray(s * actions, (s + 1) * actions);
    const logP = logSoftmax(row);
    const p = logP.map(Math.exp);
    const raw = advantages.subarray(s * actions, (s + 1) * actions);
    const mean = p.reduce((sum, probability, a) => sum + probability * raw[a], 0);
    const centred = raw.map((advantage) => advantage - mean);
    const direction = rule === 'npg' ? centred : centred.map((advantage, a) => p[a] * advantage);
    entropy[s] = softmaxEntropy(row);
    centredAdvantages.set(centred, s * actions);
    covariance[s] = covarianceUnder(p, logP, direction);
    predicted[s] = -eta * covariance[s];
    exact[s] = softmaxEntropy(row.map((z, a) => z + eta * direction[a])) - entropy[s];
  }
  return { entropy, centredAdvantages, covariance, predicted, exact, correlation: pearson(predicted, exact) };
}
