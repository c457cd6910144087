import { decodeOnnxModel, encodeOnnxModel, readOnnxModel } from '../../../src/formats/onnx.js';
import type { ModelProto } from '../../../src/formats/onnx_pb.js';
import { graphOf, onnxNode } from '../../../src/formats/onnx-edit.js';

export const readFixture = (name: string): ModelProto => readOnnxModel(`fixtures/onnx/${name}`);
export const copyOf = (model: ModelProto): ModelProto => decodeOnnxModel(encodeOnnxModel(model), 'copy');

/** Every name but those of inputs and outputs becomes one that says nothing. */
export function scramble(model: ModelProto): ModelProto {
  const graph = graphOf(model);
  const kept = new Set([...graph.input, ...graph.output].map(({ name }) => name));
  const names = new Map<string, string>();
  const rename = (name: string): string => {
    if (name === '' || kept.has(name)) return name;
    const known = names.get(name) ?? `v${(names.size * 7919 + 13) % 10007}`;
    names.set(name, known);
    return known;
  };
  graph.node.forEach((node, index) => {
    node.name = `n${index}`;
    node.input = node.input.map(rename);
    node.output = node.output.map(rename);
  });
  for (const tensor of graph.initializer) tensor.name = rename(tensor.name);
  graph.valueInfo = [];
  return model;
}

/** The residual sums and the norms that follow them as one operator, as onnxruntime-genai writes them. */
export function fuseSkipNorms(model: ModelProto): ModelProto {
  const graph = graphOf(model);
  for (const norm of graph.node.filter(({ opType }) => opType === 'SimplifiedLayerNormalization')) {
    const sum = graph.node.find(({ opType, output }) => opType === 'Add' && output[0] === norm.input[0]);
    if (!sum) continue;
    graph.node.splice(graph.node.indexOf(sum), 1);
    const used = graph.node.some((node) => node !== norm && node.input.includes(sum.output[0]));
    const outputs = used ? [norm.output[0], '', '', sum.output[0]] : [norm.output[0]];
    const epsilon = norm.attribute.filter(({ name }) => name === 'epsilon');
    const inputs = [...sum.input, norm.input[1]];
    const skip = onnxNode('SkipSimplifiedLayerNormalization', norm.name, inputs, outputs, epsilon);
    skip.domain = 'com.microsoft';
    graph.node.splice(graph.node.indexOf(norm), 1, skip);
  }
  return model;
}
