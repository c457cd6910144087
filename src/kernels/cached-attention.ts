import { cachedAttentionReference } from './cached-attention-reference.js';
import { kernelThreads, nativeKernels } from './native.js';

/** New positions of a batch of sequences, and the keys and values that are kept of earlier ones. */
export interface CachedAttention {
  /** [rows, count, heads, headDim], after norms and rotary embedding. */
  readonly queries: Float32Array;
  /** [rows, count, kvHeads, headDim]; heads share keys in runs of heads / kvHeads. */
  readonly keys: Float32Array;
  /** As the keys. */
  readonly values: Float32Array;
  /** [rows, kvHeads, capacity, headDim]; the new keys are written into it. */
  readonly keyCache: Float32Array;
  /** As the keys. */
  readonly valueCache: Float32Array;
  /** [rows, count, heads, headDim], written. */
  readonly out: Float32Array;
  /** Position of the first new token of every row, [rows]; sequences may be of different lengths. */
  readonly starts: Int32Array;
  readonly count: number;
  readonly heads: number;
  readonly kvHeads: number;
  /** A multiple of 8. */
  readonly headDim: number;
  readonly capacity: number;
  /** Factor on the products q.k. */
  readonly scale: number;
  /** A query sees at most so many keys, its own included. */
  readonly window?: number;
  /** Scores become c tanh(score / c). */
  readonly softcap?: number;
}

/**
 * Causal attention softmax(scale q.k) v of new positions, which are put into the cache first. Each output depends on its
 * query and the keys that it sees alone, in the order of their positions: the same bits whatever else is in the batch,
 * however a sequence is cut into calls, and on any number of threads. Products and weighted sums are f32, sums of
 * exponentials f64.
 * @throws RangeError for arrays and positions that do not fit
 */
export function cachedAttention(request: CachedAttention, threads?: number): void {
  check(request);
  const native = nativeKernels();
  if (!native) {
    cachedAttentionReference(request);
    return;
  }
  native.cachedAttention(
    request.queries,
    request.keys,
    request.values,
    request.keyCache,
    request.valueCache,
    request.out,
    request.starts,
    request.count,
    request.heads,
    request.kvHeads,
    request.headDim,
    request.capacity,
    request.window ?? 0,
    request.scale,
    request.softcap ?? 0,
    kernelThreads(threads),
  );
}

function check(request: CachedAttention): void {
  const { count, heads, kvHeads, headDim, capacity, starts } = request;
  if (!(heads >= 1 && kvHeads >= 1) || heads % kvHeads !== 0 || headDim < 8 || headDim % 8 !== 0 || count < 1) {
    throw new RangeError(`${heads} heads of ${headDim} numbers cannot share ${kvHeads} heads of keys`);
  }
  const fresh = starts.length * count * headDim;
  const kept = starts.length * kvHeads * capacity * headDim;
  const fits =
    request.queries.length >= fresh * heads &&
    request.out.length >= fresh * heads &&
    request.keys.length >= fresh * kvHeads &&
    request.values.length >= fresh * kvHeads &&
    request.keyCache.length >= kept &&
    request.valueCache.length >= kept;
  if (!fits) throw new RangeError(`arrays do not fit ${starts.length} rows of ${count} positions`);
  if (!starts.every((start) => start >= 0 && start + count <= capacity)) {
    throw new RangeError(`${count} positions more do not fit in a cache of ${capacity}`);
  }
}
