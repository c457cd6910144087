import {
  type ModelProto,
  type NodeProto,
  TensorProto_DataType as Type,
  type ValueInfoProto,
} from '../../formats/onnx_pb.js';
import { attribute } from '../../formats/onnx-attributes.js';
import { changedNode, onnxNode, onnxValueInfo, withGraph } from '../../formats/onnx-edit.js';
import { readBy } from '../../formats/onnx-graph.js';
import type { GraphAnalysis } from './analysis.js';
import type { NodeWriter } from './backward-graph.js';
import { planSavedTensors } from './saved-tensors.js';
import type { Differentiated, SavedTensor } from './types.js';

export const gradientName = (tensor: string): string => `grad.${tensor}`;
const shapeName = (tensor: string): string => `shape.${tensor}`;

/** Nodes that `outputs` depend on, in the order in which they stand. */
export function liveNodes(nodes: readonly NodeProto[], outputs: Iterable<string>): NodeProto[] {
  const wanted = new Set(outputs);
  const live: NodeProto[] = [];
  for (let at = nodes.length - 1; at >= 0; at--) {
    const node = nodes[at];
    if (!node.output.some((name) => wanted.has(name))) continue;
    live.push(node);
    for (const name of readBy(node)) wanted.add(name);
  }
  return live.reverse();
}

/** Drops optional outputs at the end of a node that nobody reads; some kernels are slower for writing them. */
export function dropUnreadOutputs(nodes: readonly NodeProto[], outputs: Iterable<string>): NodeProto[] {
  const read = new Set(outputs);
  for (const node of nodes) for (const name of readBy(node)) read.add(name);
  return nodes.map((node) => {
    let kept = node.output.length;
    if (!OPTIONAL_OUTPUTS[node.opType]) return node;
    while (kept > 1 && !read.has(node.output[kept - 1])) kept--;
    return kept === node.output.length ? node : changedNode(node, { output: node.output.slice(0, kept) });
  });
}

/** Operators with optional outputs that rules may read, and the number of all outputs. */
export const OPTIONAL_OUTPUTS: Readonly<Record<string, number>> = { LayerNormalization: 3, MaxPool: 2 };

/** A declaration with the rank of a tensor, and its extents where they never change. */
export function declare(analysis: GraphAnalysis, tensor: string, name = tensor): ValueInfoProto {
  const dims = analysis.dims(tensor);
  return onnxValueInfo(
    name,
    analysis.elementType(tensor),
    analysis.hasFixedShape(tensor) ? dims : dims.map(() => undefined),
  );
}

/** Gives the gradients their public names. */
export function nameGradients(
  writer: NodeWriter,
  gradients: ReadonlyMap<string, string>,
  nodes: readonly NodeProto[],
): NodeProto[] {
  const renamed = new Map<string, string>();
  const written = new Set(nodes.flatMap(({ output }) => output));
  const copies: NodeProto[] = [];
  for (const [tensor, value] of gradients) {
    const name = gradientName(tensor);
    if (written.has(value) && !renamed.has(value)) renamed.set(value, name);
    else copies.push(onnxNode('Identity', writer.freshName(`${name}.copy`), [renamed.get(value) ?? value], [name]));
  }
  const rename = (name: string): string => renamed.get(name) ?? name;
  return nodes
    .map((node) => changedNode(node, { input: node.input.map(rename), output: node.output.map(rename) }))
    .concat(copies);
}

/** Tensors of the forward graph that nodes read, apart by whether more than their shape is wanted. */
function tensorsRead(analysis: GraphAnalysis, nodes: readonly NodeProto[]): { values: string[]; shapesOnly: string[] } {
  const values = new Set<string>();
  const shapes = new Set<string>();
  for (const node of nodes) {
    for (const name of node.input) {
      if (!analysis.has(name)) continue;
      (node.opType === 'Shape' ? shapes : values).add(name);
    }
  }
  return { values: [...values], shapesOnly: [...shapes].filter((name) => !values.has(name)) };
}

/**
 * Cuts a graph and what the rules wrote beside it into a forward graph that gives saved tensors and a backward graph that
 * takes them.
 * @param cotangents names of the inputs that carry the cotangents of the seeds
 * @param gradients value that is the gradient of each wanted tensor
 */
