import { create } from '@bufbuild/protobuf';
import {
  type GraphProto,
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  OperatorSetIdProtoSchema,
  TensorProto_DataType as Type,
} from '../../formats/onnx_pb.js';
import { graphOf, opsetVersion } from '../../formats/onnx-edit.js';
import { indexOnnxGraph } from '../../formats/onnx-graph.js';
import type { Precision } from '../types.js';
import { withPrecision } from './precision.js';
import { RULE_OPSET, upgradeGraph } from './upgrade.js';

/** IR version of opset 18. */
const OLDEST_IR = 8n;

/** A model like another, with parts of its graph replaced; tensors are shared. */
export function withGraph(model: ModelProto, changes: Partial<Omit<GraphProto, '$typeName' | '$unknown'>>): ModelProto {
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
  const prepared = withGraph(model, graph);
  if (prepared.irVersion < OLDEST_IR) prepared.irVersion = OLDEST_IR;
  if (opset < RULE_OPSET) {
    prepared.opsetImport = model.opsetImport
      .filter(({ domain }) => domain !== '' && domain !== 'ai.onnx')
      .concat(create(OperatorSetIdProtoSchema, { domain: '', version: BigInt(RULE_OPSET) }));
  }
  return prepared;
}
