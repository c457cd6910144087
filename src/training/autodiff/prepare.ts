import { create } from '@bufbuild/protobuf';
import { type ModelProto, OperatorSetIdProtoSchema, TensorProto_DataType as Type } from '../../formats/onnx_pb.js';
import { graphOf, onnxValueInfo, opsetVersion, withGraph } from '../../formats/onnx-edit.js';
import { indexOnnxGraph } from '../../formats/onnx-graph.js';
import type { Precision } from '../types.js';
import { inlineFunctions } from './inlining.js';
import { withPrecision } from './precision.js';
import { RULE_OPSET, upgradeGraph } from './upgrade.js';

/** IR version of opset 18. */
const OLDEST_IR = 8n;

/** A copy of a model that rules can differentiate: one floating-point type, opset 18 or later, initializers no inputs. */
export function prepareModel(source: ModelProto, precision: Precision, wanted: readonly string[]): ModelProto {
  const model = inlineFunctions(source);
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
