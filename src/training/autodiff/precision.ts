import { create } from '@bufbuild/protobuf';
import { onnxDType } from '../../formats/onnx.js';
import {
  type GraphProto,
  GraphProtoSchema,
  type NodeProto,
  type TensorProto,
  TensorProto_DataType as Type,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from '../../formats/onnx_pb.js';
import { attribute, graphAttribute, integerAttribute, tensorAttribute } from '../../formats/onnx-attributes.js';
import { changedNode, onnxTensor } from '../../formats/onnx-edit.js';
import { onnxElementCount, onnxTensorBytes } from '../../formats/onnx-tensor.js';
import { widenToF32, widenToF64 } from '../../kernels/dtypes.js';
import type { Floats, Precision } from '../types.js';

export const FLOAT_TYPES: ReadonlySet<number> = new Set([Type.FLOAT, Type.DOUBLE, Type.FLOAT16, Type.BFLOAT16]);

/** Operators whose result has the type that an attribute `dtype` names, and FLOAT without it. */
const TYPED_BY_ATTRIBUTE = new Set([
  'RandomNormal',
  'RandomUniform',
  'RandomNormalLike',
  'RandomUniformLike',
  'EyeLike',
]);

export const elementTypeOf = (precision: Precision): number => (precision === 'f32' ? Type.FLOAT : Type.DOUBLE);

/** Elements of a floating-point tensor. @throws InputError when its data lie in another file */
export function onnxFloats(tensor: TensorProto, precision: Precision): Floats {
  const count = onnxElementCount(tensor);
  const bytes = onnxTensorBytes(tensor);
  const dtype = onnxDType(tensor.dataType);
  if (dtype === undefined) throw new Error(`tensor ${tensor.name} has ONNX type ${tensor.dataType}`);
  const values = precision === 'f32' ? new Float32Array(count) : new Float64Array(count);
  if (values instanceof Float32Array) widenToF32(bytes, dtype, values);
  else widenToF64(bytes, dtype, values);
  return values;
}

/** A tensor of the precision's type. */
export function floatTensor(
  name: string,
  values: ArrayLike<number>,
  dims: readonly number[],
  precision: Precision,
): TensorProto {
  const stored = precision === 'f32' ? Float32Array.from(values) : Float64Array.from(values);
  return onnxTensor(name, elementTypeOf(precision), dims, new Uint8Array(stored.buffer));
}

/**
 * The graph in another floating-point type: half precision always widens; single becomes double where `precision` is
 * f64, and double becomes single only where `narrow`, so that tables that a single-precision model computes in double
 * stay. Shares what it does not change.
 */
export function withPrecision(graph: GraphProto, precision: Precision, narrow: boolean): GraphProto {
  const target = elementTypeOf(precision);
  const changes = (type: number): boolean =>
    type !== target && FLOAT_TYPES.has(type) && (type !== Type.DOUBLE || (precision === 'f32' && narrow));
  const convert = (tensor: TensorProto): TensorProto =>
    changes(tensor.dataType)
      ? floatTensor(tensor.name, onnxFloats(tensor, precision), tensor.dims.map(Number), precision)
      : tensor;
  const declare = (info: ValueInfoProto): ValueInfoProto => {
    const type = info.type?.value;
    if (type?.case !== 'tensorType' || !changes(type.value.elemType)) return info;
    const { shape } = type.value;
    const value = { case: 'tensorType' as const, value: { elemType: target, ...(shape && { shape }) } };
    return create(ValueInfoProtoSchema, { name: info.name, type: { value } });
  };
  const convertNode = (node: NodeProto): NodeProto =>
    changedNode(node, {
      attribute: attributesOf(node, precision, changes, convert).map((entry) =>
        entry.g ? graphAttribute(entry.name, withPrecision(entry.g, precision, narrow)) : entry,
      ),
    });
  return create(GraphProtoSchema, {
    name: graph.name,
    node: graph.node.map(convertNode),
    initializer: graph.initializer.map(convert),
    input: graph.input.map(declare),
    output: graph.output.map(declare),
  });
}

function attributesOf(
  node: NodeProto,
  precision: Precision,
  changes: (type: number) => boolean,
  convert: (tensor: TensorProto) => TensorProto,
): NodeProto['attribute'] {
  const target = elementTypeOf(precision);
  const { opType } = node;
  const named = opType === 'Cast' ? 'to' : TYPED_BY_ATTRIBUTE.has(opType) ? 'dtype' : undefined;
  if (named !== undefined) {
    const own = attribute(node, named);
    const type = own ? Number(own.i) : opType.endsWith('Like') ? Type.UNDEFINED : Type.FLOAT;
    if (!changes(type)) return node.attribute;
    return [...node.attribute.filter(({ name }) => name !== named), integerAttribute(named, target)];
  }
  if (opType !== 'Constant' && opType !== 'ConstantOfShape') return node.attribute;
  const value = attribute(node, 'value')?.t;
  if (value) return changes(value.dataType) ? [tensorAttribute('value', convert(value))] : node.attribute;
  if (!changes(Type.FLOAT)) return node.attribute;
  const single = attribute(node, 'value_float');
  const several = attribute(node, 'value_floats');
  if (opType === 'ConstantOfShape') return [tensorAttribute('value', floatTensor('', [0], [1], precision))];
  if (single) return [tensorAttribute('value', floatTensor('', [single.f], [], precision))];
  if (several) return [tensorAttribute('value', floatTensor('', several.floats, [several.floats.length], precision))];
  return node.attribute;
}
