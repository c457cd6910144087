import { InputError } from '../../errors.js';
import { type GraphProto, type ModelProto, type NodeProto, TensorProto_DataType } from '../../formats/onnx_pb.js';
import { attribute, floatAttribute, integerAttribute } from '../../formats/onnx-attributes.js';
import {
  allowDefaultInputs,
  graphOf,
  insertNodes,
  onnxNode,
  onnxTensor,
  onnxValueInfo,
} from '../../formats/onnx-edit.js';
import type { OnnxGraph } from '../../formats/onnx-graph.js';
import { narrowFromF32 } from '../../kernels/dtypes.js';
import type { SteeringRecipe } from './patch-options.js';
import { isSkipNorm } from './residual-chain.js';
import { type ResidualPoint, steeringName } from './residual-points.js';

/** What is added at one layer. */
export type SteeringOperand =
  /** Graph input `steer.<layer>` [batch or 1, sequence or 1, hidden]; with a default it is zero when nobody feeds it. */
  | { readonly kind: 'input'; readonly default: 'zero' | 'none' }
  /** [hidden], strength included. */
  | { readonly kind: 'constant'; readonly values: Float32Array };

/**
 * Adds steering at a point of the residual stream. Changes `model` and `point.tensor`; `graph` is the index from before.
 * @returns the name of the graph input or initializer
 * @throws InputError when the graph was patched before, the recipe does not fit the node, the vector has another length,
 *   or a value overflows the stream's type
 */
export function addSteering(
  model: ModelProto,
  graph: OnnxGraph,
  point: ResidualPoint,
  operand: SteeringOperand,
  recipe: SteeringRecipe,
): string {
  const name = steeringName(point.layer);
  if (graph.freshName(name) !== name) {
    throw new InputError(`the graph already has a tensor ${name}: it was patched before; patch the original`);
  }
  checkOperand(point, operand);
  const node = point.sum?.node ?? (point.tensor === null ? undefined : graph.producer(point.tensor));
  if (recipe === 'bias') {
    addBias(model, graph, point, operand, name);
    return name;
  }
  declareOperand(model, point, operand, name);
  const proto = graphOf(model);
  // Where a sum of flattened rows is reshaped to the residual, a vector [1, 1, hidden] fits only the residual.
  const direct = node !== undefined && (isSkipNorm(node) || node.output[0] === point.tensor);
  if (recipe === 'branch' && point.sum && direct) addToBranch(proto, graph, point.sum, name);
  else if (node && direct && isSkipNorm(node)) unfuse(proto, graph, point, node, name);
  else addToTensor(proto, graph, point, name);
  return name;
}

const TYPE_NAMES: Readonly<Record<number, string>> = {
  [TensorProto_DataType.FLOAT]: 'float32',
  [TensorProto_DataType.FLOAT16]: 'float16',
  [TensorProto_DataType.BFLOAT16]: 'bfloat16',
  [TensorProto_DataType.DOUBLE]: 'float64',
};

/** Name of a floating-point element type. */
export function floatTypeName(elementType: number): string {
  return TYPE_NAMES[elementType] ?? `element type ${elementType}`;
}

function checkOperand(point: ResidualPoint, operand: SteeringOperand): void {
  const where = `residual ${point.layer}`;
  if (TYPE_NAMES[point.elementType] === undefined) {
    throw new InputError(`${where} has ${floatTypeName(point.elementType)}, which is no floating-point type to steer`);
  }
  if (operand.kind !== 'constant' || point.hiddenSize === null || operand.values.length === point.hiddenSize) return;
  throw new InputError(
    `${where} has ${point.hiddenSize} values a position, the vector ${operand.values.length}: it belongs to another model`,
  );
}

/**
 * f32 values in the bytes of a stream's type.
 * @throws InputError when a value is not finite or overflows the type; the message names the first
 */
export function encodeSteering(values: Float32Array, elementType: number, layer: number): Uint8Array {
  const broken = values.findIndex((value) => !Number.isFinite(value));
  if (broken >= 0) throw new InputError(`the vector of layer ${layer}: value ${broken} is ${values[broken]}`);
  if (elementType === TensorProto_DataType.FLOAT) return bytesOf(Float32Array.from(values));
  if (elementType === TensorProto_DataType.DOUBLE) return bytesOf(Float64Array.from(values));
  const dtype = elementType === TensorProto_DataType.FLOAT16 ? 'F16' : 'BF16';
  const largest = dtype === 'F16' ? 65504 : 3.3895313892515355e38;
  const over = values.findIndex((value) => Math.abs(value) > largest);
  if (over >= 0) {
    throw new InputError(
      `the vector of layer ${layer}: value ${over} is ${values[over]}, beyond the largest ${floatTypeName(elementType)} ` +
        `(${largest}), the type of this graph's stream; lower --strength`,
    );
  }
  const bytes = new Uint8Array(2 * values.length);
  narrowFromF32(values, dtype, bytes);
  return bytes;
}

