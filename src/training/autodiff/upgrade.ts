import { InputError } from '../../errors.js';
import type { GraphProto, NodeProto } from '../../formats/onnx_pb.js';
import { attribute, integerAttribute } from '../../formats/onnx-attributes.js';
import { changedNode, onnxIntegers, onnxNode } from '../../formats/onnx-edit.js';

/** Rules write operators of this version, so the graphs that they join have it at least. */
export const RULE_OPSET = 18;
const OLDEST_OPSET = 11;

/** Operators that took their axes as an attribute before the version. */
const AXES_BECAME_INPUT: Readonly<Record<string, number>> = {
  Squeeze: 13,
  Unsqueeze: 13,
  ReduceSum: 13,
  ReduceL1: 18,
  ReduceL2: 18,
  ReduceLogSum: 18,
  ReduceLogSumExp: 18,
  ReduceMax: 18,
  ReduceMean: 18,
  ReduceMin: 18,
  ReduceProd: 18,
  ReduceSumSquare: 18,
};

/**
 * Rewrites the nodes of a graph of opset 11 to 17 as opset 18 has them: axes and split sizes as inputs, softmax over one
 * axis. The graph is changed in place. @throws InputError below opset 11
 */
export function upgradeGraph(graph: GraphProto, opset: number, freshName: (wanted: string) => string): void {
  if (opset >= RULE_OPSET) return;
  if (opset < OLDEST_OPSET) {
    throw new InputError(`the graph has operator set ${opset}; export it again with operator set 13 or later`);
  }
  const integers = (wanted: string, values: readonly number[]): string => {
    const name = freshName(wanted);
    graph.initializer.push(onnxIntegers(name, values, [values.length]));
    return name;
  };
  graph.node = graph.node.flatMap((node) => upgradeNode(node, opset, integers, freshName));
}

function upgradeNode(
  node: NodeProto,
  opset: number,
  integers: (wanted: string, values: readonly number[]) => string,
  freshName: (wanted: string) => string,
): NodeProto[] {
  const { opType } = node;
  if (node.domain !== '' && node.domain !== 'ai.onnx') return [node];
  const without = (name: string): NodeProto['attribute'] => node.attribute.filter((entry) => entry.name !== name);
  const since = AXES_BECAME_INPUT[opType];
  if (since !== undefined && opset < since) {
    const axes = attribute(node, 'axes')?.ints.map(Number);
    if (axes === undefined) return [node];
    const input = [node.input[0], integers(`${node.output[0]}.axes`, axes)];
    return [changedNode(node, { input, attribute: without('axes') })];
  }
  if (opType === 'Split') {
    const sizes = attribute(node, 'split')?.ints.map(Number);
    if (sizes !== undefined) {
      const input = [node.input[0], integers(`${node.output[0]}.split`, sizes)];
      return [changedNode(node, { input, attribute: without('split') })];
    }
    if (node.input.length > 1 && node.input[1] !== '') return [node];
    const added = [...node.attribute, integerAttribute('num_outputs', node.output.length)];
    return [changedNode(node, { attribute: added })];
  }
  if (opset < 13 && (opType === 'Softmax' || opType === 'LogSoftmax')) {
    // Before 13 the axes from `axis` on were one.
    const [flat, scaled, shape] = ['flat', 'rows', 'shape'].map((part) => freshName(`${node.output[0]}.${part}`));
    const axis = integerAttribute('axis', Number(attribute(node, 'axis')?.i ?? 1n));
    return [
      onnxNode('Flatten', `${node.name}.flatten`, [node.input[0]], [flat], [axis]),
      onnxNode(opType, node.name, [flat], [scaled], [integerAttribute('axis', 1)]),
      onnxNode('Shape', `${node.name}.shape`, [node.input[0]], [shape]),
      onnxNode('Reshape', `${node.name}.reshape`, [scaled, shape], [node.output[0]]),
    ];
  }
  if (opset < 12 && opType === 'Dropout') return [changedNode(node, { attribute: without('ratio') })];
  return [node];
}
