import { InputError } from '../../errors.js';
import type { OnnxGraph } from '../../formats/onnx-graph.js';
import type { ResidualChain, ResidualSum } from './residual-chain.js';

/** A place of the residual stream that is read or steered. `tensor` follows the graph while it is changed. */
export interface ResidualPoint {
  /** 0-based block whose output it is; -1 the embeddings. */
  readonly layer: number;
  /** The residual; null where it exists only inside a fused norm. */
  tensor: string | null;
  /** The sum that gives it; absent for embeddings and for a tensor that the user named. */
  readonly sum?: ResidualSum;
  /** `TensorProto.DataType` of the stream there. */
  readonly elementType: number;
  /** Null when the graph does not say it. */
  readonly hiddenSize: number | null;
}

export const residualName = (layer: number): string => `residual.${layer}`;
export const steeringName = (layer: number): string => `steer.${layer}`;

/** The points of some layers, in the order given. @throws InputError for a layer that the model does not have */
export function residualPoints(graph: OnnxGraph, chain: ResidualChain, layers: readonly number[]): ResidualPoint[] {
  const { blocks, blockSums, embedding, hiddenSize } = chain;
  return layers.map((layer) => {
    if (layer === -1) return { layer, tensor: embedding, elementType: chain.elementType, hiddenSize };
    if (!Number.isInteger(layer) || layer < -1 || layer >= blocks) {
      throw new InputError(
        `layer ${layer} is not in this graph: it has blocks 0 to ${blocks - 1}, and -1 the embeddings`,
      );
    }
    const sum = blockSums[layer];
    return {
      layer,
      tensor: sum.output,
      sum,
      elementType: graph.elementType(sum.output ?? sum.branch) || graph.elementType(sum.branch),
      hiddenSize,
    };
  });
}

/** A point at a tensor that the user named, taken as residual `layer`. @throws InputError when the graph has no such tensor */
export function namedPoint(graph: OnnxGraph, tensor: string, layer: number, hiddenSize: number | null): ResidualPoint {
  if (!graph.producer(tensor)) {
    throw new InputError(`--tensor ${tensor}: no node of the graph gives a tensor of this name`);
  }
  const last = graph.declaredShape(tensor)?.at(-1);
  return {
    layer,
    tensor,
    elementType: graph.elementType(tensor),
    hiddenSize: typeof last === 'number' && last > 0 ? last : hiddenSize,
  };
}
