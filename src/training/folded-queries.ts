import type { AttentionDescription, ModelDescription } from '../models/description.js';
import type { MemoryTensor } from '../models/memory-model.js';
import type { DecoderWeights, WeightView } from './decoder-weights.js';

/** Why the queries of a model cannot carry a factor of their head's scores; undefined where they can. */
export function unfoldableQueries({ layers }: ModelDescription): string | undefined {
  for (const { attention } of layers) {
    if (attention.softcap !== undefined) return 'scores are capped before temperatures divide them';
    if (attention.clip !== undefined) return 'queries are clipped';
    if (attention.qkNorm === 'head') return 'queries are normalised head by head';
  }
  return undefined;
}

/** First row of a head's queries in the stored matrix. */
function firstQueryRow({ headDim, projection }: AttentionDescription, role: string, head: number): number {
  return head * (projection === 'fused-by-head' && role !== 'q_norm' ? 3 * headDim : headDim);
}

/** What makes the queries: the norm behind the projection where there is one, else the projection and its bias. */
function queryRoles({ qkNorm, projection }: AttentionDescription): readonly string[] {
  if (qkNorm === 'full') return ['q_norm'];
  return projection === 'separate' ? ['q', 'q_bias'] : ['qkv', 'qkv_bias'];
}

/**
 * Multiplies the queries of every head of a layer by a factor, in copies that take the tensors' place.
 * @param tensors of the model by name
 */
export function foldIntoQueries(
  model: ModelDescription,
  weights: DecoderWeights,
  { layer, factors }: { readonly layer: number; readonly factors: Float64Array },
  tensors: Map<string, MemoryTensor>,
): void {
  const { attention } = model.layers[layer];
  const views = weights.layers[layer];
  for (const role of queryRoles(attention)) {
    const view = views.get(role);
    const stored = view && tensors.get(view.tensor);
    if (!view || !stored) continue;
    const data = stored.data.slice();
    const start = offsetOf(view, weights);
    const isMatrix = view.dims.length === 2;
    const isTurned = isMatrix && model.linearLayout === 'in-out';
    const [rows, columns] = isTurned ? [view.dims[1], view.dims[0]] : [view.dims[0], isMatrix ? view.dims[1] : 1];
    factors.forEach((factor, head) => {
      const first = firstQueryRow(attention, role, head);
      for (let row = first; row < first + attention.headDim; row++) {
        for (let column = 0; column < columns; column++) {
          data[start + (isTurned ? column * rows + row : row * columns + column)] *= factor;
        }
      }
    });
    tensors.set(view.tensor, { ...stored, data });
  }
}

/** First element of a view in the tensor that it is part of. */
function offsetOf({ tensor, values }: WeightView, { tensors }: DecoderWeights): number {
  const whole = tensors.get(tensor);
  return whole ? (values.byteOffset - whole.data.byteOffset) / values.BYTES_PER_ELEMENT : 0;
}
