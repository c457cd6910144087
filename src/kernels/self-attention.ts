import { kernelThreads, nativeKernels } from './native.js';
import { selfAttentionBackwardReference, selfAttentionForwardReference } from './self-attention-reference.js';

/** Causal self-attention of whole windows. */
export interface SelfAttention {
  /** [batch, length, heads, headDim], before the rotary embedding. */
  readonly queries: Float32Array;
  /** [batch, length, kvHeads, headDim]; heads share keys in runs of heads / kvHeads. */
  readonly keys: Float32Array;
  /** As the keys. */
  readonly values: Float32Array;
  /** Rotary embedding in halves, [length, dims / 2] each; absent where nothing is turned. */
  readonly rotation?: { readonly dims: number; readonly cosines: Float32Array; readonly sines: Float32Array };
  /** [batch, length, heads, headDim]: what the heads give. */
  readonly mixed: Float32Array;
  /** [batch, heads, length]: logarithm of the sum of the exponentials of each query's scores. */
  readonly sums: Float32Array;
  readonly batch: number;
  readonly length: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Factor on the products q.k. */
  readonly scale: number;
  /** A query sees at most so many keys, its own included. */
  readonly window?: number;
  /** Scores become c tanh(score / c). */
  readonly softcap?: number;
}

/** Gradients with the shapes of what they belong to; `mixed` comes in, the others are written. */
export interface SelfAttentionGradients {
  readonly mixed: Float32Array;
  readonly queries: Float32Array;
  readonly keys: Float32Array;
  readonly values: Float32Array;
}

function check(r: SelfAttention): void {
  const rows = r.batch * r.length;
  const fits =
    r.heads % r.kvHeads === 0 &&
    r.queries.length >= rows * r.heads * r.headDim &&
    r.mixed.length >= rows * r.heads * r.headDim &&
    r.keys.length >= rows * r.kvHeads * r.headDim &&
    r.values.length >= rows * r.kvHeads * r.headDim &&
    r.sums.length >= rows * r.heads;
  if (!fits) throw new RangeError(`attention: arrays do not fit ${r.batch} windows of ${r.length}`);
  if (r.rotation && Math.min(r.rotation.cosines.length, r.rotation.sines.length) < (r.length * r.rotation.dims) / 2) {
    throw new RangeError(`attention: the tables of the rotary embedding are shorter than ${r.length} positions`);
  }
}

const settingsOf = (r: SelfAttention): Float64Array =>
  Float64Array.of(
    r.batch,
    r.length,
    r.heads,
    r.kvHeads,
    r.headDim,
    r.rotation?.dims ?? 0,
    r.window ?? 0,
    r.scale,
    r.softcap ?? 0,
  );

/**
 * Writes `mixed` = softmax(scale q.k) v of every head, causal, and `sums`. Products are f32, sums of exponentials f64. The
 * same bits for any number of threads.
 * @throws RangeError for arrays that do not fit
 */
export function selfAttentionForward(request: SelfAttention, threads?: number): void {
  check(request);
  const native = nativeKernels();
  if (!native) {
    selfAttentionForwardReference(request);
    return;
  }
  const { queries, keys, values, rotation, mixed, sums } = request;
  native.selfAttentionForward(
    queries,
    keys,
    values,
    rotation?.cosines ?? null,
    rotation?.sines ?? null,
    mixed,
    sums,
    settingsOf(request),
    kernelThreads(threads),
  );
}

/**
 * Gradients of what {@link selfAttentionForward} read, from those of `mixed`; it reads the `mixed` and `sums` that were
 * written then. Probabilities are formed again: with p = e^(s - sum) and g the gradient of the heads, the slope of a score
 * is p (g.v - g.mixed), as in FlashAttention (Dao et al. 2022, algorithm 4).
 * @throws RangeError for arrays that do not fit
 */
export function selfAttentionBackward(
  request: SelfAttention,
  gradients: SelfAttentionGradients,
  threads?: number,
): void {
  check(request);
  const native = nativeKernels();
  if (!native) {
    selfAttentionBackwardReference(request, gradients);
    return;
  }
  const { queries, keys, values, rotation, mixed, sums } = request;
  native.selfAttentionBackward(
    queries,
    keys,
    values,
    rotation?.cosines ?? null,
    rotation?.sines ?? null,
    mixed,
    sums,
    settingsOf(request),
    gradients.mixed,
    gradients.queries,
    gradients.keys,
    gradients.values,
    kernelThreads(threads),
  );
}
