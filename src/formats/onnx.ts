import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { InputError } from '../errors.js';
import { openRange, quoted, readWhole } from './files.js';
import {
  type ModelProto,
  ModelProtoSchema,
  TensorProto_DataType,
  type TypeProto_Tensor,
  type ValueInfoProto,
} from './onnx_pb.js';
import type { DType } from './tensor.js';

/** Protobuf messages cannot be larger; weights beyond it lie in external files. */
export const MAX_ONNX_BYTES = 2 ** 31 - 1;

const DTYPE_OF_ELEMENT: ReadonlyMap<number, DType> = new Map([
  [TensorProto_DataType.FLOAT, 'F32'],
  [TensorProto_DataType.DOUBLE, 'F64'],
  [TensorProto_DataType.FLOAT16, 'F16'],
  [TensorProto_DataType.BFLOAT16, 'BF16'],
  [TensorProto_DataType.FLOAT8E4M3FN, 'F8_E4M3'],
  [TensorProto_DataType.FLOAT8E5M2, 'F8_E5M2'],
  [TensorProto_DataType.INT64, 'I64'],
  [TensorProto_DataType.INT32, 'I32'],
  [TensorProto_DataType.INT16, 'I16'],
  [TensorProto_DataType.INT8, 'I8'],
  [TensorProto_DataType.UINT64, 'U64'],
  [TensorProto_DataType.UINT32, 'U32'],
  [TensorProto_DataType.UINT16, 'U16'],
  [TensorProto_DataType.UINT8, 'U8'],
  [TensorProto_DataType.BOOL, 'BOOL'],
] as const);

const ELEMENT_OF_DTYPE: ReadonlyMap<DType, number> = new Map(
  [...DTYPE_OF_ELEMENT].map(([element, dtype]) => [dtype, element]),
);

/** One input or output of a graph. */
export interface OnnxValue {
  readonly name: string;
  /** Undefined when the value is not a tensor or its element type has no name here (strings, complex, 4 bit). */
  readonly dtype: DType | undefined;
  /** Dimensions: numbers when fixed, names when dynamic ("?" when unnamed). Undefined when the rank is not declared. */
  readonly shape: readonly (number | string)[] | undefined;
}

/** Number of `TensorProto.DataType` of a dtype. */
export function onnxElementType(dtype: DType): number {
  return ELEMENT_OF_DTYPE.get(dtype) ?? TensorProto_DataType.UNDEFINED;
}

/** The dtype of a number of `TensorProto.DataType`, or undefined. */
export function onnxDType(elementType: number): DType | undefined {
  return DTYPE_OF_ELEMENT.get(elementType);
}

/**
 * Reads an ONNX model; tensors with external data keep their references, whose files are not opened.
 * @throws InputError when the file is missing, over 2 GiB, truncated, not protobuf, or holds no graph.
 */
export function readOnnxModel(location: string): ModelProto {
  const probe = openRange(location);
  const size = probe.size;
  probe.close();
  if (size === 0) throw new InputError(`${location}: the file is empty: fetch it again`);
  if (size > MAX_ONNX_BYTES)
    throw new InputError(
      `${location}: ${size} bytes: an ONNX file over 2 GiB is invalid, save its weights as external data`,
    );
  return decodeOnnxModel(readWhole(location, MAX_ONNX_BYTES), location);
}

/** Decodes a model from memory; `where` begins every message. @throws InputError as `readOnnxModel`. */
export function decodeOnnxModel(bytes: Uint8Array, where: string): ModelProto {
  let model: ModelProto;
  try {
    model = fromBinary(ModelProtoSchema, bytes);
  } catch (error) {
    // Everything that the decoder throws (lengths past the end, wrong wire types, nesting, bad UTF-8) is the file's fault.
    throw new InputError(
      `${where}: not a valid ONNX file (${quoted((error as Error).message)}): truncated? fetch it again`,
    );
  }
  if (model.graph === undefined || model.irVersion <= 0n || model.opsetImport.length === 0)
    throw new InputError(`${where}: holds no ONNX graph with an IR version and an operator set: not an ONNX model`);
  return model;
}

/** Serialises a model. @throws InputError when it would be over 2 GiB. */
export function encodeOnnxModel(model: ModelProto): Uint8Array {
  const bytes = toBinary(ModelProtoSchema, model);
  if (bytes.length > MAX_ONNX_BYTES)
    throw new InputError(`an ONNX model of ${bytes.length} bytes is over the 2 GiB of protobuf: save external data`);
  return bytes;
}

function dimensions(tensor: TypeProto_Tensor): (number | string)[] | undefined {
  return tensor.shape?.dim.map(({ value }) => {
    if (value.case === 'dimValue') return value.value >= 0n ? Number(value.value) : '?';
    return value.case === 'dimParam' && value.value !== '' ? value.value : '?';
  });
}

function describe(info: ValueInfoProto): OnnxValue {
  const type = info.type?.value;
  if (type?.case !== 'tensorType') return { name: info.name, dtype: undefined, shape: undefined };
  return { name: info.name, dtype: onnxDType(type.value.elemType), shape: dimensions(type.value) };
}

/** The inputs that must be fed: those of the graph that have no initializer. */
export function onnxInputs(model: ModelProto): OnnxValue[] {
  const initialised = new Set(model.graph?.initializer.map((tensor) => tensor.name));
  return (model.graph?.input ?? []).filter((info) => !initialised.has(info.name)).map(describe);
}

export function onnxOutputs(model: ModelProto): OnnxValue[] {
  return (model.graph?.output ?? []).map(describe);
}
