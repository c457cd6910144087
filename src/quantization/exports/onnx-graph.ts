import { create, fromBinary } from '@bufbuild/protobuf';
import {
  type GraphProto,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  type ValueInfoProto,
} from '../../formats/onnx_pb.js';
import type { ModelDescription } from '../../models/description.js';
import { composeGraph, type GraphComposer } from '../../models/graph.js';
import { composeRange } from '../../models/layer-graph.js';
import { flatten, normalize } from '../../models/layer-parts.js';

/** TensorProto.DataType of int32. */
const INT32 = 6;

/** Inputs that a caller of a decoder feeds, as exporters of Hugging Face models name them. */
export function isFed(name: string): boolean {
  return /^(input_ids|attention_mask|position_ids|past_key_values\.\d+\.(key|value))$/.test(name);
}

/**
 * The whole decoder as one graph. Fed: `input_ids` [B, S], `attention_mask` [B, past + S], `position_ids` [B, S] (int64)
 * and `past_key_values.<i>.key`, `.value` [B, kvHeads, past, headDim]; given: `logits` [B, S, vocabulary] and
 * `present.<i>.key`, `.value`. All other inputs are weights: `embedding`, `positions`, `layer.<i>.<role>`,
 * `final_norm`, `head`, and `rope.<r>.cos.table`, `.sin.table` [positions, dims / 2].
 */
export function composeDecoder(model: ModelDescription): ModelProto {
  const range = composeRange({
    layers: model.layers,
    prefix: (k) => `layer.${k}.`,
    hiddenSize: model.hiddenSize,
    norm: model.norm,
    ropes: model.ropes,
    linearLayout: model.linearLayout,
    float: 'f32',
    taps: [],
    residuals: false,
    interventions: new Map(),
  });
  const parts = [composeInputs(model), range, composeHead(model)].map((bytes) => fromBinary(ModelProtoSchema, bytes));
  return joinModels(parts, 'decoder', (name) =>
    name
      .replace(/^layer\.(\d+)\.past_([kv])$/, (_, k, part) => `past_key_values.${k}.${part === 'k' ? 'key' : 'value'}`)
      .replace(/^layer\.(\d+)\.present_([kv])$/, (_, k, part) => `present.${k}.${part === 'k' ? 'key' : 'value'}`)
      .replace(/^head$/, model.tiedHead ? 'embedding' : 'head'),
  );
}

/** Embeddings, rotary tables at the positions, and what attention must know of lengths. */
function composeInputs(model: ModelDescription): Uint8Array {
  const g = composeGraph('inputs', 'f32');
  const { hiddenSize, vocabularySize, maxPositions } = model;
  const ids = g.input('input_ids', 'i64', ['batch', 'length']);
  const mask = g.input('attention_mask', 'i64', ['batch', 'total_length']);
  const positions = g.input('position_ids', 'i64', ['batch', 'length']);
  const rows = { attributes: { axis: { int: 0 } } };
  let stream = g.node('Gather', [g.input('embedding', 'f32', [vocabularySize, hiddenSize]), ids], rows);
  if (model.embeddingScale !== 1) stream = g.node('Mul', [stream, g.scalar(model.embeddingScale)]);
  if (model.learnedPositions) {
    const learned = g.node('Gather', [g.input('positions', 'f32', [maxPositions, hiddenSize]), positions], rows);
    stream = g.node('Add', [stream, learned]);
  }
  g.publish(stream, 'resid');
  model.ropes.forEach(({ dims }, r) => {
    for (const part of ['cos', 'sin']) {
      const table = g.input(`rope.${r}.${part}.table`, 'f32', [maxPositions, dims / 2]);
      g.publish(g.node('Gather', [table, positions], rows), `rope.${r}.${part}`);
    }
  });
  const integer = (value: string, name: string): void => {
    g.node('Cast', [value], { attributes: { to: { int: INT32 } }, outputs: [name] });
    g.output(name, 'i32');
  };
  const seen = g.node('ReduceSum', [mask, g.integers([1])], { attributes: { keepdims: { int: 0 } } });
  integer(g.node('Sub', [seen, g.integers([1])]), 'last_key');
  integer(g.node('Slice', [g.node('Shape', [mask]), g.integers([1]), g.integers([2])]), 'total');
  return g.encode();
}

function composeHead(model: ModelDescription): Uint8Array {
  const g = composeGraph('head', 'f32');
  const { hiddenSize, vocabularySize } = model;
  const stream = g.input('resid_out', 'f32', ['batch', 'length', hiddenSize]);
  const shape = g.node('Shape', [stream]);
  const rows = normalize(g, model.norm, flatten(g, stream, hiddenSize), 'final_norm', hiddenSize);
  const matrix = g.input('head', 'f32', [vocabularySize, hiddenSize]);
  const logits = softcap(g, g.node('Gemm', [rows, matrix], { attributes: { transB: { int: 1 } } }), model.logitSoftcap);
  const batchLength = g.node('Slice', [shape, g.integers([0]), g.integers([2])]);
  const wanted = g.node('Concat', [batchLength, g.integers([vocabularySize])], { attributes: { axis: { int: 0 } } });
  g.publish(g.node('Reshape', [logits, wanted]), 'logits', ['batch', 'length', vocabularySize]);
  return g.encode();
}

function softcap(g: GraphComposer, logits: string, cap: number | undefined): string {
  if (cap === undefined) return logits;
  const limit = g.scalar(cap);
  return g.node('Mul', [g.node('Tanh', [g.node('Div', [logits, limit])]), limit]);
}

function graphOf(model: ModelProto): GraphProto {
  if (!model.graph) throw new RangeError('a model without a graph');
  return model.graph;
}

/**
 * One graph of several, in order. Outputs of one that another takes as inputs are connected; the others stay inputs and
 * outputs, under the names that `rename` gives. Values within a graph get a prefix, so that they cannot meet.
 */
function joinModels(models: readonly ModelProto[], name: string, rename: (name: string) => string): ModelProto {
  const [first] = models;
  const graphs = models.map(graphOf);
  const made = new Set(graphs.flatMap((graph) => graph.output.map((value) => value.name)));
  const taken = new Set(graphs.flatMap((graph) => graph.input.map((value) => value.name)));
  const joined = { ...graphOf(first), name, node: [] as NodeProto[], input: [] as ValueInfoProto[] };
  joined.output = [];
  joined.initializer = [];
  graphs.forEach((graph, index) => {
    const shown = new Set([...graph.input, ...graph.output].map((value) => value.name));
    const own = (value: string): string =>
      value === '' ? '' : shown.has(value) ? rename(value) : `g${index}_${value}`;
    for (const node of graph.node) {
      const inputs = node.input.map(own);
      joined.node.push({ ...node, name: `g${index}_${node.name}`, input: inputs, output: node.output.map(own) });
    }
    for (const constant of graph.initializer) joined.initializer.push({ ...constant, name: own(constant.name) });
    for (const value of graph.input) {
      const known = joined.input.some((other) => other.name === own(value.name));
      if (!made.has(value.name) && !known) joined.input.push({ ...value, name: own(value.name) });
    }
    for (const value of graph.output) {
      if (!taken.has(value.name)) joined.output.push({ ...value, name: own(value.name) });
    }
  });
  return create(ModelProtoSchema, { ...first, graph: joined });
}
