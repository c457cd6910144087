import { basename } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { createAtomicFile } from '../formats/atomic.js';
import { encodeOnnxModel, MAX_ONNX_BYTES, onnxDType } from '../formats/onnx.js';
import {
  type ModelProto,
  StringStringEntryProtoSchema,
  type TensorProto,
  TensorProto_DataLocation,
  TensorProtoSchema,
} from '../formats/onnx_pb.js';
import { graphOf, onnxTensor, withGraph } from '../formats/onnx-edit.js';
import { onnxTensorBytes } from '../formats/onnx-tensor.js';
import { narrowFromF32 } from '../kernels/dtypes.js';
import type { Floats, ParameterSet } from './types.js';

/** Space that everything but the weights of a file may take. */
const STRUCTURE_BYTES = 64 << 20;
/** Data of a weight begin at a page, so that a runtime may map them. */
const PAGE = 4096;
/** Weights below this stay in the graph. */
const SMALL_BYTES = 1024;

const bytesOf = (view: ArrayBufferView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/** Values as the stored tensor holds them: in its own element type. */
function storedBytes(values: Floats, tensor: TensorProto): Uint8Array {
  const dtype = onnxDType(tensor.dataType);
  if (dtype === 'F64') return bytesOf(Float64Array.from(values)); // A copy: the buffer goes on changing.
  const single = Float32Array.from(values);
  if (dtype !== 'F16' && dtype !== 'BF16') return bytesOf(single);
  const narrow = new Uint8Array(single.length * 2);
  narrowFromF32(single, dtype, narrow);
  return narrow;
}

/** The model with the values of a parameter set in the place of its initializers, in the types that these have. */
export function withParameters(model: ModelProto, set: ParameterSet): ModelProto {
  const graph = graphOf(model);
  const known = new Map(set.parameters.map((parameter) => [parameter.name, parameter]));
  const initializer = graph.initializer.map((tensor) => {
    const parameter = known.get(tensor.name);
    if (!parameter) return tensor;
    const values = set.values.subarray(parameter.offset, parameter.offset + parameter.length);
    return onnxTensor(tensor.name, tensor.dataType, tensor.dims.map(Number), storedBytes(values, tensor));
  });
  return withGraph(model, { initializer });
}

/**
 * Writes a model; beyond the 2 GiB of protobuf its weights lie in `<name>.data` beside it.
 * @throws InputError when the file is there and `force` is not set; RunError when the disk is full
 */
export function writeOnnxModel(model: ModelProto, path: string, force = false): void {
  const graph = graphOf(model);
  const weightBytes = graph.initializer.reduce((sum, tensor) => sum + tensor.rawData.length, 0);
  const file = createAtomicFile(path, { force });
  const data = weightBytes + STRUCTURE_BYTES > MAX_ONNX_BYTES ? createAtomicFile(`${path}.data`, { force }) : undefined;
  try {
    let written = model;
    if (data) {
      const location = `${basename(path)}.data`;
      const initializer = graph.initializer.map((tensor) => {
        const bytes = onnxTensorBytes(tensor);
        if (bytes.length < SMALL_BYTES) return tensor;
        const offset = Math.ceil(data.position / PAGE) * PAGE;
        if (offset > data.position) data.write(new Uint8Array(offset - data.position));
        data.write(bytes);
        return externalTensor(tensor, location, offset, bytes.length);
      });
      written = withGraph(model, { initializer });
    }
    file.write(encodeOnnxModel(written));
    data?.commit();
    file.commit();
  } catch (error) {
    data?.abort();
    file.abort();
    throw error;
  }
}

function externalTensor(tensor: TensorProto, location: string, offset: number, length: number): TensorProto {
  const entries = { location, offset: String(offset), length: String(length) };
  return create(TensorProtoSchema, {
    name: tensor.name,
    dataType: tensor.dataType,
    dims: tensor.dims,
    dataLocation: TensorProto_DataLocation.EXTERNAL,
    externalData: Object.entries(entries).map(([key, value]) => create(StringStringEntryProtoSchema, { key, value })),
  });
}
