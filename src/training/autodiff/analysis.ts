import { onnxDType } from '../../formats/onnx.js';
import type { GraphProto, ModelProto, NodeProto, TensorProto } from '../../formats/onnx_pb.js';
import { attribute } from '../../formats/onnx-attributes.js';
import { graphOf, onnxTensor, opsetVersion } from '../../formats/onnx-edit.js';
import { indexOnnxGraph, type OnnxGraph } from '../../formats/onnx-graph.js';
import { onnxTensorBytes } from '../../formats/onnx-tensor.js';
import { DTYPE_BYTES } from '../../formats/tensor.js';
import { widenToF64 } from '../../kernels/dtypes.js';
import type { Precision } from '../types.js';
import { FLOAT_TYPES } from './precision.js';
import { type Feeds, NO_PROBE, type Probe, probeGraph } from './probe.js';

/** What is known of the tensors of a prepared graph. */
export interface GraphAnalysis {
  readonly model: ModelProto;
  readonly graph: GraphProto;
  readonly index: OnnxGraph;
  readonly precision: Precision;
  readonly opset: number;
  /** Extents on the example. @throws Error for a tensor that the graph does not have */
  dims(tensor: string): readonly number[];
  has(tensor: string): boolean;
  elementType(tensor: string): number;
  isFloat(tensor: string): boolean;
  bytes(tensor: string): number;
  /** The value is the same whatever is fed, and it is not among the wanted. */
  isConstant(tensor: string): boolean;
  /** The extents are the same whatever is fed. */
  hasFixedShape(tensor: string): boolean;
  /** The values of a constant; undefined for a tensor that is none. */
  constantValues(tensor: string): readonly number[] | undefined;
  /** A constant as an initializer of that name. */
  constantTensor(tensor: string): TensorProto | undefined;
  /** Place of the node that writes a tensor; -1 for inputs and initializers. */
  position(tensor: string): number;
}

/** Outputs whose shape the values of inputs decide: all inputs, or those at these positions. */
const SHAPED_BY_VALUES: Readonly<Record<string, 'all' | readonly number[]>> = {
  NonZero: 'all',
  Unique: 'all',
  Compress: 'all',
  NonMaxSuppression: 'all',
  Loop: 'all',
  If: 'all',
  Scan: 'all',
  Range: 'all',
  ConstantOfShape: [0],
  Reshape: [1],
  Expand: [1],
  Tile: [1],
  Pad: [1, 3],
  Slice: [1, 2, 3, 4],
  TopK: [1],
  OneHot: [1],
  Resize: [1, 2, 3],
  Squeeze: [1],
  Unsqueeze: [1],
  Split: [1],
  CenterCropPad: [1],
};

const RANDOM = new Set([
  'RandomNormal',
  'RandomUniform',
  'RandomNormalLike',
  'RandomUniformLike',
  'Bernoulli',
  'Multinomial',
]);
const SHAPE_READERS = new Set(['Shape', 'Size']);

/** Places of the inputs whose values decide the shape of a node's outputs. */
export function shapeOperands(node: NodeProto): number[] {
  if (node.opType.startsWith('Reduce')) return node.input.length > 1 ? [1] : [];
  const known = SHAPED_BY_VALUES[node.opType];
  if (known === undefined) return [];
  return known === 'all' ? node.input.map((_, place) => place) : known.filter((place) => place < node.input.length);
}

/** Whether the values that are fed may decide extents, beyond the extents of what is fed. */
export function hasShapesFromData(model: ModelProto): boolean {
  const graph = graphOf(model);
  const index = indexOnnxGraph(graph);
  const fed = new Set(graph.input.map(({ name }) => name));
  const readsFed = (name: string): boolean => [...index.ancestors(name)].some((ancestor) => fed.has(ancestor));
  return graph.node.some(
    (node) =>
      node.attribute.some(({ g }) => g !== undefined) ||
      shapeOperands(node).some((place) => node.input[place] !== '' && readsFed(node.input[place])),
  );
}

/** Runs a prepared model on an example and tells what its tensors are. @throws InputError as `probeGraph` */
export async function analyseGraph(
  model: ModelProto,
  wanted: readonly string[],
  precision: Precision,
  example: Feeds,
): Promise<GraphAnalysis> {
  const graph = graphOf(model);
  return describeGraph(model, wanted, precision, await probeGraph(model, example), indexOnnxGraph(graph));
}

