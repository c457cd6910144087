import { create } from '@bufbuild/protobuf';
import { InputError } from '../errors.js';
import {
  type AttributeProto,
  type GraphProto,
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  StringStringEntryProtoSchema,
  type TensorProto,
  TensorProto_DataType,
  TensorProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from './onnx_pb.js';

/** An extent, a name for a dynamic one, or undefined for an unnamed dynamic one. */
export type OnnxDimension = number | string | undefined;

export function onnxNode(
  opType: string,
  name: string,
  input: readonly string[],
  output: readonly string[],
  attributes: readonly AttributeProto[] = [],
): NodeProto {
  return create(NodeProtoSchema, { opType, name, input: [...input], output: [...output], attribute: [...attributes] });
}

/** A node like another, with some of its parts replaced. */
export function changedNode(
  { opType, domain, overload, name, input, output, attribute }: NodeProto,
  changes: Partial<Pick<NodeProto, 'name' | 'input' | 'output' | 'attribute'>>,
): NodeProto {
  return create(NodeProtoSchema, { opType, domain, overload, name, input, output, attribute, ...changes });
}

/** Declares a tensor; without `dims` its rank is left open. */
export function onnxValueInfo(name: string, elemType: number, dims?: readonly OnnxDimension[]): ValueInfoProto {
  const shape = dims && {
    dim: dims.map((extent) => ({
      value:
        typeof extent === 'number'
          ? ({ case: 'dimValue', value: BigInt(extent) } as const)
          : extent === undefined
            ? ({ case: undefined } as const)
            : ({ case: 'dimParam', value: extent } as const),
    })),
  };
  return create(ValueInfoProtoSchema, {
    name,
    type: { value: { case: 'tensorType', value: { elemType, ...(shape && { shape }) } } },
  });
}

/** A tensor of raw little-endian bytes. */
export function onnxTensor(name: string, dataType: number, dims: readonly number[], rawData: Uint8Array): TensorProto {
  return create(TensorProtoSchema, { name, dataType, dims: dims.map(BigInt), rawData });
}

export function onnxIntegers(name: string, values: readonly number[], dims: readonly number[]): TensorProto {
  const rawData = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
  return onnxTensor(name, TensorProto_DataType.INT64, dims, rawData);
}

/** Puts nodes right before or after another, which keeps the topological order. */
export function insertNodes(
  graph: GraphProto,
  anchor: NodeProto,
  where: 'before' | 'after',
  nodes: readonly NodeProto[],
): void {
  const at = graph.node.indexOf(anchor);
  if (at < 0) throw new Error(`the node ${JSON.stringify(anchor.name)} is not in the graph`);
  graph.node.splice(where === 'before' ? at : at + 1, 0, ...nodes);
}

/**
 * Makes a graph one whose inputs may have default values: IR version 4. In older files every weight is also listed as an
 * input, which would from then on make it replaceable and stop its folding, so that list is cleared of weights first.
 */
export function allowDefaultInputs(model: ModelProto): void {
  if (model.irVersion >= 4n || !model.graph) return;
  const weights = new Set(model.graph.initializer.map(({ name }) => name));
  model.graph.input = model.graph.input.filter(({ name }) => !weights.has(name));
  model.irVersion = 4n;
}

/** Version of the default operator set, or of another domain's; 0 when it is not imported. */
export function opsetVersion(model: ModelProto, domain = ''): number {
  const found = model.opsetImport.find(
    (entry) => entry.domain === domain || (domain === '' && entry.domain === 'ai.onnx'),
  );
  return Number(found?.version ?? 0n);
}

/** Sets one entry of the model's metadata. */
export function setMetadata(model: ModelProto, key: string, value: string): void {
  model.metadataProps = model.metadataProps.filter((entry) => entry.key !== key);
  model.metadataProps.push(create(StringStringEntryProtoSchema, { key, value }));
}

/** The graph of a model that was read. @throws InputError when there is none */
export function graphOf(model: ModelProto): GraphProto {
  if (!model.graph) throw new InputError('the model holds no graph');
  return model.graph;
}

/** A model like another, with parts of its graph replaced; tensors are shared. */
export function withGraph(
  model: ModelProto,
  changes: Partial<Pick<GraphProto, 'name' | 'node' | 'initializer' | 'input' | 'output'>>,
): ModelProto {
  const { name, node, initializer, input, output } = graphOf(model);
  return create(ModelProtoSchema, {
    irVersion: model.irVersion,
    producerName: 'surprisal',
    opsetImport: model.opsetImport,
    functions: model.functions,
    metadataProps: model.metadataProps,
    graph: create(GraphProtoSchema, { name, node, initializer, input, output, ...changes }),
  });
}
