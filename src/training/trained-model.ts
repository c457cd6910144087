import type { TensorStore } from '../formats/tensor.js';
import { EXPERT_MAP } from '../models/description.js';
import { type MemoryTensor, memoryStore } from '../models/memory-model.js';
import { locateHuggingFace, type ModelFiles } from '../models/model-files.js';
import type { AttentionExtension } from './attention-composition.js';
import type { DecoderWeights, LowRankAdapter } from './decoder-weights.js';
import { foldIntoQueries, unfoldableQueries } from './folded-queries.js';
import type { Floats } from './types.js';

/**
 * The model whose tensors are those of a student, read where they lie; those with an adapter are sums made now, queries
 * that take factors of an extension products.
 */
export function trainedModel(
  files: ModelFiles,
  weights: DecoderWeights,
  adapters: readonly LowRankAdapter[],
  extension?: AttentionExtension,
): ModelFiles {
  const tensors = new Map(weights.tensors);
  for (const adapter of adapters) {
    const own = tensors.get(adapter.tensor);
    if (own) tensors.set(adapter.tensor, merged(files, weights, own, adapter));
  }
  if (extension?.scoreFactors && unfoldableQueries(files.description) === undefined) {
    weights.extras.forEach((extras, layer) => {
      const factors = extension.scoreFactors?.(extras);
      if (factors) foldIntoQueries(files.description, weights, { layer, factors }, tensors);
    });
  }
  const store = withExpertMaps(files, memoryStore(files.path, tensors));
  return { ...locateHuggingFace(files.path, files.description, store), path: files.path };
}

/** The maps of merged experts are integers, and nothing that is trained: they are read where they were. */
function withExpertMaps({ weights }: ModelFiles, memory: TensorStore): TensorStore {
  const maps = new Map(
    weights.layers.flatMap((layer) => {
      const map = layer.get(EXPERT_MAP);
      return map ? [[map.tensor.name, map] as const] : [];
    }),
  );
  if (maps.size === 0) return memory;
  const tensors = new Map(memory.tensors);
  for (const [name, { tensor }] of maps) tensors.set(name, tensor);
  return {
    ...memory,
    tensors,
    readInto(tensor, start, length, target) {
      (maps.get(tensor.name)?.store ?? memory).readInto(tensor, start, length, target);
    },
  };
}

/** W + scale B A, turned where linears are stored [in, out]. */
function merged(
  files: ModelFiles,
  { parameters }: DecoderWeights,
  { shape, data }: MemoryTensor,
  { rank, scale, a, b }: LowRankAdapter,
): MemoryTensor {
  const valuesOf = (name: string): Floats => {
    const { offset, length } = parameters.parameters.find((one) => one.name === name) ?? { offset: 0, length: 0 };
    return parameters.values.subarray(offset, offset + length);
  };
  const [left, right] = [valuesOf(b.name), valuesOf(a.name)];
  const out = left.length / rank;
  const width = right.length / rank;
  const turned = files.description.linearLayout === 'in-out';
  const sum = data.slice();
  for (let o = 0; o < out; o++) {
    for (let i = 0; i < width; i++) {
      let product = 0;
      for (let r = 0; r < rank; r++) product += left[o * rank + r] * right[r * width + i];
      sum[turned ? i * out + o : o * width + i] += scale * product;
    }
  }
  return { shape, data: sum };
}
