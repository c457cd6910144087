import { InputError } from '../../errors.js';
import {
  type GraphProto,
  type ModelProto,
  type NodeProto,
  TensorProto_DataType as Type,
} from '../../formats/onnx_pb.js';
import { type AttributeValue, attribute, attributeOf } from '../../formats/onnx-attributes.js';
import { graphOf, onnxNode, onnxTensor, onnxValueInfo, withGraph } from '../../formats/onnx-edit.js';
import { indexOnnxGraph, type OnnxGraph } from '../../formats/onnx-graph.js';
import { onnxFloats } from './precision.js';

/** The int64 vector [2] that decides all masks of a run. */
export const DROPOUT_SEED = 'dropout.seed';

/** Multipliers and shifts of a 32-bit mixing function of low bias (Wellons 2018, "lowbias32"). */
const MIX_ROUNDS: readonly [shift: number, multiplier: number | undefined][] = [
  [16, 0x7feb352d],
  [15, 0x846ca68b],
  [16, undefined],
];

/** Writes nodes in front of one output of a graph. */
interface MaskWriter {
  readonly nodes: NodeProto[];
  emit(operator: string, inputs: readonly string[], attributes?: Readonly<Record<string, AttributeValue>>): string;
  unsigned(value: number): string;
}

function createMaskWriter(graph: GraphProto, index: OnnxGraph, prefix: string): MaskWriter {
  const nodes: NodeProto[] = [];
  return {
    nodes,
    emit(operator, inputs, attributes = {}) {
      const name = index.freshName(`${prefix}.${operator}`);
      const list = Object.entries(attributes).map(([key, value]) => attributeOf(key, value));
      nodes.push(onnxNode(operator, name, inputs, [name], list));
      return name;
    },
    unsigned(value) {
      const name = index.freshName(`${prefix}.constant`);
      const bytes = new Uint8Array(Uint32Array.of(value).buffer);
      graph.initializer.push(onnxTensor(name, Type.UINT32, [], bytes));
      return name;
    },
  };
}

function mixed(writer: MaskWriter, words: string): string {
  let state = words;
  for (const [shift, multiplier] of MIX_ROUNDS) {
    const shifted = writer.emit('BitShift', [state, writer.unsigned(shift)], { direction: 'RIGHT' });
    state = writer.emit('BitwiseXor', [state, shifted]);
    if (multiplier !== undefined) state = writer.emit('Mul', [state, writer.unsigned(multiplier)]);
  }
  return state;
}

/** Share of a Dropout node, from its attribute or input. @throws InputError when it is computed */
function ratioOf(node: NodeProto, index: OnnxGraph): number {
  const own = attribute(node, 'ratio');
  if (own) return own.f;
  const name = node.input[1];
  if (name === undefined || name === '') return 0.5;
  const producer = index.producer(name);
  const stored = index.initializer(name) ?? (producer ? attribute(producer, 'value')?.t : undefined);
  const single = producer ? attribute(producer, 'value_float')?.f : undefined;
  const ratio = stored ? onnxFloats(stored, 'f64')[0] : single;
  if (ratio === undefined || !(ratio >= 0 && ratio < 1)) {
    throw new InputError(`Dropout "${node.name || node.output[0]}": its ratio is not a constant within [0, 1)`);
  }
  return ratio;
}

/**
 * Makes the dropout of a graph work in training: element i of node n is kept by the hash of i, n and the seed, a function
 * of these alone, so that forward, backward and a resumed run draw the same masks. What is kept is divided by 1 - ratio.
 * @returns the model with the input {@link DROPOUT_SEED} and the model without dropout; undefined when it has none
 */
export function seedDropout(model: ModelProto): { training: ModelProto; inference: ModelProto } | undefined {
  const given = graphOf(model);
  const index = indexOnnxGraph(given);
  const graph = graphOf(withGraph(model, { initializer: [...given.initializer] }));
  let count = 0;
  graph.node = given.node.flatMap((node) => {
    if (node.opType !== 'Dropout' || (node.domain !== '' && node.domain !== 'ai.onnx')) return [node];
    const ratio = ratioOf(node, index);
    return ratio === 0 ? [node] : maskedNodes(graph, index, node, ratio, count++);
  });
  if (count === 0) return undefined;
  const inference = given.node.map((node) =>
    node.opType === 'Dropout' ? onnxNode('Identity', node.name, [node.input[0]], [node.output[0]]) : node,
  );
  const training = {
    node: graph.node,
    initializer: graph.initializer,
    input: [...given.input, onnxValueInfo(DROPOUT_SEED, Type.INT64, [2])],
  };
  return { training: withGraph(model, training), inference: withGraph(model, { node: inference }) };
}

function maskedNodes(graph: GraphProto, index: OnnxGraph, node: NodeProto, ratio: number, place: number): NodeProto[] {
  const [x] = node.input;
  const [y, mask] = node.output;
  const writer = createMaskWriter(graph, index, `${y}.dropout`);
  const long = (value: number): string => {
    const name = index.freshName(`${y}.dropout.long`);
    graph.initializer.push(onnxTensor(name, Type.INT64, [], new Uint8Array(BigInt64Array.of(BigInt(value)).buffer)));
    return name;
  };
  const float = (value: number): string => {
    const name = index.freshName(`${y}.dropout.float`);
    const bytes = new Uint8Array(Float32Array.of(value).buffer);
    graph.initializer.push(onnxTensor(name, Type.FLOAT, [], bytes));
    return writer.emit('CastLike', [name, x]);
  };
  const words = { to: { int: Type.UINT32 } };
  const counter = writer.emit('Cast', [writer.emit('Range', [long(0), writer.emit('Size', [x]), long(1)])], words);
  const seed = writer.emit('Cast', [DROPOUT_SEED], words);
  const part = (at: number): string => writer.emit('Gather', [seed, long(at)]);
  // The first half of the seed and the node's place enter before the first mixing, the other half before the second.
  const key = writer.emit('BitwiseXor', [part(0), writer.unsigned(Math.imul(place + 1, 0x9e3779b1) >>> 0)]);
  const once = mixed(writer, writer.emit('Add', [counter, mixed(writer, key)]));
  const hash = mixed(writer, writer.emit('BitwiseXor', [once, part(1)]));
  const kept = writer.emit('GreaterOrEqual', [hash, writer.unsigned(Math.round(ratio * 2 ** 32))]);
  const shaped = writer.emit('Reshape', [kept, writer.emit('Shape', [x])], { allowzero: { int: 1 } });
  const scaled = writer.emit('Mul', [x, float(1 / (1 - ratio))]);
  writer.nodes.push(onnxNode('Where', node.name || y, [shaped, scaled, float(0)], [y]));
  if (mask) writer.nodes.push(onnxNode('Identity', `${mask}.copy`, [shaped], [mask]));
  return writer.nodes;
}