function bytesOf(values: Float32Array | Float64Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

function declareOperand(model: ModelProto, point: ResidualPoint, operand: SteeringOperand, name: string): void {
  const proto = graphOf(model);
  const { elementType, hiddenSize, layer } = point;
  if (operand.kind === 'constant') {
    const values = encodeSteering(operand.values, elementType, layer);
    proto.initializer.push(onnxTensor(name, elementType, [operand.values.length], values));
    return;
  }
  allowDefaultInputs(model);
  const dims = ['steer_batch', 'steer_sequence', hiddenSize ?? 'hidden_size'];
  proto.input.push(onnxValueInfo(name, elementType, dims));
  if (operand.default === 'none') return;
  // One zero serves every width where the graph does not say how wide its stream is.
  const width = hiddenSize ?? 1;
  const zeros = encodeSteering(new Float32Array(width), elementType, layer);
  proto.initializer.push(onnxTensor(name, elementType, [1, 1, width], zeros));
}

function addToBranch(proto: GraphProto, graph: OnnxGraph, sum: NonNullable<ResidualPoint['sum']>, steer: string): void {
  const steered = graph.freshName(`${steer}_branch`);
  insertNodes(proto, sum.node, 'before', [
    onnxNode('Add', graph.freshName(`${steer}_add`), [sum.branch, steer], [steered]),
  ]);
  sum.node.input[sum.operandIndex] = steered;
  declareLike(proto, graph, sum.output ?? sum.branch, steered);
}

/** The shape of a broadcast sum with dynamic extents is unknown to inference; fusions want it known. */
function declareLike(proto: GraphProto, graph: OnnxGraph, known: string, tensor: string): void {
  const shape = graph.declaredShape(known);
  if (shape) proto.valueInfo.push(onnxValueInfo(tensor, graph.elementType(known), shape));
}

/** The tensor gets another name where it arises; what is added to it takes the old one, so that all readers are steered. */
function addToTensor(proto: GraphProto, graph: OnnxGraph, point: ResidualPoint, steer: string): void {
  const tensor = point.tensor;
  if (tensor === null) throw new Error(`residual ${point.layer} has no tensor`);
  const producer = graph.producer(tensor);
  const addName = graph.freshName(`${steer}_add`);
  if (producer) {
    const before = graph.freshName(`${steer}_before`);
    producer.output[producer.output.indexOf(tensor)] = before;
    insertNodes(proto, producer, 'after', [onnxNode('Add', addName, [before, steer], [tensor])]);
    declareLike(proto, graph, tensor, before);
    return;
  }
  // A graph input keeps its name: its readers are turned to the sum.
  const steered = graph.freshName(`${steer}_sum`);
  for (const { node, input } of graph.uses(tensor)) {
    if (input < 0)
      throw new InputError(`${tensor} is read inside a subgraph of ${node.name}: it cannot be steered there`);
    node.input[input] = steered;
  }
  proto.node.unshift(onnxNode('Add', addName, [tensor, steer], [steered]));
  declareLike(proto, graph, tensor, steered);
  point.tensor = steered;
}

/** Writes a fused skip norm as Add, Add of the vector, and the norm, under the names that its outputs have. */
function unfuse(proto: GraphProto, graph: OnnxGraph, point: ResidualPoint, node: NodeProto, steer: string): void {
  if (node.output[1] || node.output[2]) {
    throw new InputError(
      `${node.opType} ${JSON.stringify(node.name)} gives its mean or variance: use the recipe branch`,
    );
  }
  const simplified = node.opType === 'SkipSimplifiedLayerNormalization';
  const [input, skip, gamma] = node.input;
  const beta = simplified ? '' : (node.input[3] ?? '');
  const bias = node.input[simplified ? 3 : 4] ?? '';
  const fresh = (part: string): string => graph.freshName(`${steer}_${part}`);
  const nodes: NodeProto[] = [];
  const add = (left: string, right: string, output: string): string => {
    nodes.push(onnxNode('Add', `${output}_add`, [left, right], [output]));
    return output;
  };
  let sum = add(input, skip, fresh('sum'));
  // The CPU kernel of the simplified norm ignores its bias, as this form does.
  if (bias !== '' && !simplified) sum = add(sum, bias, fresh('biased'));
  const steered = add(sum, steer, node.output[3] || fresh('residual'));
  const attributes = [
    integerAttribute('axis', -1),
    floatAttribute('epsilon', attribute(node, 'epsilon')?.f ?? 1e-12),
    integerAttribute('stash_type', 1),
  ];
  const inputs = beta === '' ? [steered, gamma] : [steered, gamma, beta];
  const op = simplified ? 'SimplifiedLayerNormalization' : 'LayerNormalization';
  nodes.push(onnxNode(op, node.name, inputs, [node.output[0]], attributes));
  proto.node.splice(proto.node.indexOf(node), 1, ...nodes);
  point.tensor = steered;
}

function addBias(
  model: ModelProto,
  graph: OnnxGraph,
  point: ResidualPoint,
  operand: SteeringOperand,
  name: string,
): void {
  const node = point.sum?.node;
  if (operand.kind !== 'constant') {
    throw new InputError('the recipe bias holds one constant vector; use branch or sum for a steering input');
  }
  if (node?.opType !== 'SkipLayerNormalization') {
    const what = node ? `${node.opType} ${JSON.stringify(node.name)}` : `the tensor ${point.tensor}`;
    const why =
      node?.opType === 'SkipSimplifiedLayerNormalization' ? ': runtimes ignore the bias of the simplified norm' : '';
    throw new InputError(
      `residual ${point.layer} is given by ${what}, which has no usable bias${why}; use branch or sum`,
    );
  }
  const proto = graphOf(model);
  const vector = encodeSteering(operand.values, point.elementType, point.layer);
  proto.initializer.push(onnxTensor(name, point.elementType, [operand.values.length], vector));
  while (node.input.length < 4) node.input.push('');
  const old = node.input[4] ?? '';
  if (old === '') {
    node.input[4] = name;
    return;
  }
  // Both are constants: the runtime folds their sum when it loads the graph.
  const both = graph.freshName(`${name}_bias`);
  insertNodes(proto, node, 'before', [onnxNode('Add', graph.freshName(`${name}_add`), [old, name], [both])]);
  node.input[4] = both;
}
