import { create } from '@bufbuild/protobuf';
import {
  type GraphProto,
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  OperatorSetIdProtoSchema,
  TensorProto_DataType as Type,
} from '../../formats/onnx_pb.js';
import { graphOf, onnxValueInfo, opsetVersion } from '../../formats/onnx-edit.js';
import { indexOnnxGraph } from '../../formats/onnx-graph.js';
import type { Precision } from '../types.js';
import { withPrecision } from './precision.js';
import { RULE_OPSET, upgradeGraph } from './upgrade.js';

/** IR version of opset 18. */
const OLDEST_IR = 8n;

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

/** A copy of a model that rules can differentiate: one floating-point type, opset 18 or later, initializers no inputs. */
export function prepareModel(model: ModelProto, precision: Precision, wanted: readonly string[]): ModelProto {
  const opset = opsetVersion(model);
  const given = graphOf(model);
  const index = indexOnnxGraph(given);
  const narrow = wanted.some((name) => index.elementType(name) === Type.DOUBLE);
  const graph = withPrecision(given, precision, narrow);
  const stored = new Set(graph.initializer.map(({ name }) => name));
  graph.input = graph.input.filter(({ name }) => !stored.has(name));
  upgradeGraph(graph, opset, index.freshName);
  const { node, initializer, input } = graph;
  const prepared = withGraph(model, { node, initializer, input, output: graph.output });
  if (prepared.irVersion < OLDEST_IR) prepared.irVersion = OLDEST_IR;
  if (opset < RULE_OPSET) {
    prepared.opsetImport = model.opsetImport
      .filter(({ domain }) => domain !== '' && domain !== 'ai.onnx')
      .concat(create(OperatorSetIdProtoSchema, { domain: '', version: BigInt(RULE_OPSET) }));
  }
  return prepared;
}

/** The model with initializers moved to its inputs, which then must be fed. */
export function weightsAsInputs(model: ModelProto, names: readonly string[]): ModelProto {
  const { initializer, input } = graphOf(model);
  const moved = new Set(names);
  const declared = initializer
    .filter(({ name }) => moved.has(name))
    .map(({ name, dataType, dims }) => onnxValueInfo(name, dataType, dims.map(Number)));
  return withGraph(model, {
    input: [...input, ...declared],
    initializer: initializer.filter(({ name }) => !moved.has(name)),
  });
}
