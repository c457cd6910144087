import { Tensor } from 'onnxruntime-node';
import type { ModelProto, NodeProto } from '../formats/onnx_pb.js';
import { graphOf } from '../formats/onnx-edit.js';
import { indexOnnxGraph } from '../formats/onnx-graph.js';
import { shapeOperands } from './autodiff/analysis.js';

/** Buffers that the runtime writes outputs into, kept from run to run. */
export interface Activations {
  /** What to pass to the session for outputs of these names, where inputs have the extents of `key`. */
  fetches(names: readonly string[], key: string): Record<string, Tensor | null>;
  /** Remembers the extents of what came back. */
  learn(outputs: Readonly<Record<string, Tensor>>, key: string): void;
}

type Elements = Float32Array | Float64Array | BigInt64Array | Int32Array | Uint32Array | Uint8Array;

/** Shapes of a few batch sizes: the last batch of an epoch is often smaller. */
const MOST_KEYS = 8;

function elementsLike(data: Tensor['data'], length: number): Elements | undefined {
  if (data instanceof Float32Array) return new Float32Array(length);
  if (data instanceof Float64Array) return new Float64Array(length);
  if (data instanceof BigInt64Array) return new BigInt64Array(length);
  if (data instanceof Int32Array) return new Int32Array(length);
  if (data instanceof Uint32Array) return new Uint32Array(length);
  if (data instanceof Uint8Array) return new Uint8Array(length);
  return undefined;
}

/** Whether extents of some tensor may depend on what is fed, beyond the extents of the inputs. */
function hasShapesFromData(model: ModelProto): boolean {
  const graph = graphOf(model);
  const index = indexOnnxGraph(graph);
  const fed = new Set(graph.input.map(({ name }) => name));
  const readsFed = (node: NodeProto): boolean =>
    node.attribute.some(({ g }) => g !== undefined) ||
    shapeOperands(node).some((place) => [...index.ancestors(node.input[place])].some((name) => fed.has(name)));
  return graph.node.some(readsFed);
}

/**
 * Keeps the buffers of a session's outputs: the first run of each shape lets the runtime allocate and tells the extents,
 * later ones write into buffers of these extents. Where the data decide extents, the runtime allocates always.
 */
export function keepActivations(model: ModelProto): Activations {
  const free = hasShapesFromData(model);
  const known = new Map<string, Map<string, readonly number[]>>();
  const buffers = new Map<string, Elements>();
  const types = new Map<string, Tensor['type']>();
  return {
    fetches(names, key) {
      const shapes = known.get(key);
      const fetch = (name: string): Tensor | null => {
        const dims = shapes?.get(name);
        const buffer = buffers.get(name);
        const type = types.get(name);
        if (!dims || !buffer || !type) return null;
        const length = dims.reduce((product, extent) => product * extent, 1);
        return new Tensor(type, buffer.subarray(0, length) as Float32Array, dims) as Tensor;
      };
      return Object.fromEntries(names.map((name) => [name, fetch(name)]));
    },
    learn(outputs, key) {
      if (free || known.has(key)) return;
      if (known.size >= MOST_KEYS) known.clear();
      const shapes = new Map<string, readonly number[]>();
      for (const [name, tensor] of Object.entries(outputs)) {
        shapes.set(name, tensor.dims);
        types.set(name, tensor.type);
        const kept = buffers.get(name);
        if (kept && kept.length >= tensor.size) continue;
        const made = elementsLike(tensor.data, tensor.size);
        if (made) buffers.set(name, made);
        else shapes.delete(name);
      }
      known.set(key, shapes);
    },
  };
}