export function splitGraph(
  analysis: GraphAnalysis,
  writer: NodeWriter,
  cotangents: ReadonlyMap<string, string>,
  gradients: ReadonlyMap<string, string>,
  wanted: readonly string[],
  recompute: boolean,
): Differentiated {
  const { graph, model } = analysis;
  const written = liveNodes(nameGradients(writer, gradients, writer.nodes), [...gradients.keys()].map(gradientName));
  const { values, shapesOnly } = tensorsRead(analysis, written);
  const plan = planSavedTensors(analysis, values, shapesOnly, cotangents, recompute);

  const shapeSaved = new Set(plan.shapes);
  const own = written.map((node) => {
    if (node.opType !== 'Shape') return node;
    const [tensor] = node.input;
    const from = plan.shapeFrom.get(tensor);
    if (from !== undefined) return changedNode(node, { input: [from] });
    return shapeSaved.has(tensor) ? shapePart(node, shapeName(tensor), writer) : node;
  });
  const saved: SavedTensor[] = [
    ...plan.saved.map((name) => ({ name, elementType: analysis.elementType(name) })),
    ...plan.shapes.map((name) => ({ name: shapeName(name), elementType: Type.INT64 })),
  ];
  const backwardOutputs = [...gradients.keys()].map((name) => declare(analysis, name, gradientName(name)));
  const backward = withGraph(model, {
    name: `${graph.name}.backward`,
    node: dropUnreadOutputs(
      [...plan.repeated, ...own],
      backwardOutputs.map(({ name }) => name),
    ),
    initializer: [
      ...writer.initializers,
      ...[...plan.constants].flatMap((name) => analysis.constantTensor(name) ?? []),
    ],
    input: [
      ...[...cotangents].map(([seed, name]) => declare(analysis, seed, name)),
      ...plan.saved.map((name) => declare(analysis, name)),
      ...plan.shapes.map((name) => onnxValueInfo(shapeName(name), Type.INT64, [analysis.dims(name).length])),
      ...[...plan.inputs].map((name) => declare(analysis, name)),
    ],
    output: backwardOutputs,
  });

  const declared = new Set(graph.output.map(({ name }) => name));
  const outputs = [
    ...graph.output,
    ...plan.saved.filter((name) => !declared.has(name)).map((name) => declare(analysis, name)),
    ...plan.shapes.map((name) => onnxValueInfo(shapeName(name), Type.INT64, [analysis.dims(name).length])),
  ];
  const shapeNodes = plan.shapes.map((name) =>
    onnxNode('Shape', writer.freshName(`${shapeName(name)}.node`), [name], [shapeName(name)]),
  );
  const names = outputs.map(({ name }) => name);
  const forward = withGraph(model, forwardGraph(analysis, [...graph.node, ...shapeNodes], names, wanted, outputs));
  const unreached = wanted.filter((name) => !gradients.has(name));
  return { forward: withReadInitializers(forward), backward: withReadInitializers(backward), saved, unreached };
}

/** What a node Shape gives, from the whole shape of its input. */
function shapePart(node: NodeProto, shape: string, writer: NodeWriter): NodeProto {
  const bound = (name: string): number | undefined => {
    const own = attribute(node, name);
    return own && Number(own.i);
  };
  const [start, end] = [bound('start'), bound('end')];
  if (start === undefined && end === undefined) return onnxNode('Identity', node.name, [shape], node.output);
  const bounds = [writer.integers([start ?? 0]), writer.integers([end ?? Number.MAX_SAFE_INTEGER])];
  return onnxNode('Slice', node.name, [shape, ...bounds], node.output);
}

function forwardGraph(
  analysis: GraphAnalysis,
  nodes: readonly NodeProto[],
  names: readonly string[],
  wanted: readonly string[],
  output: ValueInfoProto[],
): {
  node: NodeProto[];
  input: ValueInfoProto[];
  initializer: typeof analysis.graph.initializer;
  output: ValueInfoProto[];
} {
  const { graph } = analysis;
  const moved = new Set(wanted);
  return {
    node: dropUnreadOutputs(liveNodes(nodes, names), names),
    input: [
      ...graph.input,
      ...graph.initializer.filter(({ name }) => moved.has(name)).map(({ name }) => declare(analysis, name)),
    ],
    initializer: graph.initializer.filter(({ name }) => !moved.has(name)),
    output,
  };
}

/** The model without initializers that nothing reads. */
export function withReadInitializers(model: ModelProto): ModelProto {
  const graph = model.graph;
  if (!graph) return model;
  const read = new Set(graph.node.flatMap(readBy));
  for (const { name } of graph.output) read.add(name);
  graph.initializer = graph.initializer.filter(({ name }) => read.has(name));
  return model;
}
