import { InputError } from '../errors.js';
import { type TensorProto, TensorProto_DataLocation, TensorProto_DataType as Type } from './onnx_pb.js';

/** Number of elements of a stored tensor. */
export function onnxElementCount(tensor: TensorProto): number {
  return tensor.dims.reduce((product, extent) => product * Number(extent), 1);
}

function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/**
 * The elements of a tensor as little-endian bytes in row-major order, whichever field of the message holds them.
 * @throws InputError when the data lie in another file or the type has no plain elements
 */
export function onnxTensorBytes(tensor: TensorProto): Uint8Array {
  if (tensor.dataLocation === TensorProto_DataLocation.EXTERNAL) {
    throw new InputError(`tensor ${tensor.name}: its data lie in another file; read the model with its external data`);
  }
  if (tensor.rawData.length > 0) return tensor.rawData;
  switch (tensor.dataType) {
    case Type.FLOAT:
      return bytesOf(Float32Array.from(tensor.floatData));
    case Type.DOUBLE:
      return bytesOf(Float64Array.from(tensor.doubleData));
    case Type.INT64:
      return bytesOf(BigInt64Array.from(tensor.int64Data));
    case Type.UINT64:
      return bytesOf(BigUint64Array.from(tensor.uint64Data));
    case Type.UINT32:
      return bytesOf(Uint32Array.from(tensor.uint64Data, Number));
    case Type.INT32:
      return bytesOf(Int32Array.from(tensor.int32Data));
    case Type.INT16:
      return bytesOf(Int16Array.from(tensor.int32Data));
    case Type.UINT16:
    case Type.FLOAT16:
    case Type.BFLOAT16:
      return bytesOf(Uint16Array.from(tensor.int32Data));
    case Type.INT8:
      return bytesOf(Int8Array.from(tensor.int32Data));
    case Type.UINT8:
    case Type.BOOL:
    case Type.FLOAT8E4M3FN:
    case Type.FLOAT8E5M2:
      return bytesOf(Uint8Array.from(tensor.int32Data));
    default:
      throw new InputError(`tensor ${tensor.name}: elements of ONNX type ${tensor.dataType} cannot be read`);
  }
}
