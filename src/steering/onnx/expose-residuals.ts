import { InputError } from '../../errors.js';
import { type ModelProto, type NodeProto, TensorProto_DataType } from '../../formats/onnx_pb.js';
import { integerAttribute } from '../../formats/onnx-attributes.js';
import { graphOf, insertNodes, onnxIntegers, onnxNode, onnxValueInfo, opsetVersion } from '../../formats/onnx-edit.js';
import type { OnnxGraph } from '../../formats/onnx-graph.js';
import type { ExposedPositions } from './patch-options.js';
import { isSkipNorm } from './residual-chain.js';
import { type ResidualPoint, residualName } from './residual-points.js';

/**
 * Adds outputs `residual.<layer>`: [batch, sequence, hidden] for `all`, else [batch, hidden], of the stream's type. Steering that was added
 * before is in them. Changes `model`; `graph` is its index from before the changes.
 * @returns names of the outputs
 * @throws InputError when an output has the name already, the type is unknown, or `last-attended` finds no `attention_mask`
 */
export function exposeResiduals(
  model: ModelProto,
  graph: OnnxGraph,
  points: readonly ResidualPoint[],
  positions: ExposedPositions,
): string[] {
  const proto = graphOf(model);
  const indices = positions === 'last-attended' ? lastAttended(model, graph) : undefined;
  return points.map((point) => {
    const name = residualName(point.layer);
    if (proto.output.some((output) => output.name === name) || graph.freshName(name) !== name) {
      throw new InputError(`the graph already has a tensor ${name}: it was patched before; patch the original`);
    }
    if (point.elementType === 0) {
      throw new InputError(
        `residual ${point.layer} (${point.tensor}): its element type is not known; declare it in value_info`,
      );
    }
    const hidden = point.hiddenSize ?? undefined;
    if (positions === 'all' && point.tensor === null) {
      appendSum(point, name);
    } else {
      const tensor = point.tensor ?? appendSum(point, graph.freshName(`${name}_sum`));
      insertReaders(proto, tensor, readers(proto, graph, tensor, name, positions, indices));
    }
    const dims = positions === 'all' ? ['batch_size', 'sequence_length', hidden] : ['batch_size', hidden];
    proto.output.push(onnxValueInfo(name, point.elementType, dims));
    return name;
  });
}

/** Asks a fused skip norm for its sum, output 3. */
function appendSum(point: ResidualPoint, name: string): string {
  const node = point.sum?.node;
  if (!node || !isSkipNorm(node)) throw new Error(`residual ${point.layer} has neither a tensor nor a fused norm`);
  while (node.output.length < 3) node.output.push('');
  node.output[3] = name;
  point.tensor = name;
  return name;
}

function readers(
  proto: ModelProto['graph'] & object,
  graph: OnnxGraph,
  tensor: string,
  name: string,
  positions: ExposedPositions,
  indices: ((tensor: string) => { readonly name: string; readonly nodes: readonly NodeProto[] }) | undefined,
): NodeProto[] {
  const nodeName = graph.freshName(`${name}_read`);
  if (positions === 'all') return [onnxNode('Identity', nodeName, [tensor], [name])];
  if (!indices) {
    const last = 'residual_last_index';
    if (!proto.initializer.some((known) => known.name === last)) proto.initializer.push(onnxIntegers(last, [-1], []));
    return [onnxNode('Gather', nodeName, [tensor, last], [name], [integerAttribute('axis', 1)])];
  }
  const index = indices(tensor);
  return [
    ...index.nodes,
    onnxNode('GatherND', nodeName, [tensor, index.name], [name], [integerAttribute('batch_dims', 1)]),
  ];
}

/** After the node that gives `tensor`; a graph input is there from the start. */
function insertReaders(proto: ModelProto['graph'] & object, tensor: string, nodes: readonly NodeProto[]): void {
  const producer = proto.node.find(({ output }) => output.includes(tensor));
  if (producer) insertNodes(proto, producer, 'after', nodes);
  else proto.node.unshift(...nodes);
}

/**
 * Nodes that give [batch, 1] indices into the window: the last position whose mask is 1, less what lies in the cache.
 * They are made once, from the first exposed tensor, and serve all.
 */
function lastAttended(model: ModelProto, graph: OnnxGraph) {
  const proto = graphOf(model);
  if (!proto.input.some(({ name }) => name === 'attention_mask')) {
    throw new InputError(
      'last-attended reads the input attention_mask, which this graph does not have; expose last or all',
    );
  }
  if (opsetVersion(model) < 12) {
    throw new InputError(
      `last-attended needs operator set 12, this graph has ${opsetVersion(model)}; expose last or all`,
    );
  }
  let made: string | undefined;
  return (tensor: string) => {
    if (made !== undefined) return { name: made, nodes: [] };
    const fresh = (part: string): string => graph.freshName(`residual_index_${part}`);
    const names = { mask: fresh('mask'), at: fresh('at'), total: fresh('total'), window: fresh('window') };
    const [axis, ids, length, past, index] = ['axis', 'shape', 'length', 'past', 'last'].map(fresh);
    proto.initializer.push(onnxIntegers(axis, [1], [1]));
    made = index;
    const node = (
      op: string,
      input: readonly string[],
      output: string,
      attributes = [] as ReturnType<typeof integerAttribute>[],
    ) => onnxNode(op, `${output}_node`, input, [output], attributes);
    return {
      name: index,
      nodes: [
        node('Cast', ['attention_mask'], names.mask, [integerAttribute('to', TensorProto_DataType.FLOAT)]),
        node('ArgMax', [names.mask], names.at, [
          integerAttribute('axis', 1),
          integerAttribute('keepdims', 1),
          integerAttribute('select_last_index', 1),
        ]),
        node('Shape', ['attention_mask'], names.total),
        node('Gather', [names.total, axis], names.window),
        node('Shape', [tensor], ids),
        node('Gather', [ids, axis], length),
        node('Sub', [names.window, length], past),
        node('Sub', [names.at, past], index),
      ],
    };
  };
}