/** What is known of a graph that has not run: its stored tensors, constants and element types. */
export function analyseUnrun(model: ModelProto, wanted: readonly string[], precision: Precision): GraphAnalysis {
  return describeGraph(model, wanted, precision, NO_PROBE, indexOnnxGraph(graphOf(model)));
}

function describeGraph(
  model: ModelProto,
  wanted: readonly string[],
  precision: Precision,
  probe: Probe,
  index: OnnxGraph,
): GraphAnalysis {
  const graph = index.proto;
  const position = new Map<string, number>();
  graph.node.forEach((node, at) => {
    for (const output of node.output) position.set(output, at);
  });
  const { constant, fixed } = constancy(graph, index, new Set(wanted));

  const elementType = (tensor: string): number =>
    index.initializer(tensor)?.dataType ?? (probe.elementType(tensor) || index.elementType(tensor));
  const dims = (tensor: string): readonly number[] => {
    const found = index.initializer(tensor)?.dims.map(Number) ?? probe.tensor(tensor)?.dims;
    if (found === undefined) throw new Error(`the graph has no tensor ${JSON.stringify(tensor)}`);
    return found;
  };
  const stored = (tensor: string): { bytes: Uint8Array; type: number } | undefined => {
    if (!constant.has(tensor)) return undefined;
    const initializer = index.initializer(tensor) ?? constantOf(index.producer(tensor));
    if (initializer) return { bytes: onnxTensorBytes(initializer), type: initializer.dataType };
    const data = probe.tensor(tensor)?.data;
    if (!ArrayBuffer.isView(data)) return undefined;
    return { bytes: new Uint8Array(data.buffer, data.byteOffset, data.byteLength), type: elementType(tensor) };
  };
  return {
    model,
    graph,
    index,
    precision,
    opset: opsetVersion(model),
    dims,
    has: (tensor) => index.initializer(tensor) !== undefined || probe.tensor(tensor) !== undefined,
    elementType,
    isFloat: (tensor) => FLOAT_TYPES.has(elementType(tensor)),
    bytes(tensor) {
      const dtype = onnxDType(elementType(tensor));
      return dims(tensor).reduce((product, extent) => product * extent, dtype ? DTYPE_BYTES[dtype] : 8);
    },
    isConstant: (tensor) => constant.has(tensor),
    hasFixedShape: (tensor) => fixed.has(tensor),
    constantValues(tensor) {
      const found = stored(tensor);
      const dtype = found && onnxDType(found.type);
      if (!found || !dtype) return undefined;
      const values = new Float64Array(found.bytes.length / DTYPE_BYTES[dtype]);
      widenToF64(found.bytes, dtype, values);
      return Array.from(values);
    },
    constantTensor(tensor) {
      const initializer = constant.has(tensor) ? index.initializer(tensor) : undefined;
      if (initializer) return initializer;
      const found = stored(tensor);
      return found && onnxTensor(tensor, found.type, dims(tensor), found.bytes);
    },
    position: (tensor) => position.get(tensor) ?? -1,
  };
}

function constantOf(node: NodeProto | undefined): TensorProto | undefined {
  return node?.opType === 'Constant' ? attribute(node, 'value')?.t : undefined;
}

/** Tensors whose values do not depend on what is fed, and tensors whose extents do not. */
function constancy(
  graph: GraphProto,
  index: OnnxGraph,
  wanted: ReadonlySet<string>,
): { constant: ReadonlySet<string>; fixed: ReadonlySet<string> } {
  const constant = new Set<string>(['']);
  const fixed = new Set<string>(['']);
  for (const { name } of graph.initializer) {
    fixed.add(name);
    if (!wanted.has(name)) constant.add(name);
  }
  for (const { name } of graph.input) {
    if (index.declaredShape(name)?.every((extent) => typeof extent === 'number' && extent >= 0)) fixed.add(name);
  }
  for (const node of graph.node) {
    const subgraphs = node.attribute.some(({ g }) => g !== undefined);
    const known = !subgraphs && !RANDOM.has(node.opType);
    const isConstant =
      known && node.input.every((name) => constant.has(name) || (SHAPE_READERS.has(node.opType) && fixed.has(name)));
    const isFixed =
      known &&
      node.input.every((name) => fixed.has(name)) &&
      shapeOperands(node).every((place) => constant.has(node.input[place]));
    for (const output of node.output) {
      if (isConstant) constant.add(output);
      if (isFixed || isConstant) fixed.add(output);
    }
  }
  return { constant, fixed };
}
