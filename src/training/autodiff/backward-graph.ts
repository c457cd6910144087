import { create } from '@bufbuild/protobuf';
import {
  type NodeProto,
  NodeProtoSchema,
  type TensorProto,
  TensorProto_DataType as Type,
} from '../../formats/onnx_pb.js';
import { type AttributeValue, attributeOf, tensorAttribute } from '../../formats/onnx-attributes.js';
import { onnxIntegers, onnxTensor } from '../../formats/onnx-edit.js';
import type { GraphAnalysis } from './analysis.js';

/** Nodes that are written beside a graph and read its tensors. Equal nodes are written once. */
export interface NodeWriter {
  readonly nodes: readonly NodeProto[];
  readonly initializers: readonly TensorProto[];
  emitMany(
    operator: string,
    inputs: readonly string[],
    outputs: number,
    attributes?: Readonly<Record<string, AttributeValue>>,
  ): readonly string[];
  integers(values: readonly number[], scalar?: boolean): string;
  scalar(value: number, elementType: number): string;
  shapeOf(tensor: string): string;
  /** Zeros (of an element type) of the shape that an int64 vector gives. */
  zeros(shape: string, elementType: number): string;
  /** Extents on the example of a tensor of the graph or of a written one; undefined where they are not followed. */
  dims(tensor: string): readonly number[] | undefined;
  constantIntegers(tensor: string): readonly number[] | undefined;
  freshName(wanted: string): string;
}

/** Operators whose result has the shape of their operands, broadcast. */
const ELEMENTWISE = new Set(
  (
    'Add Sub Mul Div Pow Neg Abs Exp Log Sqrt Reciprocal Sign Tanh Sigmoid Relu Sin Cos Erf Identity Cast Where Max Min ' +
    'Sum And Or Not Equal Less LessOrEqual Greater GreaterOrEqual Softplus Clip Floor Mod CumSum Trilu'
  ).split(' '),
);
/** Operators of which the first operand alone has the shape of the result. */
const SHAPED_BY_FIRST = new Set(['Clip', 'CumSum', 'Trilu']);

/** Starts an empty list of nodes beside an analysed graph. */
export function createNodeWriter(analysis: GraphAnalysis, prefix: string): NodeWriter {
  const nodes: NodeProto[] = [];
  const initializers: TensorProto[] = [];
  const written = new Map<string, readonly string[]>();
  const constants = new Map<string, string>();
  const integerValues = new Map<string, readonly number[]>();
  const shapes = new Map<string, readonly number[]>();
  const extents = new Map<string, readonly number[]>();
  const { index } = analysis;
  let count = 0;

  const dimsOf = (tensor: string): readonly number[] | undefined =>
    extents.get(tensor) ?? (analysis.has(tensor) ? analysis.dims(tensor) : undefined);

  const constant = (key: string, make: (name: string) => TensorProto): string => {
    const known = constants.get(key);
    if (known !== undefined) return known;
    const name = index.freshName(`${prefix}c${count++}`);
    initializers.push(make(name));
    constants.set(key, name);
    return name;
  };

  const resultDims = (operator: string, inputs: readonly string[]): readonly number[] | undefined => {
    if (ELEMENTWISE.has(operator)) {
      const operands = SHAPED_BY_FIRST.has(operator) ? inputs.slice(0, 1) : inputs;
      return broadcast(operands.filter((name) => name !== '').map(dimsOf));
    }
    if (operator === 'Reshape' || operator === 'Expand' || operator === 'ConstantOfShape') {
      const shape = shapes.get(inputs[operator === 'ConstantOfShape' ? 0 : 1]);
      return operator === 'Expand' && shape ? broadcast([shape, dimsOf(inputs[0])]) : shape;
    }
    return undefined;
  };

  const add = (
    operator: string,
    inputs: readonly string[],
    outputs: number,
    attributes: NodeProto['attribute'],
    key: string,
  ): readonly string[] => {
    const known = written.get(key);
    if (known) return known;
    const made = Array.from({ length: outputs }, () => index.freshName(`${prefix}${operator}${count++}`));
    const node = { opType: operator, name: made[0], input: [...inputs], output: [...made], attribute: attributes };
    nodes.push(create(NodeProtoSchema, node));
    written.set(key, made);
    const dims = resultDims(operator, inputs);
    if (dims) extents.set(made[0], dims);
    return made;
  };

  const writer: NodeWriter = {
    nodes,
    initializers,
    emitMany(operator, inputs, outputs, attributes = {}) {
      const key = `${operator}(${inputs.join()})${outputs}${JSON.stringify(attributes)}`;
      const list = Object.entries(attributes).map(([name, value]) => attributeOf(name, value));
      return add(operator, inputs, outputs, list, key);
    },
    integers(values, scalar = false) {
      const name = constant(`i${scalar ? 's' : ''}:${values.join()}`, (fresh) =>
        onnxIntegers(fresh, values, scalar ? [] : [values.length]),
      );
      integerValues.set(name, values);
      return name;
    },
    scalar(value, elementType) {
      const single = elementType === Type.FLOAT;
      const data = single ? Float32Array.of(value) : Float64Array.of(value);
      const bytes = new Uint8Array(data.buffer);
      const name = constant(`f${elementType}:${bytes.join()}`, (fresh) => onnxTensor(fresh, elementType, [], bytes));
      extents.set(name, []);
      return name;
    },
    shapeOf(tensor) {
      const dims = dimsOf(tensor);
      const name =
        dims && analysis.has(tensor) && analysis.hasFixedShape(tensor)
          ? writer.integers(dims)
          : writer.emitMany('Shape', [tensor], 1)[0];
      if (dims) shapes.set(name, dims);
      return name;
    },
    zeros(shape, elementType) {
      const bytes = new Uint8Array(elementType === Type.FLOAT ? 4 : 8);
      const value = tensorAttribute('value', onnxTensor('', elementType, [1], bytes));
      return add('ConstantOfShape', [shape], 1, [value], `zeros${elementType}(${shape})`)[0];
    },
    dims: dimsOf,
    constantIntegers: (tensor) => integerValues.get(tensor),
    freshName: (wanted) => index.freshName(wanted),
  };
  return writer;
}

/** The shape that operands broadcast to; undefined when one is not known. */
export function broadcast(shapes: readonly (readonly number[] | undefined)[]): number[] | undefined {
  const result: number[] = [];
  for (const shape of shapes) {
    if (shape === undefined) return undefined;
    while (result.length < shape.length) result.unshift(1);
    const offset = result.length - shape.length;
    shape.forEach((extent, axis) => {
      if (extent !== 1) result[axis + offset] = extent;
    });
  }
  return result;
}
