import { InputError } from '../errors.js';
import { LEAST_TEMPERATURE } from '../training/attention-entropy.js';
import { attentionEntropiesFromScores, type ScoredRows } from './attention.js';

/** Queries and keys of single heads, `[heads, length, headDim]` each, with a temperature per head and query. */
export interface TemperedHeads {
  readonly queries: Float64Array;
  readonly keys: Float64Array;
  readonly heads: number;
  readonly queryCount: number;
  readonly keyCount: number;
  readonly headDim: number;
  /** `[heads, queryCount]` */
  readonly temperatures: Float64Array;
  /** Query i sees keys 0..i + keyCount - queryCount; false: all. */
  readonly causal: boolean;
}

/** Scores z = q.k / (t sqrt(d_k)), `[heads, queryCount, keyCount]`; hidden keys at minus infinity. */
export function temperedScores(input: TemperedHeads): Float64Array {
  const { queries, keys, heads, queryCount, keyCount, headDim, temperatures, causal } = input;
  if (temperatures.length !== heads * queryCount) {
    throw new InputError(`temperatures: expected [${heads},${queryCount}], got ${temperatures.length} values`);
  }
  const scores = new Float64Array(heads * queryCount * keyCount).fill(Number.NEGATIVE_INFINITY);
  for (let head = 0; head < heads; head++) {
    for (let i = 0; i < queryCount; i++) {
      const row = head * queryCount + i;
      const divisor = Math.max(temperatures[row], LEAST_TEMPERATURE) * Math.sqrt(headDim);
      const visible = causal ? Math.min(keyCount, i + 1 + keyCount - queryCount) : keyCount;
      for (let j = 0; j < visible; j++) {
        let dot = 0;
        for (let d = 0; d < headDim; d++) {
          dot += queries[row * headDim + d] * keys[(head * keyCount + j) * headDim + d];
        }
        scores[row * keyCount + j] = dot / divisor;
      }
    }
  }
  return scores;
}

/** What temperatures make of attention. */
export interface TemperedAttention {
  /** `[heads, queryCount, keyCount]` */
  readonly attention: Float64Array;
  /** `[heads, queryCount]`, entropies in closed form: logsumexp(z) - sum a z. */
  readonly rows: ScoredRows;
}

/** Attention a = softmax(z) of scores `[heads, queries, keys]` and its row entropies (Jha & Reagen 2025, equation 10). */
export function attentionOfScores(
  scores: Float64Array,
  shape: { readonly heads: number; readonly queries: number; readonly keys: number },
): TemperedAttention {
  const rows = attentionEntropiesFromScores(scores, { batch: 1, ...shape });
  const attention = new Float64Array(scores.length);
  for (let row = 0; row < rows.logSumExp.length; row++) {
    for (let j = row * shape.keys; j < (row + 1) * shape.keys; j++) {
      attention[j] = Math.exp(scores[j] - rows.logSumExp[row]);
    }
  }
  return { attention, rows };
}

/**
 * Gradient of a loss by the scores z, `[rows, keys]`, from its gradient `weights` by the row entropies, `[rows]`:
 * d e / d z_j = -a_j (log a_j + e).
 */
export function scoreGradient(attention: Float64Array, entropies: Float64Array, weights: Float64Array): Float64Array {
  const keys = attention.length / entropies.length;
  const gradient = new Float64Array(attention.length);
  for (let row = 0; row < entropies.length; row++) {
    for (let j = row * keys; j < (row + 1) * keys; j++) {
      const a = attention[j];
      if (a > 0) gradient[j] = -weights[row] * a * (Math.log(a) + entropies[row]);
    }
  }
  return gradient;
}

/**
 * Gradient of a loss by the temperatures of the rows, from its gradient by their entropies: with z = s / t,
 * d e / d t = Var_a(z) / t. `[rows]` each.
 */
export function temperatureGradient(
  scoreVariance: Float64Array,
  temperatures: Float64Array,
  weights: Float64Array,
): Float64Array {
  return weights.map((weight, row) => (weight === 0 ? 0 : (weight * scoreVariance[row]) / temperatures[row]));
}
