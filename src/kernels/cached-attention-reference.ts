import type { CachedAttention } from './cached-attention.js';

/** The same as the native kernel, one query after the other, in f64. */
export function cachedAttentionReference(request: CachedAttention): void {
  const { queries, heads, kvHeads, headDim, capacity, count, starts, scale, softcap, window } = request;
  append(request);
  starts.forEach((start, row) => {
    for (let i = 0; i < count; i++) {
      const to = start + i + 1;
      const from = window === undefined ? 0 : Math.max(0, to - window);
      const weights = new Float64Array(to - from);
      for (let head = 0; head < heads; head++) {
        const at = ((row * count + i) * heads + head) * headDim;
        const cache = (row * kvHeads + Math.floor(head / (heads / kvHeads))) * capacity * headDim;
        for (let t = from; t < to; t++) {
          let score = 0;
          for (let d = 0; d < headDim; d++) score += queries[at + d] * request.keyCache[cache + t * headDim + d];
          score *= scale;
          weights[t - from] = softcap === undefined ? score : softcap * Math.tanh(score / softcap);
        }
        soften(weights);
        for (let d = 0; d < headDim; d++) {
          let sum = 0;
          for (let t = from; t < to; t++) sum += weights[t - from] * request.valueCache[cache + t * headDim + d];
          request.out[at + d] = sum;
        }
      }
    }
  });
}

/** Puts the new keys and values into their places. */
function append({
  keys,
  values,
  keyCache,
  valueCache,
  starts,
  count,
  kvHeads,
  headDim,
  capacity,
}: CachedAttention): void {
  starts.forEach((start, row) => {
    for (let i = 0; i < count; i++) {
      for (let head = 0; head < kvHeads; head++) {
        const from = ((row * count + i) * kvHeads + head) * headDim;
        const to = ((row * kvHeads + head) * capacity + start + i) * headDim;
        keyCache.set(keys.subarray(from, from + headDim), to);
        valueCache.set(values.subarray(from, from + headDim), to);
      }
    }
  });
}

/** Softmax in place. */
function soften(scores: Float64Array): void {
  const top = scores.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  let sum = 0;
  for (let t = 0; t < scores.length; t++) {
    scores[t] = Math.exp(scores[t] - top);
    sum += scores[t];
  }
  for (let t = 0; t < scores.length; t++) scores[t] /= sum;
}
