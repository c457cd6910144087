import { kernelThreads, nativeKernels } from './native.js';

/** Queries and keys of one layer and window, after rotary embedding and norms. */
export interface ScoreBlock {
  /** `[queryCount, heads * headDim]` */
  readonly queries: Float32Array | Float64Array;
  /** `[keyCount, keyHeads * headDim]`, of the type of the queries; heads share keys in runs of `heads / keyHeads`. */
  readonly keys: Float32Array | Float64Array;
  readonly heads: number;
  readonly keyHeads: number;
  readonly headDim: number;
  readonly queryCount: number;
  readonly keyCount: number;
  /** Multiplies the products, usually 1/sqrt(headDim). */
  readonly scale: number;
  /** Position of the first query (default 0); query i sees the keys up to its own position. */
  readonly queryStart?: number;
  /** False: every query sees all keys. Default true. */
  readonly causal?: boolean;
  /** A causal query sees only the last so many keys, its own included. */
  readonly slidingWindow?: number;
  /** Scores become `softcap * tanh(score / softcap)`. */
  readonly softcap?: number;
  /** Divide the scores, after the soft cap: `[heads, queryCount]`, above 0. */
  readonly temperatures?: Float64Array;
}

/**
 * Numbers of one row in `attentionScoreSums`: the score z of key 0 (minus infinity when it is not seen), and over the
 * other keys m = max z, Z = sum e^{z-m}, A = sum e^{z-m} (z-m), Q = sum e^{z-m} (z-m)^2 (0 unless asked for). A row
 * with a NaN has it in the score of key 0, Z or A.
 */
export const SCORE_SUMS = 5;

export interface ScoreOptions {
  /** Whether Q is wanted. */
  readonly moments?: boolean;
  readonly threads?: number;
}

function check(block: ScoreBlock): void {
  const { heads, keyHeads, headDim, queryCount, keyCount, queries, keys, temperatures } = block;
  if (!(heads >= 1 && keyHeads >= 1) || heads % keyHeads !== 0) {
    throw new RangeError(`${heads} heads cannot share ${keyHeads} key heads`);
  }
  if (queries.length !== queryCount * heads * headDim || keys.length !== keyCount * keyHeads * headDim) {
    throw new RangeError(
      `queries [${queryCount}, ${heads} x ${headDim}] and keys [${keyCount}, ${keyHeads} x ${headDim}] do not fit ` +
        `${queries.length} and ${keys.length} values`,
    );
  }
  if (queries instanceof Float32Array !== keys instanceof Float32Array) {
    throw new RangeError('queries and keys are of different types');
  }
  if (temperatures && temperatures.length !== heads * queryCount) {
    throw new RangeError(`${temperatures.length} temperatures for ${heads} heads of ${queryCount} queries`);
  }
}

/** First key that the query at `position` sees, and one past the last. */
function visibleRange(block: ScoreBlock, position: number): [from: number, to: number] {
  const { causal = true, slidingWindow, keyCount } = block;
  if (!causal) return [0, keyCount];
  const from = slidingWindow === undefined ? 0 : Math.max(0, position + 1 - slidingWindow);
  return [from, Math.min(keyCount, position + 1)];
}

function sumsReference(block: ScoreBlock, moments: boolean, sums: Float64Array): void {
  const { queries, keys, heads, keyHeads, headDim, queryCount, queryStart = 0, scale, softcap, temperatures } = block;
  const queryStride = heads * headDim;
  const keyStride = keyHeads * headDim;
  for (let head = 0; head < heads; head++) {
    const keyBase = Math.floor(head / (heads / keyHeads)) * headDim;
    for (let query = 0; query < queryCount; query++) {
      const queryAt = query * queryStride + head * headDim;
      const divisor = temperatures ? temperatures[head * queryCount + query] : 1;
      const [from, to] = visibleRange(block, queryStart + query);
      let first = Number.NEGATIVE_INFINITY;
      let max = Number.NEGATIVE_INFINITY;
      let z = 0;
      let a = 0;
      let q = 0;
      for (let key = from; key < to; key++) {
        const keyAt = key * keyStride + keyBase;
        let score = 0;
        for (let d = 0; d < headDim; d++) score += queries[queryAt + d] * keys[keyAt + d];
        score *= scale;
        // The difference keeps a NaN or an infinite score visible.
        if (softcap !== undefined) score = softcap * Math.tanh(score / softcap) + (score - score);
        score /= divisor;
        if (key === 0) {
          first = score;
          continue;
        }
        if (score > max) {
          const shift = max - score;
          if (z > 0) {
            const factor = Math.exp(shift);
            q = factor * (q + shift * (2 * a + shift * z));
            a = factor * (a + shift * z);
            z *= factor;
          }
          max = score;
          z += 1;
        } else if (score !== Number.NEGATIVE_INFINITY) {
          const below = score - max;
          const e = Math.exp(below);
          z += e;
          a += e * below;
          q += e * below * below;
        }
      }
      sums.set([first, max, z, a, moments ? q : 0], (head * queryCount + query) * SCORE_SUMS);
    }
  }
}

/**
 * Softmax sums of every attention row, `[heads, queryCount, SCORE_SUMS]`, from queries and keys: tiles of scores are
 * folded as they arise, so that memory does not grow with queries x keys. Products of f32 are f32, sums of
 * exponentials f64. The same bits whatever the number of threads and the split into queries.
 */
export function attentionScoreSums(block: ScoreBlock, options: ScoreOptions = {}): Float64Array {
  check(block);
  const { queries, keys, heads, keyHeads, headDim, queryCount, keyCount } = block;
  const sums = new Float64Array(heads * queryCount * SCORE_SUMS);
  const native = nativeKernels();
  if (native === undefined) {
    sumsReference(block, options.moments === true, sums);
    return sums;
  }
  const rest = [
    heads,
    keyHeads,
    headDim,
    queryCount,
    keyCount,
    block.queryStart ?? 0,
    block.slidingWindow ?? 0,
    block.causal === false ? 0 : 1,
    block.scale,
    block.softcap ?? 0,
    block.temperatures ?? null,
    options.moments === true ? 1 : 0,
    sums,
    kernelThreads(options.threads),
  ] as const;
  if (queries instanceof Float32Array && keys instanceof Float32Array) {
    native.attentionScoresF32(queries, keys, ...rest);
  } else if (queries instanceof Float64Array && keys instanceof Float64Array) {
    native.attentionScoresF64(queries, keys, ...rest);
  }
  return sums;
}
