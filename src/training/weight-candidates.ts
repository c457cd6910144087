import type { ModelProto, TensorProto } from '../formats/onnx_pb.js';
import { graphOf } from '../formats/onnx-edit.js';
import { indexOnnxGraph, type OnnxGraph } from '../formats/onnx-graph.js';
import { FLOAT_TYPES, onnxFloats } from './autodiff/precision.js';
import { type NameSelection, selectNames } from './name-patterns.js';

/** Operands that are statistics or settings. */
const NO_WEIGHTS: Readonly<Record<string, readonly number[]>> = {
  BatchNormalization: [3, 4],
  Pow: [1],
  Clip: [1, 2],
  Pad: [2],
  Dropout: [1],
  Resize: [1, 2],
  OneHot: [2],
  Range: [0, 1, 2],
};
/** Arithmetic whose one-element operand is a factor or offset that an exporter wrote, such as 1/sqrt(head size). */
const ARITHMETIC = new Set(['Add', 'Sub', 'Mul', 'Div', 'Pow', 'Max', 'Min', 'Where']);
/** Entries from here on are those of a mask. */
const MASKING = 1e9;

/** All readers are arithmetic: the only element is taken for a constant. */
function isScaling(index: OnnxGraph, { name, dims }: TensorProto): boolean {
  return dims.every((extent) => extent === 1n) && index.uses(name).every(({ node }) => ARITHMETIC.has(node.opType));
}

/** Every way on leads into a cosine and a sine: rotary frequencies or positions, not a sinusoidal activation. */
function isAngle(index: OnnxGraph, name: string): boolean {
  const outputs = new Set(index.proto.output.map((output) => output.name));
  const met = new Set<string>();
  const reached = new Set([name]);
  const waiting = [name];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    if (outputs.has(next)) return false;
    for (const { node } of index.uses(next)) {
      if (node.opType === 'Sin' || node.opType === 'Cos') {
        met.add(node.opType);
        continue;
      }
      for (const output of node.output) {
        if (output === '' || reached.has(output)) continue;
        reached.add(output);
        waiting.push(output);
      }
    }
  }
  return met.size === 2;
}

function isMask(tensor: TensorProto): boolean {
  return onnxFloats(tensor, 'f64').some((value) => !(Math.abs(value) < MASKING));
}

/**
 * Floating-point initializers that are weights by what reads them: of rank 1 or more, no statistics of batch
 * normalisation, bounds or exponents, no single factors or offsets of arithmetic, no rotary frequencies, no masks.
 */
export function weightCandidates(model: ModelProto): string[] {
  const graph = graphOf(model);
  const index = indexOnnxGraph(graph);
  const settings = new Set(
    graph.node.flatMap((node) => (NO_WEIGHTS[node.opType] ?? []).flatMap((place) => node.input[place] ?? [])),
  );
  return graph.initializer
    .filter(({ name, dataType, dims }) => FLOAT_TYPES.has(dataType) && dims.length > 0 && index.uses(name).length > 0)
    .filter((tensor) => !settings.has(tensor.name) && !isScaling(index, tensor) && !isAngle(index, tensor.name))
    .filter((tensor) => !isMask(tensor))
    .map(({ name }) => name);
}

/**
 * The initializers that are trained: those of {@link weightCandidates} that the globs select, and whatever else `train`
 * names in full.
 * @throws InputError for a glob that matches no name
 */
export function selectWeights(model: ModelProto, selection: NameSelection): string[] {
  const candidates = new Set(weightCandidates(model));
  const named = new Set(selection.train);
  const names = graphOf(model)
    .initializer.filter(({ name, dataType }) => candidates.has(name) || (named.has(name) && FLOAT_TYPES.has(dataType)))
    .map(({ name }) => name);
  return selectNames(names, selection);
}
