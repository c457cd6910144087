import { clone, create } from '@bufbuild/protobuf';
import {
  type AttributeProto,
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  type GraphProto,
  type NodeProto,
  type TensorProto,
} from './onnx_pb.js';

/** A number is a FLOAT; integers say so. */
export type AttributeValue = number | string | { readonly int: number } | { readonly ints: readonly number[] };

const text = new TextEncoder();

/** An attribute of the type that its value has. */
export function attributeOf(name: string, value: AttributeValue): AttributeProto {
  if (typeof value === 'number') return floatAttribute(name, value);
  if (typeof value === 'string') {
    return create(AttributeProtoSchema, { name, type: AttributeProto_AttributeType.STRING, s: text.encode(value) });
  }
  if ('int' in value) return integerAttribute(name, value.int);
  const ints = value.ints.map(BigInt);
  return create(AttributeProtoSchema, { name, type: AttributeProto_AttributeType.INTS, ints });
}

/** The same value under another name. */
export function renamedAttribute(given: AttributeProto, name: string): AttributeProto {
  const copy = clone(AttributeProtoSchema, given);
  copy.name = name;
  copy.refAttrName = '';
  return copy;
}

export function graphAttribute(name: string, g: GraphProto): AttributeProto {
  return create(AttributeProtoSchema, { name, type: AttributeProto_AttributeType.GRAPH, g });
}

export function tensorAttribute(name: string, t: TensorProto): AttributeProto {
  return create(AttributeProtoSchema, { name, type: AttributeProto_AttributeType.TENSOR, t });
}

/** An attribute of a node by name, or undefined. */
export function attribute(node: NodeProto, name: string): AttributeProto | undefined {
  return node.attribute.find((candidate) => candidate.name === name);
}

export function integerAttribute(name: string, value: number): AttributeProto {
  return create(AttributeProtoSchema, { name, type: AttributeProto_AttributeType.INT, i: BigInt(value) });
}

export function floatAttribute(name: string, value: number): AttributeProto {
  return create(AttributeProtoSchema, { name, type: AttributeProto_AttributeType.FLOAT, f: value });
}
