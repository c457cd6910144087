import { create } from '@bufbuild/protobuf';
import { encodeOnnxModel, onnxElementType } from '../formats/onnx.js';
import {
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  GraphProtoSchema,
  ModelProtoSchema,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  TensorShapeProto_DimensionSchema,
  ValueInfoProtoSchema,
} from '../formats/onnx_pb.js';
import type { ProductForm } from './tiled-products.js';

const OPSET = 23n;
const IR_VERSION = 10n;

/** A graph of one product `c = a b` with extents left open. */
export function productModel(form: ProductForm, dtype: 'F32' | 'F64'): Uint8Array {
  const elemType = onnxElementType(dtype);
  const extent = (name: string) =>
    create(TensorShapeProto_DimensionSchema, { value: { case: 'dimParam', value: name } });
  const value = (name: string) => {
    const shape = { dim: [extent(`${name}_rows`), extent(`${name}_columns`)] };
    return create(ValueInfoProtoSchema, { name, type: { value: { case: 'tensorType', value: { elemType, shape } } } });
  };
  const flag = (name: string, set: boolean) =>
    create(AttributeProtoSchema, { name, type: AttributeProto_AttributeType.INT, i: set ? 1n : 0n });
  const node = create(NodeProtoSchema, {
    // MatMul with its operands' transposes taken while the runtime packs them.
    opType: 'FusedMatMul',
    domain: 'com.microsoft',
    name: 'product',
    input: ['a', 'b'],
    output: ['c'],
    attribute: [flag('transA', form === 'tn'), flag('transB', form === 'nt')],
  });
  const graph = { name: 'product', node: [node], input: [value('a'), value('b')], output: [value('c')] };
  return encodeOnnxModel(
    create(ModelProtoSchema, {
      irVersion: IR_VERSION,
      producerName: 'surprisal',
      opsetImport: [
        create(OperatorSetIdProtoSchema, { domain: '', version: OPSET }),
        create(OperatorSetIdProtoSchema, { domain: 'com.microsoft', version: 1n }),
      ],
      graph: create(GraphProtoSchema, graph),
    }),
  );
}
