import { InputError } from '../../errors.js';
import type { ModelProto } from '../../formats/onnx_pb.js';
import { graphOf, setMetadata } from '../../formats/onnx-edit.js';
import { indexOnnxGraph } from '../../formats/onnx-graph.js';
import { exposeResiduals } from './expose-residuals.js';
import type { ExposedPositions, SteeringRecipe } from './patch-options.js';
import { findResidualChain, type ResidualChain } from './residual-chain.js';
import { namedPoint, type ResidualPoint, residualPoints } from './residual-points.js';
import { addSteering, floatTypeName, type SteeringOperand } from './steering-inputs.js';

/** What is done to a graph. */
export interface PatchRequest {
  /** 0-based blocks, -1 the embeddings; 'all' every block. With `tensors` the number that each of them is given. */
  readonly layers: readonly number[] | 'all';
  /** Tensors taken as residuals instead of looking for the stream; as many as `layers`. */
  readonly tensors?: readonly string[];
  readonly steer?: {
    readonly recipe: SteeringRecipe;
    operand(layer: number): SteeringOperand;
  };
  readonly expose?: ExposedPositions;
  /** Blocks by the model's config.json. */
  readonly configLayers?: number;
}

/** One layer as it was patched. */
export interface PatchedLayer {
  readonly layer: number;
  /** The residual before the patch; null where it was only inside a fused norm. */
  readonly tensor: string | null;
  readonly sumNode: string | null;
  readonly sumOperator: string | null;
  readonly branch: string | null;
  readonly type: string;
  readonly elementType: number;
  readonly hiddenSize: number | null;
  readonly steering: string | null;
  readonly output: string | null;
}

export interface GraphPatch {
  /** Null when tensors were named. */
  readonly chain: ResidualChain | null;
  readonly layers: readonly PatchedLayer[];
}

/**
 * Adds steering and outputs of the residual stream to a model, in place. Everything else keeps its name and place.
 * @throws InputError as `findResidualChain`, `addSteering` and `exposeResiduals`
 */
export function patchGraph(model: ModelProto, request: PatchRequest): GraphPatch {
  const graph = indexOnnxGraph(graphOf(model));
  const { chain, points } = choosePoints(graph, request);
  const before = points.map(({ tensor }) => tensor);
  const steered = points.map((point) =>
    request.steer ? addSteering(model, graph, point, request.steer.operand(point.layer), request.steer.recipe) : null,
  );
  const exposed = request.expose ? exposeResiduals(model, graph, points, request.expose) : [];
  const layers = points.map(
    (point, index): PatchedLayer => ({
      layer: point.layer,
      tensor: before[index],
      sumNode: point.sum?.node.name ?? null,
      sumOperator: point.sum?.node.opType ?? null,
      branch: point.sum?.branch ?? null,
      type: floatTypeName(point.elementType),
      elementType: point.elementType,
      hiddenSize: point.hiddenSize,
      steering: steered[index],
      output: exposed[index] ?? null,
    }),
  );
  setMetadata(
    model,
    'surprisal.steering',
    JSON.stringify({ layers: layers.map(({ layer, steering, output }) => ({ layer, steering, output })) }),
  );
  return { chain, layers };
}

function choosePoints(
  graph: ReturnType<typeof indexOnnxGraph>,
  request: PatchRequest,
): { chain: ResidualChain | null; points: ResidualPoint[] } {
  const { tensors, layers, configLayers } = request;
  if (tensors) {
    if (layers === 'all' || layers.length !== tensors.length) {
      throw new InputError(
        `give as many layers as tensors: the numbers that ${tensors.length} named tensors are to have`,
      );
    }
    return { chain: null, points: tensors.map((tensor, index) => namedPoint(graph, tensor, layers[index], null)) };
  }
  const chain = findResidualChain(graph, configLayers === undefined ? {} : { layers: configLayers });
  const wanted = layers === 'all' ? Array.from({ length: chain.blocks }, (_, layer) => layer) : layers;
  return { chain, points: residualPoints(graph, chain, wanted) };
}
