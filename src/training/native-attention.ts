import { type SelfAttention, selfAttentionBackward, selfAttentionForward } from '../kernels/self-attention.js';
import type { ModelDescription } from '../models/description.js';
import type { RopeFeeds } from '../models/rope-feeds.js';
import type { AttentionCall, AttentionTensors, DecoderAttention } from './decoder-attention.js';
import { singles } from './workspace.js';

export interface NativeAttentionSettings {
  readonly model: ModelDescription;
  readonly threads: number;
  readonly ropes: RopeFeeds;
}

/** Attention by the native kernel, in f32 and without extensions. It keeps one number a query and head. */
export function createNativeAttention({ model, threads, ropes }: NativeAttentionSettings): DecoderAttention {
  const sums = model.layers.map(() => new Float32Array(0));

  const requestOf = ({ layer, batch, length }: AttentionCall, tensors: AttentionTensors): SelfAttention => {
    const { heads, kvHeads, headDim, scale, window, softcap, rope } = model.layers[layer].attention;
    const count = batch * length * heads;
    if (sums[layer].length < count) sums[layer] = new Float32Array(count);
    const tables = rope === undefined ? undefined : ropes.feeds(rope, [0], length, length);
    return {
      queries: singles(tensors.queries),
      keys: singles(tensors.keys),
      values: singles(tensors.values),
      mixed: singles(tensors.heads),
      sums: sums[layer],
      batch,
      length,
      heads,
      kvHeads,
      headDim,
      scale,
      ...(window !== undefined && { window }),
      ...(softcap !== undefined && { softcap }),
      ...(rope !== undefined &&
        tables && {
          rotation: { dims: model.ropes[rope].dims, cosines: singles(tables[0]), sines: singles(tables[1]) },
        }),
    };
  };

  const forward = (call: AttentionCall, tensors: AttentionTensors): Promise<number> => {
    selfAttentionForward(requestOf(call, tensors), threads);
    return Promise.resolve(0);
  };
  return {
    infer: forward,
    forward,
    backward(call, tensors, { heads, queries, keys, values }) {
      if (queries && keys && values) {
        const gradients = {
          mixed: singles(heads),
          queries: singles(queries),
          keys: singles(keys),
          values: singles(values),
        };
        selfAttentionBackward(requestOf(call, tensors), gradients, threads);
      }
      return Promise.resolve();
    },
    close: () => Promise.resolve(),
  };
}
