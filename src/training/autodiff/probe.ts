import { create } from '@bufbuild/protobuf';
import { Tensor } from 'onnxruntime-node';
import { InputError } from '../../errors.js';
import { encodeOnnxModel, onnxInputs } from '../../formats/onnx.js';
import { type ModelProto, TensorProto_DataType as Type, ValueInfoProtoSchema } from '../../formats/onnx_pb.js';
import { withGraph } from '../../formats/onnx-edit.js';
import { createSession, runSession } from '../../models/sessions.js';

/** Tensors by input name. */
export type Feeds = Readonly<Record<string, Tensor>>;

/** Every tensor of a graph on one example. */
export interface Probe {
  tensor(name: string): Tensor | undefined;
  /** `TensorProto.DataType`; 0 when the tensor is unknown. */
  elementType(name: string): number;
}

const TYPE_OF_NAME: Readonly<Record<string, number>> = {
  float32: Type.FLOAT,
  float64: Type.DOUBLE,
  float16: Type.FLOAT16,
  int64: Type.INT64,
  int32: Type.INT32,
  int16: Type.INT16,
  int8: Type.INT8,
  uint64: Type.UINT64,
  uint32: Type.UINT32,
  uint16: Type.UINT16,
  uint8: Type.UINT8,
  bool: Type.BOOL,
};

/** A tensor with its elements in the floating-point type that a graph wants; others are given back as they are. */
export function feedAs(tensor: Tensor, elementType: number): Tensor {
  const { data, dims, type } = tensor;
  if (!(data instanceof Float32Array || data instanceof Float64Array)) return tensor;
  if (elementType === Type.DOUBLE && type === 'float32') return new Tensor('float64', Float64Array.from(data), dims);
  if (elementType === Type.FLOAT && type === 'float64') return new Tensor('float32', Float32Array.from(data), dims);
  return tensor;
}

/** Nothing is known before the graph has run. */
export const NO_PROBE: Probe = { tensor: () => undefined, elementType: () => Type.UNDEFINED };

/**
 * Runs a graph once, node by node as it is written, and keeps everything that it computes.
 * @throws InputError when an input has no example or the runtime cannot run the graph
 */
export async function probeGraph(model: ModelProto, example: Feeds): Promise<Probe> {
  const graph = model.graph;
  if (!graph) throw new InputError('the model holds no graph');
  const declared = new Map(graph.input.map((info) => [info.name, info.type?.value]));
  const feeds: Record<string, Tensor> = {};
  for (const { name } of onnxInputs(model)) {
    const given = example[name];
    if (!given) throw new InputError(`the graph reads "${name}", of which the example holds nothing`);
    const type = declared.get(name);
    feeds[name] = feedAs(given, type?.case === 'tensorType' ? type.value.elemType : Type.UNDEFINED);
  }
  const names = graph.node.flatMap(({ output }) => output.filter((name) => name !== ''));
  const output = names.map((name) => create(ValueInfoProtoSchema, { name }));
  const bytes = encodeOnnxModel(withGraph(model, { output }));
  const session = await createSession(bytes, { threads: 1, device: 'cpu', arena: false, unoptimised: true });
  const fetches = Object.fromEntries(names.map((name) => [name, null]));
  const values = new Map<string, Tensor>(Object.entries(feeds));
  try {
    if (names.length > 0) {
      for (const [name, value] of Object.entries(await runSession(session, feeds, fetches))) {
        values.set(name, value as Tensor);
      }
    }
  } finally {
    await session.release();
  }
  return {
    tensor: (name) => values.get(name),
    elementType: (name) => TYPE_OF_NAME[values.get(name)?.type ?? ''] ?? Type.UNDEFINED,
  };
}
