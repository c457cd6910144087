import { create } from '@bufbuild/protobuf';
import { InputError } from '../../errors.js';
import {
  type ModelProto,
  type NodeProto,
  TensorProto_DataType as Type,
  ValueInfoProtoSchema,
} from '../../formats/onnx_pb.js';
import { integerAttribute } from '../../formats/onnx-attributes.js';
import { changedNode, graphOf, onnxNode, onnxTensor, onnxValueInfo, withGraph } from '../../formats/onnx-edit.js';
import { indexOnnxGraph } from '../../formats/onnx-graph.js';
import { onnxTensorBytes } from '../../formats/onnx-tensor.js';
import type { Precision } from '../types.js';
import { differentiateGraph } from './differentiate.js';
import { elementTypeOf } from './precision.js';
import type { Feeds } from './probe.js';
import {
  declare,
  dropUnreadOutputs,
  gradientName,
  liveNodes,
  nameGradients,
  withReadInitializers,
} from './split-graph.js';

export interface JointGraphRequest {
  readonly model: ModelProto;
  /** Inputs or initializers whose gradients are outputs `grad.<name>`. */
  readonly wanted: readonly string[];
  readonly precision: Precision;
  /**
   * Where the gradient starts: a scalar output of the graph, or outputs whose cotangents `grad.<output>` are inputs, for a
   * loss that is computed elsewhere.
   */
  readonly from: { readonly loss: string } | { readonly seeds: readonly string[] };
  /** Adds the output `grad_norm`: the Euclidean norm of all gradients. */
  readonly norm?: boolean;
}

/** Name of the output with the norm of all gradients. */
export const GRADIENT_NORM = 'grad_norm';

/**
 * Forward and backward pass as one ordinary ONNX model that any runtime runs. Wanted initializers are inputs with their
 * values as defaults, so that a runtime may feed others.
 * @throws InputError as `differentiate`, and when the loss is no scalar
 */
export async function composeJointGraph(request: JointGraphRequest, example: Feeds): Promise<ModelProto> {
  const { wanted, from, norm = false } = request;
  const seeds = 'loss' in from ? [from.loss] : from.seeds;
  const made = await differentiateGraph({ ...request, seeds }, example);
  const { analysis, writer, gradients, cotangents } = made;
  const { graph } = analysis;
  if ('loss' in from && analysis.dims(from.loss).some((extent) => extent !== 1)) {
    throw new InputError(`the loss "${from.loss}" has shape [${analysis.dims(from.loss)}]: it must be one number`);
  }
  const names = [...gradients.keys()].map(gradientName);
  const nodes = [...graph.node, ...nameGradients(writer, gradients, writer.nodes)];
  if (norm) nodes.push(...normNodes(names, writer.freshName));
  const outputs = [
    ...graph.output,
    ...[...gradients.keys()].map((name) => declare(analysis, name, gradientName(name))),
    ...(norm ? [onnxValueInfo(GRADIENT_NORM, elementTypeOf(request.precision), [])] : []),
  ];
  const outputNames = outputs.map(({ name }) => name);
  const asInputs = graph.initializer.filter(({ name }) => wanted.includes(name));
  const initializer = [...graph.initializer, ...writer.initializers];
  if ('loss' in from)
    initializer.push(one(cotangents(from.loss), analysis.elementType(from.loss), analysis.dims(from.loss)));
  return withReadInitializers(
    withGraph(analysis.model, {
      name: `${graph.name}.gradients`,
      node: dropUnreadOutputs(liveNodes(nodes, outputNames), outputNames),
      initializer,
      input: [
        ...graph.input,
        ...asInputs.map(({ name }) => declare(analysis, name)),
        ...('loss' in from ? [] : seeds.map((seed) => declare(analysis, seed, cotangents(seed)))),
      ],
      output: outputs,
    }),
  );
}

function one(name: string, elementType: number, dims: readonly number[]) {
  const value = elementType === Type.FLOAT ? Float32Array.of(1) : Float64Array.of(1);
  return onnxTensor(name, elementType, dims, new Uint8Array(value.buffer));
}

function normNodes(gradients: readonly string[], freshName: (wanted: string) => string): NodeProto[] {
  const squares = gradients.map((name) => freshName(`${name}.squares`));
  const total = freshName('grad_norm.squares');
  return [
    ...gradients.map((name, at) => onnxNode('ReduceSumSquare', squares[at], [name], [squares[at]], [keepNoAxes()])),
    onnxNode('Sum', total, squares, [total]),
    onnxNode('Sqrt', GRADIENT_NORM, [total], [GRADIENT_NORM]),
  ];
}

const keepNoAxes = () => integerAttribute('keepdims', 0);

/**
 * Puts a loss graph behind a model: its inputs named in `connections` read tensors of the model, its other inputs (labels,
 * teacher) become inputs, its outputs outputs. Inner names are made unique.
 * @throws InputError when a connection names no tensor of the model or no input of the loss
 */
export function appendGraph(
  model: ModelProto,
  loss: ModelProto,
  connections: Readonly<Record<string, string>>,
): ModelProto {
  const graph = graphOf(model);
  const added = graphOf(loss);
  const index = indexOnnxGraph(graph);
  const names = new Map<string, string>();
  for (const [input, tensor] of Object.entries(connections)) {
    if (!added.input.some(({ name }) => name === input)) throw new InputError(`the loss has no input "${input}"`);
    if (index.producer(tensor) === undefined && !graph.input.some(({ name }) => name === tensor)) {
      throw new InputError(`the model has no tensor "${tensor}" for the loss to read`);
    }
    names.set(input, tensor);
  }
  const publicNames = new Set([...added.input, ...added.output].map(({ name }) => name));
  const rename = (name: string): string => {
    if (name === '') return '';
    const known = names.get(name);
    if (known !== undefined) return known;
    const fresh = index.freshName(publicNames.has(name) ? name : `loss.${name}`);
    names.set(name, fresh);
    return fresh;
  };
  const declared = (info: (typeof added.input)[number]) => {
    const type = info.type;
    return create(ValueInfoProtoSchema, { name: rename(info.name), ...(type && { type }) });
  };
  return withGraph(model, {
    input: [...graph.input, ...added.input.filter(({ name }) => !(name in connections)).map(declared)],
    output: [...graph.output, ...added.output.map(declared)],
    initializer: [
      ...graph.initializer,
      ...added.initializer.map((tensor) =>
        onnxTensor(rename(tensor.name), tensor.dataType, tensor.dims.map(Number), onnxTensorBytes(tensor)),
      ),
    ],
    node: [
      ...graph.node,
      ...added.node.map((node) =>
        changedNode(node, {
          name: `loss.${node.name}`,
          input: node.input.map(rename),
          output: node.output.map(rename),
        }),
      ),
    ],
  });
}
