/**
 * A softmax policy in a table: position t of a response in context c has logits shared[t] + own[c, t], whatever stands before
 * it. A row is a pair (c, t), number c * positions + t.
 */
export interface TabularPolicy {
  readonly contexts: number;
  readonly positions: number;
  readonly vocabulary: number;
  /** [positions, vocabulary]. */
  readonly shared: Float64Array;
  /** [contexts, positions, vocabulary]. */
  readonly own: Float64Array;
}

/** What the rows of a policy say; rows that were not asked for keep what stands there. */
export interface PolicyRows {
  /** [contexts, positions, vocabulary], nats. */
  readonly logProbs: Float64Array;
  /** [contexts, positions, vocabulary]. */
  readonly probs: Float64Array;
  /** [contexts, positions], nats. */
  readonly entropies: Float64Array;
}

export function createPolicyRows({ contexts, positions, vocabulary }: TabularPolicy): PolicyRows {
  const rows = contexts * positions;
  return {
    logProbs: new Float64Array(rows * vocabulary),
    probs: new Float64Array(rows * vocabulary),
    entropies: new Float64Array(rows),
  };
}

/** Fills the rows of some contexts: log-softmax, softmax and entropy -sum p ln p of the logits as they are now. */
export function evaluateRows(policy: TabularPolicy, contexts: Iterable<number>, rows: PolicyRows): void {
  const { positions, vocabulary, shared, own } = policy;
  const { logProbs, probs, entropies } = rows;
  for (const context of contexts) {
    for (let t = 0; t < positions; t++) {
      const row = context * positions + t;
      const start = row * vocabulary;
      let largest = Number.NEGATIVE_INFINITY;
      for (let v = 0; v < vocabulary; v++) {
        const logit = shared[t * vocabulary + v] + own[start + v];
        logProbs[start + v] = logit;
        if (logit > largest) largest = logit;
      }
      let sum = 0;
      for (let v = 0; v < vocabulary; v++) sum += Math.exp(logProbs[start + v] - largest);
      const logSum = Math.log(sum);
      let entropy = 0;
      for (let v = 0; v < vocabulary; v++) {
        const logProb = logProbs[start + v] - largest - logSum;
        const p = Math.exp(logProb);
        logProbs[start + v] = logProb;
        probs[start + v] = p;
        entropy -= p * logProb;
      }
      entropies[row] = entropy;
    }
  }
}

/** The gradient of a loss with respect to what the tokens of a batch say of the policy. */
export interface TokenGradients {
  /** [tokens]: dL / d log pi(token i). */
  readonly logProb: Float64Array;
  /** [tokens]: dL / d H_i. */
  readonly entropy?: Float64Array;
}

/** Where the tokens of a batch stand in the table. */
export interface TokenRows {
  /** [tokens]: row of the table. */
  readonly rows: Int32Array;
  /** [tokens]: token ids. */
  readonly tokens: Int32Array;
}

/** Learning rates of the two tables. */
export interface TabularRates {
  readonly own: number;
  readonly shared: number;
}

/**
 * One step of gradient descent: d log pi(a) / dz_v = [v = a] - p_v and dH / dz_v = -p_v (ln p_v + H), summed over the tokens
 * of every row and over the rows that share a position, in the order of the tokens.
 * @param rows what `evaluateRows` gave for the policy as it is
 */
export function descend(
  policy: TabularPolicy,
  batch: TokenRows,
  gradients: TokenGradients,
  rows: PolicyRows,
  rates: TabularRates,
): void {
  const { positions, vocabulary, shared, own } = policy;
  const touched = new Map<number, { logProb: number; entropy: number; tokens: Float64Array }>();
  for (let i = 0; i < batch.rows.length; i++) {
    const row = batch.rows[i];
    let sums = touched.get(row);
    if (sums === undefined) {
      sums = { logProb: 0, entropy: 0, tokens: new Float64Array(vocabulary) };
      touched.set(row, sums);
    }
    const gradient = gradients.logProb[i];
    sums.logProb += gradient;
    sums.tokens[batch.tokens[i]] += gradient;
    if (gradients.entropy !== undefined) sums.entropy += gradients.entropy[i];
  }
  for (const [row, sums] of touched) {
    const t = row % positions;
    const start = row * vocabulary;
    for (let v = 0; v < vocabulary; v++) {
      const p = rows.probs[start + v];
      const surprise = rows.logProbs[start + v] + rows.entropies[row];
      const gradient = sums.tokens[v] - sums.logProb * p - sums.entropy * p * surprise;
      own[start + v] -= rates.own * gradient;
      shared[t * vocabulary + v] -= rates.shared * gradient;
    }
  }
}

/** Mean entropy over all rows, nats. */
export function meanEntropy({ entropies }: PolicyRows): number {
  let sum = 0;
  for (const entropy of entropies) sum += entropy;
  return sum / entropies.length;
}

/**
 * Probability that a response of the policy is the key of its context, mean over contexts: exact, without sampling.
 * @param keys [contexts, positions]
 */
export function successProbability(policy: TabularPolicy, rows: PolicyRows, keys: Int32Array): number {
  const { contexts, positions, vocabulary } = policy;
  let sum = 0;
  for (let c = 0; c < contexts; c++) {
    let logProb = 0;
    for (let row = c * positions; row < (c + 1) * positions; row++) {
      logProb += rows.logProbs[row * vocabulary + keys[row]];
    }
    sum += Math.exp(logProb);
  }
  return sum / contexts;
}
